"""NSGA-II: evolution towards a whole front of trade-offs."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxnas.architectures import decisions
from jaxnas.base import BlackBox, Tree
from jaxnas.errors import UserError
from jaxnas.searchers._random_search import front_search
from jaxnas.searchers.incumbent import check_at_least
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
      choices: `SearchSpace.choices`.
      num_objectives: `M`, all minimised.
      population_size: `P`.
      crossover_rate: share of children that have two parents.
      mutation: `(key, row) -> row`; by default `reset_mutation(choices)`.
      tournament: what decides between two: `"rank"`, the front (Deb et al.), or `"dominance"` (NSGA-Net, 1810.03522);
        then crowding, then chance.
      attempts: children made for each one that is needed.

    Returns:
      The search. `decode` gives the survivor that is best in the first objective; the front is in the state.

    Raises:
      UserError: a size below one, a rate outside of 0..1, another tournament.
    """
    check_at_least(num_objectives=num_objectives, population_size=population_size, attempts=attempts)
    if not 0 <= crossover_rate <= 1:
        raise UserError(f"crossover_rate must lie in 0..1, got {crossover_rate}")
    if tournament not in ("rank", "dominance"):
        raise UserError(f"tournament must be 'rank' or 'dominance', got {tournament!r}")
    flat = decisions(choices)
    mutate = mutation or reset_mutation(choices)

    def parent(key, state, ranks, crowding):
        one, other = jax.random.randint(
            key, (2,), 0, population_size, jnp.int32
        )  # drawn at random, so a tie goes to chance
        fitness = state.fitness
        worse = dominates(fitness[other], fitness[one]) if tournament == "dominance" else ranks[other] < ranks[one]
        beats = dominates(fitness[one], fitness[other]) if tournament == "dominance" else ranks[one] < ranks[other]
        return jnp.where(worse | (~beats & (crowding[other] > crowding[one])), other, one)

    def child(key, state, ranks, crowding):
        keys = jax.random.split(key, 5)
        one, other = (state.rows[parent(k, state, ranks, crowding)] for k in keys[:2])
        crossed = two_point_crossover(keys[2], one, other)
        return mutate(keys[4], jnp.where(jax.random.bernoulli(keys[3], crossover_rate), crossed, one))

    def ask(key, state):
        key_random, key_child = jax.random.split(key)
        ranks = pareto_ranks(state.fitness)
        crowding = crowding_distance(state.fitness, ranks)
        keys = jax.random.split(key_child, attempts * population_size)
        made = jax.vmap(child, (0, None, None, None))(keys, state, ranks, crowding)
        fresh = flat.random(key_random, population_size)
        anything = jnp.any(jnp.isfinite(state.fitness[:, 0]))  # otherwise there is nobody to descend from
        return state, flat.split(jnp.where(anything, _new_first(state.rows, made)[:population_size], fresh))

    return front_search(choices, ask, population_size, num_objectives)


def _new_first(known: jax.Array, made: jax.Array) -> jax.Array:
    """`made` with those in front that equal no known row and none before them, otherwise in order."""
    repeated = jnp.any(jnp.all(made[:, None] == known[None], -1), 1)
    same = jnp.all(made[:, None] == made[None], -1)
    earlier = jnp.any(same & (jnp.arange(len(made))[:, None] > jnp.arange(len(made))[None]), 1)
    return made[jnp.argsort(repeated | earlier, stable=True)]
