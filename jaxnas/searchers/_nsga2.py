"""NSGA-II: a black-box search that evolves a whole front of trade-offs between objectives."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxnas.architectures import decisions
from jaxnas.base import BlackBox, Tree
from jaxnas.errors import UserError
from jaxnas.searchers._random_search import front_search
from jaxnas.searchers.incumbent import check_at_least, check_share
from jaxnas.searchers.pareto import crowding_distance, dominates, pareto_ranks
from jaxnas.searchers.variation import Mutation, reset_mutation, two_point_crossover

__all__ = ["nsga2"]


def nsga2(
    choices: Tree,
    *,
    num_objectives: int = 2,
    population_size: int = 40,
    crossover_rate: float = 0.9,
    mutation: Mutation | None = None,
    tournament: Literal["rank", "dominance"] = "rank",
    attempts: int = 4,
) -> BlackBox:
    """NSGA-II (Deb et al. 2002, IEEE TEVC 6(2)) on categorical decisions.

    The first `P` architectures are random. Then every `ask` gives `P` children: binary tournaments, two-point
    crossover, mutation; the `P` best of parents and children survive, by front and then by crowding. Children equal
    to a member of the population or to each other are replaced by further ones as far as `attempts` allows.

    Args:
      choices: the decisions to search, `SearchSpace.choices`.
      num_objectives: the number `M` of objectives, all of them minimised.
      population_size: the number `P` of members, and of children per `ask`.
      crossover_rate: share of the children that have two parents, in 0..1.
      mutation: `(key, row) -> row`, applied to every child after crossover; by default `reset_mutation(choices)`.
      tournament: which of two members wins: with `"rank"` the one in the better front (Deb et al.), with `"dominance"`
        the one that dominates the other (NSGA-Net, 1810.03522). Ties go to the less crowded member, then to chance.
      attempts: number of children that are made for each one that is needed.

    Returns:
      The search. `decode` gives the survivor that is best in the first objective; the front is in the state.

    Raises:
      UserError: a size below one, a rate outside of 0..1, or another tournament.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import nsga2
      >>> search = nsga2({"cell": jax.ShapeDtypeStruct((6, 5), float)}, population_size=4)
      >>> state, archs = jax.jit(search.ask)(jax.random.key(0), search.init(jax.random.key(1)))
      >>> archs["cell"].shape  # evaluate them, and tell the search their fitness [4, 2]
      (4, 6)
    """
    check_at_least(num_objectives=num_objectives, population_size=population_size, attempts=attempts)
    check_share(crossover_rate=crossover_rate)
    if tournament not in ("rank", "dominance"):
        raise UserError(f"tournament must be 'rank' or 'dominance', got {tournament!r}")
    flat = decisions(choices)
    mutate = mutation or reset_mutation(choices)

    def parent(key, state, ranks, crowding):
        # Both are drawn at random, so that giving ties to the first one leaves them to chance.
        one, other = jax.random.randint(key, (2,), 0, population_size, jnp.int32)
        fitness = state.fitness
        worse = dominates(fitness[other], fitness[one]) if tournament == "dominance" else ranks[other] < ranks[one]
        beats = dominates(fitness[one], fitness[other]) if tournament == "dominance" else ranks[one] < ranks[other]
        return jnp.where(worse | (~beats & (crowding[other] > crowding[one])), other, one)

    def child(key, state, ranks, crowding):
        # Selection by two tournaments, crossover, mutation.
        keys = jax.random.split(key, 5)
        one, other = (state.rows[parent(k, state, ranks, crowding)] for k in keys[:2])
        crossed = two_point_crossover(keys[2], one, other)
        return mutate(keys[4], jnp.where(jax.random.bernoulli(keys[3], crossover_rate), crossed, one))

    def ask(key, state):
        key_random, key_child = jax.random.split(key)
        ranks = pareto_ranks(state.fitness)
        crowding = crowding_distance(state.fitness, ranks)
        # P times `attempts` children of the survivors; the first P are asked for, new ones before repeated ones.
        keys = jax.random.split(key_child, attempts * population_size)
        made = jax.vmap(child, (0, None, None, None))(keys, state, ranks, crowding)
        fresh = flat.random(key_random, population_size)
        anything = jnp.any(jnp.isfinite(state.fitness[:, 0]))  # otherwise there is nobody to descend from
        return state, flat.split(jnp.where(anything, _new_first(state.rows, made)[:population_size], fresh))

    return front_search(choices, ask, population_size, num_objectives)


def _new_first(known: jax.Array, made: jax.Array) -> jax.Array:
    """Sorts `made[N, D]` so that rows come first which equal neither a row of `known` nor one before them."""
    repeated = jnp.any(jnp.all(made[:, None] == known[None], -1), 1)
    same = jnp.all(made[:, None] == made[None], -1)
    earlier = jnp.any(same & (jnp.arange(len(made))[:, None] > jnp.arange(len(made))[None]), 1)
    return made[jnp.argsort(repeated | earlier, stable=True)]
