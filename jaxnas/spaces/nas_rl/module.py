"""A recurrent cell of NAS-RL as a Flax module, for networks that know nothing of the search."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.base import Params
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl.cell import (
    ACTIVATIONS,
    COMBINATIONS,
    CellState,
    RecurrentCellSpace,
    recurrent_cell,
    recurrent_cell_space,
)

__all__ = ["RecurrentCell", "space_of_genotype"]


class RecurrentCell(nn.RNNCellBase):
    """A cell that was found or published, in the place of `flax.linen.LSTMCell`: in `flax.linen.RNN` and the like.

    It computes what `recurrent_cell` does. Its parameters are those of `RecurrentCellSpace.init`, one array of the
    matrices for the input, `x: [B, D, H]`, and one for the output before, `h: [B, H, H]`, for the `B` leaves of the
    tree; a cell has no biases.

    Attributes:
      features: the number `H` of hidden units.
      genotype: the cell as text, as `RecurrentCellSpace.about.genotype` writes it and `architecture.json` of a search
        holds it. It names its operations, so that the space need not be known.
      init_range: first weights are uniform between minus and plus this number; by default one over the square root of
        the length of the vector that a matrix is multiplied with.

    Raises:
      UserError: when it is used, a genotype that is no cell, or what `recurrent_cell_space` refuses.

    Example:
      >>> import flax.linen as nn
      >>> from jaxnas.spaces.nas_rl import PUBLISHED, RecurrentCell
      >>> layer = nn.RNN(RecurrentCell(features=4, genotype=PUBLISHED["nascell"]))
      >>> variables = layer.init(jax.random.key(0), jnp.ones([2, 7, 3]))  # 2 texts of 7 steps with 3 features
      >>> layer.apply(variables, jnp.ones([2, 7, 3])).shape
      (2, 7, 4)
    """

    features: int
    genotype: str
    init_range: float | None = None

    @nn.compact
    def __call__(self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array) -> tuple[Any, jax.Array]:
        """One step.

        Args:
          carry: memory `c_{t-1}` and output `h_{t-1}`, each `[..., H]`.
          inputs: the input `x_t`, `[..., D]` with the same leading axes.

        Returns:
          The new carry, and `h_t` once more as the output, `[..., H]`.
        """
        space, lengths = (
            space_of_genotype(self.genotype, init_range=self.init_range),
            {"x": inputs.shape[-1], "h": self.features},
        )

        def first(key: jax.Array, name: str) -> jax.Array:
            return space.init(key, lengths["x"], self.features)[name]

        params: Params = {name: self.param(name, first, name) for name in lengths}
        step = recurrent_cell(space, self.genotype)
        for _ in inputs.shape[:-1]:
            step = jax.vmap(step, (None, 0, 0))
        state = step(params, CellState(*carry), inputs)
        return tuple(state), state.h

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Zeros for memory and output, each `[..., H]`, from the shape `[..., D]` of the inputs of a step."""
        del rng
        zeros = jnp.zeros((*input_shape[:-1], self.features), jnp.float32)
        return zeros, zeros

    @property
    def num_feature_axes(self) -> int:
        """The number of axes of an input that are not batches."""
        return 1


def space_of_genotype(genotype: str, *, init_range: float | None = None) -> RecurrentCellSpace:
    """A space that holds a cell: with as many leaves as its text has, and every operation that there is.

    Args:
      genotype: the cell as text.
      init_range: the range of first weights; see `recurrent_cell_space`.

    Raises:
      UserError: a text with fewer than two leaves, or what `recurrent_cell_space` refuses.

    Example:
      >>> from jaxnas.spaces.nas_rl import PUBLISHED, space_of_genotype
      >>> space_of_genotype(PUBLISHED["nascell"]).choices["index"].shape  # 2 cell indices among 15 nodes
      (2, 15)
    """
    leaves = genotype.partition("|")[0].count(",") + 1
    if leaves < 2:
        raise UserError(f"genotype is {genotype!r}, expected that of a cell with at least 2 leaves")
    return recurrent_cell_space(
        leaves, combinations=tuple(COMBINATIONS), activations=tuple(ACTIVATIONS), init_range=init_range
    )
