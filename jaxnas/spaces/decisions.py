"""An architecture as one row of integers, for code that does not care which part of a space a decision belongs to."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, Tree

__all__ = ["Decisions", "decisions", "greatest"]


def greatest(scores: Tree) -> Arch:
    """The operation with the greatest score at every decision, the first of equal ones: the rule of most spaces."""
    return jax.tree.map(lambda leaf: jnp.argmax(leaf, -1).astype(jnp.int32), scores)


class Decisions(NamedTuple):
    """All decisions of a space in a row of length `D`, in the order of the tree's leaves.

    Attributes:
      counts: `[D]`, the number of operations of each.
      join: `(arch) -> [..., D]`; leading axes, as of a population, are kept.
      split: `[..., D] -> arch`.
    """

    counts: np.ndarray
    join: Callable[[Arch], jax.Array]
    split: Callable[[jax.Array], Arch]

    @property
    def size(self) -> int:
        """The exact number of architectures."""
        return math.prod(self.counts.tolist())

    def random(self, key: jax.Array, num: int) -> jax.Array:
        """`num` rows, every operation of every decision equally likely: int32 `[num, D]`."""
        shape = (num, len(self.counts))
        return jax.random.randint(key, shape, 0, jnp.broadcast_to(self.counts, shape), jnp.int32)

    def number(self, row: jax.Array) -> jax.Array:
        """The place of `[..., D]` among all architectures in the order of counting, the last decision fastest."""
        strides = np.append(np.cumprod(self.counts[:0:-1])[::-1], 1)
        terms = row * strides.astype(np.int32).reshape((1,) * (row.ndim - 1) + (-1,))
        return terms.sum(-1, dtype=terms.dtype)


def decisions(choices: Tree) -> Decisions:
    """The decisions of `SearchSpace.choices`.

    Raises:
      ValueError: no decision, or one with fewer than two operations.
    """
    leaves, treedef = jax.tree.flatten(choices)
    shapes = [leaf.shape for leaf in leaves]
    if not leaves or any(len(shape) != 2 or shape[0] < 1 or shape[1] < 2 for shape in shapes):
        raise ValueError(f"choices: need leaves of shape (decisions, operations), at least (1, 2), got {shapes}")
    counts = np.concatenate([np.full(shape[0], shape[1]) for shape in shapes]).astype(np.int32)
    ends = np.cumsum([shape[0] for shape in shapes])[:-1].tolist()

    def join(arch: Arch) -> jax.Array:
        parts = treedef.flatten_up_to(arch)  # type: ignore[attr-defined]
        return jnp.concatenate([jnp.asarray(leaf, jnp.int32) for leaf in parts], -1)

    def split(row: jax.Array) -> Arch:
        return jax.tree.unflatten(treedef, jnp.split(row, ends, -1))

    return Decisions(counts, join, split)
