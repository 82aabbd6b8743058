"""Random search, and the part it shares with NSGA-II: keeping the best by front and crowding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.architectures import decisions
from jaxnas.base import BlackBox, Tree
from jaxnas.errors import UserError
from jaxnas.searchers.incumbent import NO_OPERATION, BlackBoxInfo, check_at_least
from jaxnas.searchers.pareto import survivors

__all__ = ["FrontState", "front_search", "random_search"]


class FrontState(NamedTuple):
    """The architectures that survived, best first.

    Attributes:
      rows: decisions of the architectures, int32 `[P, D]`; random where nothing is stored yet.
      fitness: objectives of the architectures, `[P, M]`; infinite where nothing is stored yet or one was not finite.
      told: number of architectures told so far.
    """

    rows: jax.Array
    fitness: jax.Array
    told: jax.Array


def random_search(choices: Tree, *, num_objectives: int = 1, archive_size: int = 1, batch_size: int = 1) -> BlackBox:
    """Architectures drawn uniformly, with replacement; what is good is kept.

    Args:
      choices: the decisions to search, `SearchSpace.choices`.
      num_objectives: the number `M` of objectives, all of them minimised.
      archive_size: number of architectures that stay, by front and then by crowding; with one objective the best.
      batch_size: number of architectures per `ask`.

    Raises:
      UserError: a size below one.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import random_search
      >>> from jaxnas.tabular import digits, simulate, table_task
      >>> table = digits()
      >>> search = simulate(random_search(table.choices), table_task(table, "-valid_16"), 50)
      >>> state, history = jax.jit(search)(jax.random.key(0))
      >>> float(state.fitness[0, 0]) == float(history.fitness.min())
      True
    """
    check_at_least(num_objectives=num_objectives, archive_size=archive_size, batch_size=batch_size)
    flat = decisions(choices)

    def ask(key, state):
        return state, flat.split(flat.random(key, batch_size))

    return front_search(choices, ask, archive_size, num_objectives)


def front_search(choices: Tree, ask: Callable[..., Any], size: int, num_objectives: int) -> BlackBox:
    """A search whose `tell` leaves the `size` best of what it has and what it is told, by front and then by crowding.

    Args:
      choices: the decisions to search, `SearchSpace.choices`.
      ask: `(key, FrontState) -> (FrontState, archs)`.
      size: number of architectures that survive.
      num_objectives: the number `M` of objectives.
    """
    flat = decisions(choices)

    def init(key):
        # Nothing is stored yet: objectives that every finite row dominates.
        nothing = jnp.full((size, num_objectives), jnp.inf, jnp.float32)
        return FrontState(flat.random(key, size), nothing, jnp.zeros((), jnp.int32))

    def tell(key, state, archs, fitness):
        del key
        told = jnp.asarray(fitness, jnp.float32)
        if told.ndim != 2 or told.shape[1] != num_objectives:
            raise UserError(f"fitness must have shape (population, {num_objectives}), got {told.shape}")
        # Fitness that is not finite counts as the worst.
        good = jnp.all(jnp.isfinite(told), -1)
        values = jnp.concatenate([state.fitness, jnp.where(good[:, None], told, jnp.inf)])
        rows = jnp.concatenate([state.rows, flat.join(archs)])
        # The best of what was kept and what is told, by front and then by crowding.
        best = survivors(values, size)
        state = FrontState(rows[best], values[best], state.told + len(told))
        return state, BlackBoxInfo(jnp.min(state.fitness[:, 0]), jnp.sum(~good, dtype=jnp.int32))

    def decode(state):
        first = jnp.argmin(state.fitness[:, 0])
        return flat.split(jnp.where(jnp.isfinite(state.fitness[first, 0]), state.rows[first], NO_OPERATION))

    return BlackBox(init, ask, tell, decode)
