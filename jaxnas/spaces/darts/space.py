"""The cell space of DARTS, and the variant that SNAS searches.

A network is a stem, a chain of cells and a classifier. A cell sees the two cells before it; each of its four nodes sums
one edge from every earlier node; each edge is one of eight operations. All normal cells share one architecture, all
reduction cells, at one and two thirds of the depth, another.

DARTS (Liu et al., 2019, arXiv 1806.09055) keeps two edges per node and never `none`. SNAS (Xie et al., 2019,
arXiv 1812.09926) keeps all fourteen edges, allows `none`, and normalises pools in its final network too.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.architectures import arch_like
from jaxnas.base import Arch, SearchSpace, Tree
from jaxnas.errors import UserError
from jaxnas.ops import Lowering, Style
from jaxnas.spaces.darts.genotype import genotype, parse
from jaxnas.spaces.darts.network import PRIMITIVES, DartsConfig, DartsNetwork, edges
from jaxnas.spaces.parts.pieces import Decisions
from jaxnas.spaces.parts.skeleton import assemble

__all__ = ["darts_space", "snas_space"]


def darts_space(
    channels: int = 16,
    cells: int = 8,
    num_classes: int = 10,
    *,
    nodes: int = 4,
    stem_multiplier: int = 3,
    operations: Sequence[str] = PRIMITIVES,
    drop_path: float = 0.0,
    lowering: Lowering = "auto",
    dtype: str = "float32",
    reference: int = 0,
) -> SearchSpace:
    """The cell space of DARTS (arXiv 1806.09055, section 2.1).

    `derive` keeps, per node, the two incoming edges with the greatest softmax weight of an operation other than
    `none` (`none` stays in the softmax), and on each its best operation; dropped edges are `none` in the architecture.

    Args:
      channels: width of the first cell.
      cells: depth of the network.
      num_classes: number of classes.
      nodes: intermediate nodes per cell.
      stem_multiplier: width of the stem as a multiple of `channels`.
      operations: candidates of every edge; must contain `none`.
      drop_path: probability of dropping the output of an edge, per example, when `apply` is given a key.
      lowering: `"lax"` evaluates edge by edge with plain `lax` operations; see `jaxnas.ops.lowering`.
      dtype: type of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking,
        `"float64"` throughout, which needs 64-bit JAX.
      reference: number of examples at the head of a batch that give the statistics of normalisation; 0 for all of them.
        With training examples there, other examples are judged independently of each other, by one program for every
        architecture.

    Returns:
      The space, with `choices = {"normal": [E, K], "reduce": [E, K]}`.

    Raises:
      UserError: a size below one, an unknown operation, `operations` without `none`.

    Example:
      >>> space = darts_space(channels=4, cells=2, nodes=1, operations=["none", "skip_connect", "sep_conv_3x3"])
      >>> scores = jnp.array([[0.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
      >>> space.about.genotype(space.derive({"normal": scores, "reduce": scores}))["normal"]
      [[['sep_conv_3x3', 0], ['skip_connect', 1]]]
    """
    settings = dict(locals())
    if "none" not in operations:
        raise UserError(f"operations must contain 'none', which stands for a dropped edge, got {list(operations)}")
    config = DartsConfig(channels, cells, num_classes, nodes, stem_multiplier, tuple(operations))
    space = _space("darts", config, settings)
    size = math.prod(math.comb(2 + i, 2) * (len(operations) - 1) ** 2 for i in range(nodes)) ** 2
    derive = _two_edges(nodes, config.operations.index("none"))
    return space._replace(derive=derive, about=space.about._replace(size=size))


def snas_space(
    channels: int = 16,
    cells: int = 8,
    num_classes: int = 10,
    *,
    nodes: int = 4,
    stem_multiplier: int = 3,
    operations: Sequence[str] = PRIMITIVES,
    drop_path: float = 0.0,
    lowering: Lowering = "auto",
    dtype: str = "float32",
    reference: int = 0,
) -> SearchSpace:
    """The cell space of SNAS (arXiv 1812.09926, section 2.1): every edge keeps the best of all its operations.

    Arguments, result and errors are those of `darts_space`, except that `operations` need not contain `none`.

    Example:
      >>> space = snas_space(nodes=1, operations=["skip_connect", "sep_conv_3x3"])
      >>> space.about.genotype({"normal": [0, 1], "reduce": [1, 1]})["normal"]
      [[['skip_connect', 0], ['sep_conv_3x3', 1]]]
    """
    settings = dict(locals())
    return _space(
        "snas", DartsConfig(channels, cells, num_classes, nodes, stem_multiplier, tuple(operations)), settings
    )


def _two_edges(nodes: int, none: int) -> Callable[[Tree], Arch]:
    """The rule of DARTS (section 2.4): the strongest operation of an edge, and the two strongest edges of a node."""
    incoming = [[row for row, (_, target) in enumerate(edges(nodes)) if target == 2 + i] for i in range(nodes)]

    def derive_cell(scores):
        # Strength of an operation: its softmax weight, in which `none` takes part; it is never chosen itself.
        weights = jax.nn.softmax(scores, -1).at[:, none].set(-1.0)
        best = jnp.max(weights, -1)
        arch = jnp.full(best.shape, none, jnp.int32)
        for rows in incoming:  # two edges per node; of equal ones the first
            strongest = jnp.array(rows)[jnp.argsort(-best[jnp.array(rows)], stable=True)[:2]]
            arch = arch.at[strongest].set(jnp.argmax(weights[strongest], -1).astype(jnp.int32))
        return arch

    return lambda scores: jax.tree.map(derive_cell, scores)


def _space(name: str, config: DartsConfig, settings: dict[str, Any]) -> SearchSpace:
    lowering, is_snas = settings["lowering"], name == "snas"

    def form(*, affine=True, momentum=0.9, **changes):
        changed = dataclasses.replace(config, **{"pool_norm": is_snas, **changes})
        return DartsNetwork(changed, Style(affine=affine, running=True, momentum=momentum, lowering=lowering))

    style = Style(lowering=lowering, reference=settings["reference"])
    # Both kinds are decided even where the network is too short for reduction cells.
    rows = len(edges(config.nodes))
    decisions = [Decisions(kind, rows, config.operations) for kind in ("normal", "reduce")]
    space = assemble(name, config, style, form, settings, decisions=decisions)
    about = space.about._replace(
        genotype=lambda arch: genotype(config, arch_like(space.choices, arch), keep_none=is_snas),
        parse=functools.partial(parse, config),
        edges=dict.fromkeys(space.choices, edges(config.nodes)),
        supernet={"affine": False, "pool_norm": True},
    )
    return space._replace(about=about)
