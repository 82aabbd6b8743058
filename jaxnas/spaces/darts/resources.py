"""The resource constraint of SNAS: parameters, operations and memory access of every edge, as a penalty.

The counts are those of the released code and differ on purpose from `jaxnas.costs`: normalisation, preprocessing, stem
and classifier are left out, and the grid of the output counts.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import chex
import jax.numpy as jnp
import numpy as np

from jaxnas.base import SearchSpace, Tree
from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError
from jaxnas.spaces.darts.network import CellPlan, DartsConfig, cell_plans, edges

__all__ = [
    "Kind",
    "Resources",
    "combine",
    "operation_resources",
    "resource_penalty",
    "resource_tables",
    "resource_totals",
]

Kind = Literal["linear", "log"]


class Resources(NamedTuple):
    """The three costs that SNAS constrains.

    Attributes:
      size: parameters.
      flops: multiply-adds of one image.
      mac: memory access of one image, in numbers read and written.
    """

    size: Any
    flops: Any
    mac: Any


def operation_resources(name: str, channels: int, side: int, stride: int) -> Resources:
    """The costs of one operation on one edge, as the authors' code counts them.

    Args:
      name: name of the operation, one of `jaxnas.spaces.darts.PRIMITIVES`.
      channels: `C`, channels of input and output.
      side: `y`, side of the square *output* in pixels.
      stride: step of the output grid, 1 or 2.

    Raises:
      UserError: an unknown operation, a stride other than 1 and 2, a size below one.

    Example:
      >>> operation_resources("sep_conv_3x3", channels=16, side=32, stride=1)
      Resources(size=800, flops=819200, mac=131872)
    """
    if stride not in (1, 2) or channels < 1 or side < 1:
        raise UserError(f"need stride 1 or 2, channels and side at least 1, got {stride}, {channels}, {side}")
    pixels, extra = side**2, 3 * (stride == 2)  # an input of stride 2 has three pixels more for every output pixel
    if name == "none":
        return Resources(0, 0, 0)
    # Pooling: nine operations per output; memory is read and written once.
    if name in ("max_pool_3x3", "avg_pool_3x3"):
        return Resources(0, 9 * pixels * channels, (2 + extra) * pixels * channels)
    if name == "skip_connect" and stride == 1:
        return Resources(0, 0, 2 * pixels * channels)
    # A skip that halves the grid: two 1x1 convolutions to half of the channels each.
    if name == "skip_connect":
        size = 2 * channels * (channels // 2)
        return Resources(size, size * pixels, 2 * pixels * (4 * channels + channels // 2) + size)
    repeats = {"sep_conv_3x3": 2, "sep_conv_5x5": 2, "dil_conv_3x3": 1, "dil_conv_5x5": 1}.get(name)
    if repeats is None:
        raise UserError(f"name: no resource counts for operation {name!r}")
    # Depthwise and pointwise convolution, once or twice.
    size = repeats * channels * (int(name[-1]) ** 2 + channels)
    return Resources(size, size * pixels, pixels * channels * (4 * repeats + extra) + size)


def resource_tables(space: SearchSpace, image_side: int) -> dict[str, np.ndarray]:
    """The costs of every operation at every edge of every cell.

    Args:
      space: a space of `snas_space` or `darts_space`.
      image_side: side of the square images in pixels.

    Returns:
      `{"normal": [cells, E, K, 3], "reduce": [cells, E, K, 3]}`, int64, the last axis in the order of `Resources`.

    Raises:
      UserError: another space, or an image side below one.
    """
    if space.about.name not in ("darts", "snas") or space.about.config is None:
        raise UserError(f"space: resource counts exist for 'darts' and 'snas', got {space.about.name!r}")
    if image_side < 1:
        raise UserError(f"image_side must be at least 1, got {image_side}")
    # The size of the network, from the settings that the space records.
    names = set(DartsConfig.__dataclass_fields__) & set(space.about.config)
    sizes = {name: space.about.config[name] for name in names}
    config = DartsConfig(**sizes | {"operations": tuple(sizes["operations"])})
    # A table for each cell; reduction cells halve the grid, and the grid of the output counts.
    tables: dict[str, list] = {"normal": [], "reduce": []}
    side = image_side
    for plan in cell_plans(config):
        side = -(-side // 2) if plan.reduction else side
        tables[plan.kind].append(_cell_table(config, plan, side))
    shape = len(edges(config.nodes)), len(config.operations), 3
    return {kind: np.array(cells, np.int64).reshape(-1, *shape) for kind, cells in tables.items()}


def _cell_table(config: DartsConfig, plan: CellPlan, side: int) -> list[list[Resources]]:
    return [
        [operation_resources(name, plan.features, side, plan.stride(source)) for name in config.operations]
        for source, _ in edges(config.nodes)
    ]


def _mixed(table: np.ndarray, weight: Any) -> Any:
    """The mixed costs `[cells, E, 3]` of weights `[E, K]`: numpy in float64 if the weights are, jax otherwise."""
    chex.assert_shape(weight, table.shape[1:3])
    if isinstance(weight, np.ndarray):
        return np.einsum("ek,nekc->nec", weight, table)
    wide = wide_dtype(weight.dtype)
    return jnp.einsum("ek,nekc->nec", weight.astype(wide), jnp.asarray(table, wide), precision="highest")


def resource_totals(tables: dict[str, np.ndarray], weights: Tree) -> Resources:
    """The three costs of a whole network: the sum over all cells and edges of the mixed costs.

    Args:
      tables: costs of every operation at every edge, from `resource_tables`.
      weights: `{"normal": [E, K], "reduce": [E, K]}`: one-hot, probabilities or relaxed samples. Numpy arrays are
        summed exactly (in int64 if they are integers), others in float32.
    """
    totals = [_mixed(tables[kind], weights[kind]).sum((0, 1)) for kind in ("normal", "reduce")]
    return Resources(*(totals[0] + totals[1]))


def combine(costs: Any, kind: Kind = "linear") -> Any:
    """One number per edge from its three mixed costs.

    `linear`: `0.43 (2 size + flops / 4000 + mac / 100)`. `log`: `(log size + log flops + log mac) / 3`, each cost
    taken as at least one, so that an edge of cost zero counts zero and has no gradient. `log` is not linear in the
    weights: its expectation is not its value at the probabilities.

    Args:
      costs: `[..., 3]`, mixed over the operations, in the order of `Resources`.
      kind: `"linear"` or `"log"`.

    Raises:
      UserError: another kind.
    """
    if kind == "linear":
        # The released code's factors of parameters, multiply-adds and memory access.
        return 0.43 * (2 * costs[..., 0] + costs[..., 1] / 4000 + costs[..., 2] / 100)
    if kind != "log":
        raise UserError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if isinstance(costs, np.ndarray):
        return np.log(np.maximum(costs, 1)).sum(-1) / 3
    # Below one the logarithm is constant; `where` keeps its gradient exactly zero there, and at one itself.
    return jnp.sum(jnp.log(jnp.where(costs > 1, costs, 1.0)), -1) / 3


def resource_penalty(
    space: SearchSpace, image_side: int, *, kind: Kind = "linear", ratio: float = 1.0
) -> Callable[[Tree], Any]:
    """The resource term of SNAS (Xie et al., 2019, arXiv 1812.09926, "resource constraint"), without its coefficient.

    `sum_normal c(Z) / (number of normal cells) + ratio * sum_reduce c(Z) / (number of reduction cells)`, the sums over
    all cells and edges of a kind, with `c` from `combine`. Given probabilities and `linear` it is the exact
    expectation; given a relaxed sample `Z` its gradient is a pathwise one.

    Differs from the paper: the paper's cost is a plain sum over edges, linear in `Z`. The factors of the three costs,
    the logarithm and the mean over cells are those of the released code. That code divides by 6 and 2, the cells of
    each kind in a network of 8 cells, at every depth; here the cells of the network are counted.

    Args:
      space: a space of `snas_space` or `darts_space`.
      image_side: side of the square images in pixels.
      kind: how an edge's three costs become one, see `combine`.
      ratio: weight of the reduction cells.

    Returns:
      `(weights) -> scalar` for `{"normal": [E, K], "reduce": [E, K]}`, to be jitted and differentiated; float64 for
      numpy arrays.

    Raises:
      UserError: another space or kind, or an image side below one.
    """
    if kind not in get_args(Kind):
        raise UserError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    tables = resource_tables(space, image_side)

    def penalty(weights: Tree) -> Any:
        # Mean over the cells of a kind, sum over their edges.
        normal, reduce = (
            combine(_mixed(tables[name], weights[name]), kind).sum() / max(len(tables[name]), 1)
            for name in ("normal", "reduce")
        )
        return normal + ratio * reduce

    return penalty
