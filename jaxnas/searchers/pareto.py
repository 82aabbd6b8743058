"""Several objectives at once, all minimised: who dominates whom, how crowded it is, and how much is dominated.

Rows with a value that is not finite count as the worst possible in every objective: any other row dominates them.
"""

import functools

import jax
import jax.numpy as jnp

from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError

__all__ = ["crowding_distance", "dominates", "hypervolume", "pareto_front", "pareto_ranks", "survivors"]

BLOCK = 256  # rows compared with all others at a time


def dominates(one: jax.Array, other: jax.Array) -> jax.Array:
    """Whether `one[..., M]` is nowhere worse than `other[..., M]` and somewhere better.

    Example:
      >>> import jax.numpy as jnp
      >>> bool(dominates(jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0])))
      True
    """
    return jnp.all(one <= other, -1) & jnp.any(one < other, -1)


@jax.jit
def pareto_front(fitness: jax.Array) -> jax.Array:
    """Which rows of `[P, M]` no other row dominates: bool `[P]`. Equal rows share that; non-finite rows never do.

    Takes `P^2` comparisons, a block of rows at a time.

    Example:
      >>> import jax.numpy as jnp
      >>> pareto_front(jnp.array([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0]])).tolist()
      [True, True, False]
    """
    clean = _clean(fitness)
    dominated = jax.lax.map(lambda row: jnp.any(dominates(clean, row[None])), clean, batch_size=BLOCK)
    return ~dominated & jnp.isfinite(clean[:, 0])


@jax.jit
def pareto_ranks(fitness: jax.Array) -> jax.Array:
    """The front of every row of `[P, M]`: 0 if nothing dominates it, 1 if only rows of front 0 do, and so on.

    Fast non-dominated sorting (Deb et al. 2002, section III-A) with all fronts peeled in one loop; `P^2` memory.

    Example:
      >>> import jax.numpy as jnp
      >>> pareto_ranks(jnp.array([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0]])).tolist()
      [0, 0, 1]
    """
    clean = _clean(fitness)
    beats = dominates(clean[:, None], clean[None])  # [P, P]: row beats column

    def left(carry):
        return jnp.any(carry[0] < 0)

    # One front in each turn: the rows that no row without a rank beats.
    def peel(carry):
        ranks, front = carry
        free = (ranks < 0) & ~jnp.any(beats & (ranks < 0)[:, None], 0)
        return jnp.where(free, front, ranks), front + 1

    size = len(clean)
    return jax.lax.while_loop(left, peel, (jnp.full(size, -1, jnp.int32), jnp.zeros((), jnp.int32)))[0]


@jax.jit
def crowding_distance(fitness: jax.Array, ranks: jax.Array) -> jax.Array:
    """How far away the neighbours of every row in its front are (Deb et al. 2002, section III-B): `[P]`.

    The distance is the sum over objectives of the gap between the next row on either side, in units of the front's
    range. In every objective the first and the last row of a front are infinite, whether or not they differ from the
    others: two of three equal rows are infinite and one is 0. For the rows between, an objective in which a front does
    not vary adds nothing. Rows that are not finite get 0.

    Args:
      fitness: the objectives, `[P, M]`, all of them minimised.
      ranks: the fronts of the rows, from `pareto_ranks`.

    Example:
      >>> import jax.numpy as jnp
      >>> crowding_distance(jnp.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0]]), jnp.zeros(3, int)).tolist()
      [inf, 2.0, inf]
    """
    clean = _clean(fitness)
    good = jnp.isfinite(clean[:, 0])
    values = jnp.where(good[:, None], clean, 0.0)
    return jnp.where(good, sum(_gaps(values, m, ranks) for m in range(clean.shape[1])), 0.0)


@functools.partial(jax.jit, static_argnames="num")
def survivors(fitness: jax.Array, num: int) -> jax.Array:
    """The rows that NSGA-II lets survive, best first: int32 `[num]`, by front, then by crowding, earlier rows first.

    Args:
      fitness: the objectives, `[P, M]`, all of them minimised.
      num: number of rows that survive.

    Example:
      >>> import jax.numpy as jnp
      >>> survivors(jnp.array([[2.0, 4.0], [1.0, 3.0], [2.0, 2.0]]), 2).tolist()
      [1, 2]
    """
    ranks = pareto_ranks(fitness)
    return jnp.lexsort((-crowding_distance(fitness, ranks), ranks))[:num].astype(jnp.int32)


@jax.jit
def hypervolume(fitness: jax.Array, reference_point: jax.Array) -> jax.Array:
    """The exact volume between a reference point and everything that `[P, M]` dominates, `M` at most 3.

    Rows beyond the reference point in some objective, and rows that are not finite, add nothing.

    Args:
      fitness: the objectives, `[P, M]`, all of them minimised.
      reference_point: a point that is worse than all that is to be counted, `[M]`.

    Raises:
      UserError: more than three objectives, or a reference point of another length.

    Example:
      >>> import jax.numpy as jnp
      >>> float(hypervolume(jnp.array([[1.0, 3.0], [2.0, 2.0]]), jnp.array([4.0, 4.0])))
      5.0
    """
    clean = _clean(fitness)
    reference_point = jnp.asarray(reference_point, clean.dtype)
    if clean.shape[1] > 3 or reference_point.shape != clean.shape[1:]:
        raise UserError(
            "hypervolume: need up to three objectives and as many entries of reference_point, "
            f"got {clean.shape[1]} and shape {reference_point.shape}"
        )
    reference_point = reference_point[None]
    inside = jnp.all(clean < reference_point, -1)
    gains = jnp.where(inside[:, None], reference_point - clean, 0.0)  # what each row alone dominates: a box from 0
    return (_length, _area, _volume)[clean.shape[1] - 1](gains)


def _clean(fitness: jax.Array) -> jax.Array:
    """The rows in the widest type, infinite in every objective where one is not finite."""
    fitness = jnp.asarray(fitness)
    fitness = fitness.astype(wide_dtype(fitness.dtype))
    return jnp.where(jnp.all(jnp.isfinite(fitness), -1, keepdims=True), fitness, jnp.inf)


def _gaps(values: jax.Array, objective: int, ranks: jax.Array) -> jax.Array:
    """One objective's part of the crowding distance. Ties are ordered by the other objectives."""
    size, count = values.shape
    others = [values[:, (objective + i) % count] for i in reversed(range(count))]
    # Each front in a row, ordered by the objective.
    order = jnp.lexsort((*others, ranks))
    value, rank = values[order, objective], ranks[order]
    low, high = (reduce(value, rank, num_segments=size) for reduce in (jax.ops.segment_min, jax.ops.segment_max))
    same = rank[1:] == rank[:-1]
    edge = jnp.array([True])
    first, last = jnp.concatenate([edge, ~same]), jnp.concatenate([~same, edge])
    # The gap between the two neighbours, in units of the front's range.
    gap = jnp.roll(value, -1) - jnp.roll(value, 1)
    span = (high - low)[rank]
    scaled = jnp.where(span > 0, gap / jnp.where(span > 0, span, 1.0), 0.0)
    return jnp.zeros(size, values.dtype).at[order].set(jnp.where(first | last, jnp.inf, scaled))


def _length(gains: jax.Array) -> jax.Array:
    """The union of intervals `[P, 1]` that begin at zero."""
    return jnp.max(gains[:, 0], initial=0.0)


def _area(gains: jax.Array) -> jax.Array:
    """The union of boxes `[P, 2]` with one corner at zero: a staircase, from the widest box to the narrowest."""
    order = jnp.argsort(-gains[:, 0])
    width, height = gains[order].T
    # A box adds what it reaches above all wider ones.
    reached = jax.lax.cummax(height)
    return jnp.sum(width * jnp.diff(reached, prepend=0.0))


def _volume(gains: jax.Array) -> jax.Array:
    """The union of boxes `[P, 3]`, cut into slabs at every height: the area of the boxes that reach a slab counts."""
    heights = jnp.sort(gains[:, 2])
    thickness = jnp.diff(heights, prepend=0.0)

    # A slab between two heights is as wide as the boxes that reach its upper end.
    def slab(height):
        return _area(jnp.where((gains[:, 2] >= height)[:, None], gains[:, :2], 0.0))

    return jnp.sum(thickness * jax.lax.map(slab, heights))
