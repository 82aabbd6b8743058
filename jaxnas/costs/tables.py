"""Costs that add up over decisions: of one architecture, in expectation over a policy, and of weights that exist.

A `CostTable` holds what each operation costs at each decision; spaces give tables of parameters and multiply-adds of
their stand-alone networks, and a latency table has the same form. Everything here is a sum over it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, CostTable, SearchSpace, Tree
from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError

__all__ = ["cost", "count_parameters", "expected_cost", "space_tables"]


class _Pair(NamedTuple):
    """The costs `[E, K]` of one leaf of the choices and what an architecture chose there, `[..., E]`."""

    costs: np.ndarray
    chosen: Any


def cost(table: CostTable, arch: Arch) -> Any:
    """The cost of an architecture: `fixed + sum_e table[e, arch[e]]`.

    Outside of `jit` the sum is taken in numpy and is exact for integer tables. Of traced architectures it is an int32,
    or where the largest cost does not fit into one a float32 (an int64 with 64-bit JAX); an operation outside
    `0..K-1` then counts as the nearest one that exists.

    Args:
      table: the costs, leaves `[E, K]`, in any unit.
      arch: architectures, leaves `[..., E]` of integers; leading axes, such as a population's, are equal in all leaves.

    Returns:
      The cost `[...]` in the unit of the table: `numpy.int64` (or `float64`) for concrete architectures.

    Raises:
      UserError: an architecture of another structure or another number of decisions; an operation that does not exist.

    Example:
      >>> table = CostTable(10, {"cell": np.array([[0, 1, 2], [0, 3, 5]])})
      >>> int(cost(table, {"cell": np.array([2, 1])}))
      15
    """
    # Each leaf of costs beside the choices that are made there, refused where the two do not fit.
    try:
        pairs = jax.tree.leaves(jax.tree.map(_Pair, table.table, arch), is_leaf=lambda node: isinstance(node, _Pair))
    except ValueError as error:
        raise UserError(f"arch does not have the structure of the cost table: {error}") from None
    pairs = [_Pair(row, leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)) for row, leaf in pairs]
    for row, leaf in pairs:
        if leaf.shape[-1:] != (len(row),) or not np.issubdtype(leaf.dtype, np.integer):
            raise UserError(f"arch: expected integers [..., {len(row)}], got {leaf.dtype} {list(leaf.shape)}")
    if any(isinstance(leaf, jax.core.Tracer) for _, leaf in pairs):
        return _traced_cost(table, pairs)
    # fixed + sum_e table[e, arch[e]], exact in numpy.
    total: Any = np.asarray(table.fixed)[()]
    for row, leaf in pairs:
        total = total + np.sum(np.asarray(row)[np.arange(len(row)), _checked(row, np.asarray(leaf))], axis=-1)
    return total


def _checked(row: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    if leaf.size and (leaf.min() < 0 or leaf.max() >= row.shape[1]):
        raise UserError(f"arch: operations must lie in 0..{row.shape[1] - 1}, got {leaf.tolist()}")
    return leaf


def _traced_cost(table: CostTable, pairs: list[_Pair]) -> jax.Array:
    dtype = _dtype(table)
    total = jnp.asarray(table.fixed, dtype)
    for row, leaf in pairs:
        # sum_e table[e, arch[e]], with operations clipped to those that exist.
        costs = jnp.asarray(row, dtype).reshape((1,) * (leaf.ndim - 1) + row.shape)
        terms = jnp.take_along_axis(costs, jnp.clip(leaf, 0, row.shape[1] - 1)[..., None], axis=-1)
        total = total + jnp.sum(terms, (-2, -1), dtype=dtype)
    return total


def _dtype(table: CostTable) -> Any:
    """int32 where no sum can overflow, otherwise int64 if there is that, and float32."""
    parts = [np.asarray(table.fixed), *(np.asarray(leaf) for leaf in jax.tree.leaves(table.table))]
    whole = all(np.issubdtype(part.dtype, np.integer) for part in parts)
    # The largest cost that an architecture can have.
    largest = sum(int(np.abs(part).max(-1).sum()) for part in parts[1:]) + abs(int(table.fixed)) if whole else 0
    if whole and jax.config.jax_enable_x64 and largest > np.iinfo(np.int32).max:  # type: ignore[attr-defined]
        return jnp.int64
    return jnp.int32 if whole and largest <= np.iinfo(np.int32).max else jnp.float32


def expected_cost(table: CostTable, probabilities: Tree) -> jax.Array:
    """The expected cost under independent decisions: `fixed + sum_e sum_k p[e, k] table[e, k]`.

    It is exact, as the cost is linear in one-hot choices, and its gradient with respect to `p` is the table: the
    expected latency of ProxylessNAS (Cai et al., 2019, arXiv 1812.00332). With relaxed samples in the place of the
    probabilities it is the cost of the sample. The sum is taken in float32.

    Args:
      table: the costs, leaves `[E, K]`, in any unit.
      probabilities: the probability of each operation, leaves `[E, K]`; lift over further axes with `jax.vmap`.

    Returns:
      A scalar in the unit of the table.

    Example:
      >>> table = CostTable(10.0, np.array([[0.0, 4.0]]))
      >>> float(expected_cost(table, jnp.array([[0.75, 0.25]])))
      11.0
    """

    # sum_e sum_k p[e, k] table[e, k] over one leaf.
    def decisions(row, p):
        chex.assert_shape(p, np.shape(row))
        wide = wide_dtype(p.dtype)
        return jnp.sum(p.astype(wide) * jnp.asarray(row, wide))

    terms = jax.tree.leaves(jax.tree.map(decisions, table.table, probabilities))
    return sum(terms, jnp.asarray(table.fixed, terms[0].dtype))


def count_parameters(params: Any) -> int:
    """How many numbers a pytree of arrays or of shapes holds.

    For a stand-alone network, count `variables["params"]`, which leaves out running averages. Papers quote
    the networks of DARTS and SNAS without their auxiliary head.

    Args:
      params: a pytree whose leaves are arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The sum of the leaves' sizes.

    Example:
      >>> count_parameters({"kernel": jnp.ones([3, 3, 8]), "bias": jax.ShapeDtypeStruct((8,), jnp.float32)})
      80
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def space_tables(space: SearchSpace, image_shape: Sequence[int], **changes: Any) -> dict[str, CostTable]:
    """The cost tables of a space's stand-alone networks, for images of one shape.

    Args:
      space: a space that knows its costs.
      image_shape: the shape of one image, `(H, W, C)`, in pixels and channels.
      **changes: the settings in which the stand-alone network differs from the supernet, as in `space.about.network`.

    Returns:
      Tables by name, among them `parameters` (a count) and `macs` (multiply-adds of one image).

    Raises:
      UserError: a space without cost tables, or an image shape that is not three sizes above zero.
    """
    shape = tuple(image_shape)
    if len(shape) != 3 or any(not isinstance(side, int | np.integer) or side < 1 for side in shape):
        raise UserError(f"image_shape must be (height, width, channels), each at least 1, got {image_shape}")
    if space.about.costs is None:
        raise UserError(f"space {space.about.name!r} has no cost tables: its about.costs is None")
    return space.about.costs(shape, **changes)
