"""One skeleton for every space of images: from a plan to a supernet, its stand-alone networks and their costs.

A plan states two things: the pieces of the network, and the forward pass through them. The same forward pass runs with
the weights of a supernet, with the chosen blocks alone, and with placeholders that only have shapes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Arch, CostTable, Network, SearchSpace, Tree
from jaxnas.dtypes import compute_dtype, in_weight_dtype, wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops import Cost, Style, by_hand, one_draw
from jaxnas.spaces.parts.checks import reference_examples
from jaxnas.spaces.parts.inherit import linen_network
from jaxnas.spaces.parts.pieces import Decisions

__all__ = ["Plan", "StandAlone", "assemble", "cost_tables", "visit_pieces"]


class Plan(Protocol):
    """What a space states of its network. Plans are hashable and compare by value, as frozen dataclasses do."""

    def pieces(self, style: Style) -> Tree:
        """The pieces of the network (`Fixed`, `Run`, `Cell`, `Stack`) in dictionaries and lists.

        The weights of the supernet have the same structure. The first piece is called `stem` and has a weight `kernel`.
        """
        ...

    def forward(self, net: Tree, x: Any) -> Any:
        """The network: `net` is structured like `pieces`, with a function of the piece's input in place of each.

        In a supernet only drop path of cells is random: blocks get no key there.
        """
        ...


class StandAlone(nn.Module):
    """The stand-alone network of one architecture: the forward pass of the plan through the chosen blocks alone.

    Attributes:
      plan: pieces and forward pass.
      style: how the blocks normalise and are lowered; the call sets `style.train`.
      chosen: `(kind, operations)` for each entry of the architecture.
    """

    plan: Any
    style: Style
    chosen: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: jax.Array | float | None = None) -> Any:
        """Logits of `x[B, H, W, C]`.

        Args:
          x: images.
          train: whether normalisation uses the statistics of the batch.
          drop_rate: probability of drop path, from the random stream `dropout`; None turns everything random off.
        """
        # Every piece runs the blocks of the architecture as children of this module.
        pieces = self.plan.pieces(dataclasses.replace(self.style, train=train))
        arch = dict(self.chosen)
        net = jax.tree.map(lambda piece: functools.partial(piece.alone, self, arch, drop_rate), pieces)
        return self.plan.forward(self.adapted(net, train, drop_rate), x)

    def adapted(self, net: Tree, train: bool, drop_rate: jax.Array | float | None) -> Tree:
        """The functions of the pieces, with what a stand-alone network alone does around them."""
        del train, drop_rate
        return net


def assemble(
    name: str,
    plan: Plan,
    style: Style,
    form: Callable[..., StandAlone],
    settings: dict[str, Any],
    *,
    decisions: Sequence[Decisions] = (),
) -> SearchSpace:
    """The space of a plan: every decision keeps its best operation, and a genotype names the chosen operations.

    Args:
      name: name of the space.
      plan: pieces and forward pass.
      style: how the blocks of the supernet normalise and are lowered.
      form: `(**changes) -> StandAlone` without an architecture: what `about.network` and `about.costs` accept.
      settings: all arguments of the space's factory, for `about.config`. `dtype`, `reference` and `drop_path`, the
        probability of dropping the output of an edge of a cell, are checked and used here, where there are any.
      decisions: decisions that `choices` has even where no piece leaves them open, as in a network too short for them.

    Returns:
      The space. One with another rule, notation or picture puts it in with `_replace`.

    Raises:
      UserError: a setting that is out of range.
    """
    # Settings: what every space checks in the same way.
    compute, rate = compute_dtype(settings.get("dtype", "float32")), settings.get("drop_path", 0.0)
    if not 0.0 <= rate < 1.0:
        raise UserError(f"drop_path must lie in [0, 1), got {rate}")
    reference_examples(settings.get("reference", 0))
    by_hand(style.lowering)  # raises `UserError` for an unknown one
    pieces = plan.pieces(style)

    # Supernet: placeholders run through the plan while weights are drawn, images run through it afterwards.
    def init(key, x):
        keys, found = iter(jax.random.split(key, len(jax.tree.leaves(pieces)))), {}
        visit_pieces(plan, pieces, x, lambda piece, x: found.update({id(piece): piece.init(next(keys), x)}))
        return jax.tree.map(lambda piece: found[id(piece)], pieces)

    def apply(params, paths, x, *, key=None):
        key = key if rate else None  # nothing else is random

        def running(piece, weights):
            return functools.partial(piece.apply, weights, paths, key=key, rate=rate)

        return plan.forward(jax.tree.map(running, pieces, params), x.astype(compute))

    def used(params, paths):
        return jax.tree.map(lambda piece, weights: piece.used(weights, paths), pieces, params)

    # Decisions: each kind as long as its last row, whichever piece that belongs to.
    operations = _operations([*decisions, *(piece.decisions for piece in jax.tree.leaves(pieces))])
    choices = {
        kind: jax.ShapeDtypeStruct((rows, len(names)), wide_dtype(compute))
        for kind, (rows, names) in operations.items()
    }
    about = _about(name, pieces, {kind: names for kind, (_, names) in operations.items()}, choices, form, settings)
    return SearchSpace(in_weight_dtype(one_draw(init), compute), apply, used, greatest, choices, about)


def _operations(decisions: Iterable[Decisions | None]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Per kind the number of decisions and the names of their operations.

    Raises:
      UserError: pieces of one kind with different operations.
    """
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    for one in decisions:  # fixed blocks leave none open
        if one is not None:
            end, known = found.get(one.kind, (0, one.operations))
            if known != one.operations:
                raise UserError(
                    f"decisions {one.kind!r} must have the same operations, got {known} and {one.operations}"
                )
            found[one.kind] = max(end, one.end), one.operations
    return found


def _about(name, pieces, operations, choices, form, settings) -> About:
    def costs(image_shape, **changes):
        network = form(**changes)
        return cost_tables(network.plan, network.style, choices, image_shape)

    def network(arch, **changes) -> Network:
        arch = arch_like(choices, arch)
        chosen = tuple((kind, tuple(arch[kind].tolist())) for kind in sorted(arch))

        def inherit(params):
            # Every piece hands its weights over under their names in the stand-alone network.
            named: dict[str, Any] = {}
            for piece, weights in zip(jax.tree.leaves(pieces), _of_pieces(pieces, params), strict=True):
                named |= piece.inherit(weights, arch)
            # Sizes do not depend on the grid, but the channels of the image have to be right.
            return named, jax.ShapeDtypeStruct((4, 32, 32, params["stem"]["kernel"].shape[2]), jnp.float32)

        return linen_network(form(**changes).clone(chosen=chosen), inherit)

    def parse(genotype: Any) -> Arch:
        for kind, names in operations.items():
            unknown = sorted(set(genotype[kind]) - set(names))
            if unknown:
                raise UserError(f"genotype: unknown operations {unknown} in {kind}, accepted are {', '.join(names)}")
        return arch_like(choices, {kind: [operations[kind].index(one) for one in genotype[kind]] for kind in genotype})

    def genotype(arch: Arch) -> dict[str, list[str]]:
        return {kind: [operations[kind][k] for k in rows] for kind, rows in arch_like(choices, arch).items()}

    return About(
        name=name,
        operations=operations,
        size=math.prod(shape.shape[1] ** shape.shape[0] for shape in choices.values()),
        costs=costs,
        genotype=genotype,
        parse=parse,
        network=network,
        config={name: list(value) if isinstance(value, tuple | list) else value for name, value in settings.items()},
    )


def _of_pieces(pieces: Tree, params: Tree) -> list[Tree]:
    """The weights of each piece, in the order of `jax.tree.leaves(pieces)`."""
    return jax.tree.structure(pieces).flatten_up_to(params)  # type: ignore[attr-defined]


def visit_pieces(plan: Plan, pieces: Tree, x: Any, visit: Callable[[Any, Any], Any]) -> Any:
    """Runs the forward pass on placeholders and calls `visit(piece, input)` where a piece would run.

    Args:
      plan: the plan with the forward pass.
      pieces: pieces of the network, from `plan.pieces`.
      x: images, or their shape alone, a `jax.ShapeDtypeStruct`; then nothing is computed.
      visit: function of a piece and its input, whose result is ignored.

    Returns:
      A placeholder for the output of the network, or its shape.
    """

    # In place of a piece: the visit, then a placeholder for its output.
    def stand_in(piece):
        def call(x):
            visit(piece, x)
            return piece.output(x)

        return call

    net = jax.tree.map(stand_in, pieces)
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda x: plan.forward(net, x), x)
    return plan.forward(net, x)


def cost_tables(plan: Plan, style: Style, choices: Tree, image_shape: tuple[int, int, int]) -> dict[str, CostTable]:
    """Exact parameters and multiply-adds of the stand-alone networks of a plan.

    Args:
      plan: pieces and forward pass.
      style: how the networks normalise; `style.affine` decides whether normalisation has parameters.
      choices: the decisions, leaves `(E, K)`.
      image_shape: `(H, W, C)` of one image.

    Returns:
      `{"parameters": CostTable, "macs": CostTable}` with tables `[E, K]`. A decision that several cells share counts
      for all of them.
    """
    # Pieces add the costs of candidates to the tables and return their fixed costs.
    fixed: list[Cost] = []
    tables = {kind: np.zeros((*shape.shape, 2), np.int64) for kind, shape in choices.items()}
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    visit_pieces(plan, plan.pieces(style), image, lambda piece, x: fixed.append(piece.count(x, tables)))
    total = sum(fixed, Cost(0, 0))
    return {
        name: CostTable(getattr(total, name), {kind: table[..., i] for kind, table in tables.items()})
        for i, name in enumerate(Cost._fields)
    }
