"""What a search is asked to do with a table: what it minimises, and what an evaluation costs on the simulated clock."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, Tree
from jaxnas.errors import UserError
from jaxnas.tabular.table import Table, floats, lookup, metric_of, sample_run

__all__ = ["Task", "table_task", "task_evaluator"]


class Task(NamedTuple):
    """Something to search, as pure functions that are closed over.

    Attributes:
      choices: the decisions, shaped like `SearchSpace.choices`.
      evaluate: `(key, archs) -> (fitness[B, M], cost[B])`, float32, fitness to be minimised.
      cheapest: the least that an evaluation costs, in units of the budget.
      most_expensive: the most that an evaluation costs, in units of the budget.
    """

    choices: Tree
    evaluate: Callable[[jax.Array, Arch], tuple[jax.Array, jax.Array]]
    cheapest: float
    most_expensive: float


def table_task(
    table: Table, objectives: Sequence[str] | str, *, cost: str | None = None, single_runs: bool = False
) -> Task:
    """The search for the minimum of some metrics of a table.

    Args:
      table: the benchmark.
      objectives: names of metrics, with a minus in front of those to be maximised: `"-valid_12"`, or
        `("-valid_200", "latency/raspi4")`.
      cost: the metric that the clock is charged with for an evaluation, for example seconds of training; by default
        every evaluation costs 1, so that a budget is a number of evaluations.
      single_runs: whether an evaluation gives one stored run, drawn anew every time, where the table has
        `<objective>_runs`.

    Raises:
      UserError: a metric that the table does not have; no objective; a metric of single runs; costs that are not
        positive numbers.

    Example:
      >>> from jaxnas.tabular import digits
      >>> table_task(digits(), ("-valid_16", "macs")).most_expensive  # every evaluation costs one
      1.0
    """
    # A sign for each objective, which makes those to be maximised ones to be minimised.
    wanted = (objectives,) if isinstance(objectives, str) else tuple(objectives)
    names = [(name.removeprefix("-"), -1.0 if name.startswith("-") else 1.0) for name in wanted]
    if not names:
        raise UserError("objectives: need at least one")
    for name in [name for name, _ in names] + ([cost] if cost else []):
        if metric_of(table, name).ndim != 1:
            raise UserError(f"{table.name}: {name} holds single runs, an objective or a cost is one number")
    # The clock is charged with a metric, or with one for every evaluation.
    cheapest, most_expensive = (1.0, 1.0) if cost is None else _range(table, cost)

    def value(key: jax.Array, name: str, archs: Arch) -> jax.Array:
        if single_runs and f"{name}_runs" in table.metrics:
            return sample_run(key, table, f"{name}_runs", archs)
        return floats(lookup(table, name, archs))

    def evaluate(key: jax.Array, archs: Arch) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key, len(names))
        columns = [sign * value(k, name, archs) for k, (name, sign) in zip(keys, names, strict=True)]
        fitness = jnp.stack(columns, -1)
        charged = jnp.ones(len(fitness), jnp.float32) if cost is None else floats(lookup(table, cost, archs))
        return fitness, charged

    return Task(table.choices, evaluate, cheapest, most_expensive)


def task_evaluator(key: jax.Array, task: Task) -> Callable[[np.ndarray, Arch, Tree], jax.Array]:
    """A task as the evaluator of `jaxnas.run.search`: `(ids, archs, origins) -> fitness[n, M]`.

    Costs are left out: the clock of `search` is that of the wall.

    Args:
      key: random key, from which every child gets the key `fold_in(key, id)`. It decides which stored run a child sees
        where the task has single runs; otherwise it is without effect.
      task: the evaluation of architectures, from `table_task`.

    Example:
      >>> from jaxnas.tabular import digits
      >>> table = digits()
      >>> evaluate = task_evaluator(jax.random.key(0), table_task(table, ("-valid_16", "macs")))
      >>> evaluate(np.arange(2), {"cell": np.array([[3, 3, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0]])}, None).shape
      (2, 2)
    """

    @jax.jit
    def evaluate(ids: np.ndarray, archs: Arch, origins: Tree) -> jax.Array:
        del origins  # the fitness in a table does not depend on parents

        def one(number: Any, arch: Arch) -> jax.Array:
            alone = jax.tree.map(lambda leaf: leaf[None], arch)
            return task.evaluate(jax.random.fold_in(key, number), alone)[0][0]

        return jax.vmap(one)(ids, archs)

    return evaluate


def _range(table: Table, cost: str) -> tuple[float, float]:
    values = floats(table.metrics[cost])
    cheapest, most_expensive = float(jnp.nanmin(values)), float(jnp.nanmax(values))
    if not 0 < cheapest <= most_expensive < float("inf"):
        raise UserError(f"{table.name}: {cost} must be positive to be a cost, it lies in {cheapest}..{most_expensive}")
    return cheapest, most_expensive
