"""A whole black-box search as one pure function of a key, on a simulated clock."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.base import Arch, BlackBox
from jaxnas.errors import UserError
from jaxnas.tabular.task import Task

__all__ = ["History", "best_at", "incumbents", "simulate"]


class History(NamedTuple):
    """What a search has evaluated, `T` architectures in order.

    Attributes:
      archs: the architectures, leaves `[T, E]`.
      fitness: objectives of the architectures, `[T, M]`; NaN for evaluations that the budget did not cover.
      clock: the time at which each evaluation was finished, `[T]`, in units of the budget.
      done: whether that was within the budget, bool `[T]`.
    """

    archs: Arch
    fitness: jax.Array
    clock: jax.Array
    done: jax.Array


def simulate(searcher: BlackBox, task: Task, budget: float) -> Callable[[jax.Array], tuple[Any, History]]:
    """A search until its budget is spent: a function `(key) -> (state, history)` to be jitted, and vmapped over keys.

    Evaluations follow one another on the clock. One that would end after the budget does not count, and nothing after
    it does: the searcher is told NaN. `jaxnas.run.search` is the same loop on the host, for any evaluation.

    Args:
      searcher: a black-box search over `task.choices`.
      task: the evaluation of architectures, and what it costs.
      budget: the most that may be spent, in the unit of the task's cost: seconds, or a number of evaluations.

    Raises:
      UserError: a budget that does not cover one evaluation of any architecture.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import random_search
      >>> from jaxnas.tabular import digits, simulate, table_task
      >>> table = digits()
      >>> searches = jax.vmap(simulate(random_search(table.choices), table_task(table, "-valid_16"), budget=30))
      >>> state, history = jax.jit(searches)(jax.random.split(jax.random.key(0), 100))
      >>> history.fitness.shape  # 100 searches of 30 evaluations with one objective
      (100, 30, 1)
    """
    if not budget >= task.most_expensive:
        raise UserError(f"budget must cover one evaluation, which costs up to {task.most_expensive:g}, got {budget:g}")

    def run(key: jax.Array) -> tuple[Any, History]:
        key_init, key_steps = jax.random.split(key)
        # As many calls of `ask` as spend the budget if all evaluations are the cheapest.
        state = searcher.init(key_init)
        batch = len(jax.tree.leaves(jax.eval_shape(searcher.ask, key, state)[1])[0])
        steps = math.ceil(math.floor(budget / task.cheapest) / batch)

        def step(carry, number):
            state, clock = carry
            key_ask, key_evaluate, key_tell = jax.random.split(jax.random.fold_in(key_steps, number), 3)
            state, archs = searcher.ask(key_ask, state)
            fitness, cost = task.evaluate(key_evaluate, archs)
            # The clock: what ends after the budget is not told.
            ends = clock + jnp.cumsum(cost, dtype=clock.dtype)
            done = ends <= budget
            fitness = jnp.where(done[:, None], fitness, jnp.nan)
            state, _ = searcher.tell(key_tell, state, archs, fitness)
            return (state, ends[-1]), History(archs, fitness, ends, done)

        (state, _), history = jax.lax.scan(
            step, (state, jnp.zeros((), jnp.float32)), jnp.arange(steps, dtype=jnp.int32)
        )
        return state, jax.tree.map(lambda leaf: leaf.reshape(steps * batch, *leaf.shape[2:]), history)

    return run


def incumbents(history: History) -> jax.Array:
    """After every evaluation the place of the best one so far, by the first objective: int32 `[T]`, -1 before any."""
    fitness = history.fitness[:, 0]
    value = jnp.where(history.done & jnp.isfinite(fitness), fitness, jnp.inf)
    # Places where the running minimum falls, each kept until the next.
    before = jnp.concatenate([jnp.full(1, jnp.inf, value.dtype), jax.lax.cummin(value)[:-1]])
    places = jnp.arange(len(value), dtype=jnp.int32)
    return jax.lax.cummax(jnp.where(value < before, places, -1))


def best_at(history: History, times: jax.Array) -> jax.Array:
    """The place of the incumbent at each of `times[G]` on the clock: int32 `[G]`, -1 before the first evaluation."""
    count = jnp.searchsorted(jnp.where(history.done, history.clock, jnp.inf), times, side="right")
    return jnp.where(count > 0, incumbents(history)[jnp.maximum(count, 1) - 1], -1)
