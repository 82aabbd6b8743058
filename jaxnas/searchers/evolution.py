"""Regularised evolution: the oldest member of the population dies, not the worst."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.architectures import decisions
from jaxnas.base import BlackBox, Tree
from jaxnas.errors import UserError
from jaxnas.searchers.incumbent import BlackBoxInfo, Incumbent, better, check_at_least, no_incumbent, scalar_fitness
from jaxnas.searchers.variation import Mutation, point_mutation

__all__ = ["EvolutionState", "regularized_evolution"]


class EvolutionState(NamedTuple):
    """The last `P` architectures that were told, in a ring.

    Attributes:
      rows: decisions of the architectures, int32 `[P, D]`.
      fitness: fitness of the architectures, `[P]`; infinite where nothing is stored yet or the fitness was not finite.
      told: number of architectures told so far; number `i` lies at `i % P`.
      best: the best architecture of all that were told, dead ones included.
    """

    rows: jax.Array
    fitness: jax.Array
    told: jax.Array
    best: Incumbent


def regularized_evolution(
    choices: Tree,
    *,
    population_size: int = 100,
    sample_size: int = 25,
    mutation: Mutation | None = None,
    batch_size: int = 1,
) -> BlackBox:
    """Aging evolution (Real et al. 2019, arXiv 1802.01548, algorithm 1).

    The first `P` architectures are random. After that a parent is the best of `S` members drawn uniformly with
    replacement, and its mutation takes the place of the oldest. `decode` gives the best of the whole history.

    Args:
      choices: the decisions to search, `SearchSpace.choices`.
      population_size: the number `P` of members.
      sample_size: the number `S` of members that are drawn for a parent. NAS-Bench-201 uses `P = 10, S = 3`.
      mutation: `(key, row) -> row`, what makes a child of its parent; by default `point_mutation(choices)`.
      batch_size: number of architectures per `ask`, all of them made from one population.

    Raises:
      UserError: a size below one, or a batch larger than the population.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import regularized_evolution
      >>> from jaxnas.tabular import digits, simulate, table_task
      >>> table = digits()
      >>> evolution = regularized_evolution(table.choices, population_size=10, sample_size=3)
      >>> state, history = jax.jit(simulate(evolution, table_task(table, "-valid_16"), 50))(jax.random.key(0))
      >>> float(-state.best.fitness) > 95  # per cent; the mean of all cells is 78
      True
    """
    check_at_least(population_size=population_size, sample_size=sample_size, batch_size=batch_size)
    if batch_size > population_size:
        raise UserError(f"batch_size must be at most population_size, which is {population_size}, got {batch_size}")
    flat = decisions(choices)
    mutate = mutation or point_mutation(choices)

    def init(key):
        del key
        # Nothing is told yet: a fitness that every finite one beats.
        rows = jnp.zeros((population_size, len(flat.counts)), jnp.int32)
        fitness = jnp.full(population_size, jnp.inf, jnp.float32)
        return EvolutionState(rows, fitness, jnp.zeros((), jnp.int32), no_incumbent(len(flat.counts)))

    def child(key, state):
        key_sample, key_mutation = jax.random.split(key)
        # Algorithm 1: the parent is the best of a sample of the population.
        sample = jax.random.randint(key_sample, (sample_size,), 0, population_size, jnp.int32)
        return mutate(key_mutation, state.rows[sample[jnp.argmin(state.fitness[sample])]])

    def ask(key, state):
        key_random, key_child = jax.random.split(key)
        children = jax.vmap(child, (0, None))(jax.random.split(key_child, batch_size), state)
        # Random architectures until the population is full, children from then on.
        fresh = flat.random(key_random, batch_size)
        return state, flat.split(jnp.where(state.told < population_size, fresh, children))

    def tell(key, state, archs, fitness):
        del key
        rows, (values, bad) = flat.join(archs), scalar_fitness(fitness)
        # Ageing: the newest architectures take the places of the oldest.
        places = (state.told + jnp.arange(len(values), dtype=jnp.int32)) % population_size
        best = better(state.best, rows, values)
        state = EvolutionState(
            state.rows.at[places].set(rows), state.fitness.at[places].set(values), state.told + len(values), best
        )
        return state, BlackBoxInfo(best.fitness, bad)

    return BlackBox(init, ask, tell, lambda state: flat.split(state.best.row))
