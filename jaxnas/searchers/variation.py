"""How new architectures are made from known ones: mutations and crossover of rows of decisions.

Every function works on one row `[D]` of integers (`jaxnas.architectures`) and is lifted over populations by `vmap`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import decisions
from jaxnas.base import Tree
from jaxnas.errors import UserError
from jaxnas.searchers.incumbent import check_share

__all__ = ["Mutation", "point_mutation", "reset_mutation", "two_point_crossover"]

Mutation = Callable[[jax.Array, jax.Array], jax.Array]  # (key, row[D]) -> row[D]


def point_mutation(choices: Tree, *, weights: Tree | None = None, identity: float = 0.0) -> Mutation:
    """Gives exactly one decision another operation, all others equally likely (Real et al. 2019, 1802.01548).

    Args:
      choices: the decisions of the rows, `SearchSpace.choices`.
      weights: relative probability of each decision to be changed, leaves `[E]`; uniform if not given. The released
        code of NAS-Bench-201 draws a node first and then one of its edges, which is `[1/3, 1/6, 1/6, 1/9, 1/9, 1/9]`.
      identity: probability of changing nothing, in 0..1.

    Raises:
      UserError: weights that do not fit or are not positive in sum, or a probability outside of 0..1.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import point_mutation
      >>> mutate = point_mutation({"cell": jax.ShapeDtypeStruct((6, 5), float)})
      >>> row = jax.numpy.zeros(6, int)
      >>> int((mutate(jax.random.key(0), row) != row).sum())
      1
    """
    flat = decisions(choices)
    chances = _chances(flat.counts, weights)
    check_share(identity=identity)

    def mutate(key: jax.Array, row: jax.Array) -> jax.Array:
        key_place, key_shift, key_whether = jax.random.split(key, 3)
        # Which decision changes, and by how many options: 1 to K - 1, cyclically.
        place = jax.random.choice(key_place, len(flat.counts), p=chances)
        counts = jnp.asarray(flat.counts)
        shift = jax.random.randint(key_shift, (), 1, counts[place], jnp.int32)
        changed = row.at[place].set((row[place] + shift) % counts[place])
        return jnp.where(jax.random.bernoulli(key_whether, identity), row, changed) if identity else changed

    return mutate


def reset_mutation(choices: Tree, *, rate: float | None = None) -> Mutation:
    """Gives every decision, by itself, another operation with probability `rate`.

    Args:
      choices: the decisions of the rows, `SearchSpace.choices`.
      rate: probability in 0..1; by default one over the number of decisions, which makes one change on average.

    Raises:
      UserError: a rate outside of 0..1.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import reset_mutation
      >>> mutate = reset_mutation({"cell": jax.ShapeDtypeStruct((6, 5), float)}, rate=1.0)
      >>> row = jax.numpy.zeros(6, int)
      >>> int((mutate(jax.random.key(0), row) != row).sum())
      6
    """
    counts = decisions(choices).counts
    chance = 1 / len(counts) if rate is None else rate
    check_share(rate=chance)

    def mutate(key: jax.Array, row: jax.Array) -> jax.Array:
        key_where, key_shift = jax.random.split(key)
        # Which decisions change, each by 1 to K - 1 options, cyclically.
        where = jax.random.bernoulli(key_where, chance, row.shape)
        return jnp.where(where, (row + jax.random.randint(key_shift, row.shape, 1, counts, jnp.int32)) % counts, row)

    return mutate


def two_point_crossover(key: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """Gives `one[D]` the decisions of `other[D]` between two cuts, drawn without replacement from all `D + 1` places.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import two_point_crossover
      >>> child = two_point_crossover(jax.random.key(0), jax.numpy.zeros(6, int), jax.numpy.ones(6, int))
      >>> set(child.tolist()) <= {0, 1}
      True
    """
    size = one.shape[-1]
    first, last = jnp.sort(jax.random.choice(key, size + 1, (2,), replace=False))
    places = jnp.arange(size)
    return jnp.where((places >= first) & (places < last), other, one)


def _chances(counts: np.ndarray, weights: Tree | None) -> np.ndarray:
    if weights is None:
        return np.full(len(counts), 1 / len(counts), np.float32)
    given = np.concatenate([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(weights)])
    if given.shape != counts.shape or (given < 0).any() or not 0 < given.sum() < np.inf:
        raise UserError(f"weights: need {len(counts)} numbers of at least 0, not all 0, got {given.tolist()}")
    return (given / given.sum()).astype(np.float32)
