"""Any black-box search on any benchmark table, hundreds of seeds in one compiled call.

  python -m experiments.tabular [digits | nasbench201 | nats-cifar10 | nats-cifar100 | nats-imagenet16]
  python -m experiments.tabular digits --methods regularized_evolution --budget 30 --seeds 100

A search runs until its budget on a simulated clock is spent (Dong and Yang 2020, arXiv 2001.00326, section 5); what it
has found is then looked up. Prints mean and standard deviation over seeds and leaves `table.md`, `progress.png` and
`found.npz`. The presets other than `digits` read `$JAXNAS_DATA/nasbench201.npz`.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures
from experiments.configs.tabular import PRESETS, Config
from jaxnas import plot
from jaxnas.base import BlackBox
from jaxnas.errors import UserError
from jaxnas.policies import categorical, controller
from jaxnas.run import Run, script
from jaxnas.searchers import local_search, nas_rl, policy_search, random_search, regularized_evolution
from jaxnas.tabular import (
    Table,
    best_at,
    floats,
    load,
    lookup,
    metric_of,
    missing,
    simulate,
    table_task,
    with_metrics,
)

METHODS = {
    "random_search": lambda table, config: random_search(table.choices),
    "local_search": lambda table, config: local_search(table.choices),
    "reinforce": lambda table, config: policy_search(categorical(table.choices), optax.adam(config.learning_rate)),
    "nas_rl": lambda table, config: nas_rl(
        controller(table.choices),
        optax.adam(config.controller_learning_rate),
        batch_size=config.batch_size,
        reward=above_the_worst(table, config.objective),
    ),
    "regularized_evolution": lambda table, config: regularized_evolution(
        table.choices, population_size=config.population_size, sample_size=config.sample_size
    ),
}
MOST = 100_000_000  # the largest number of evaluations, or of members of a population, in one call
POINTS = 200  # moments of the clock at which the incumbents are looked up


def make_searcher(name: str, table: Table, config: Config) -> BlackBox:
    """A search by name."""
    if name not in METHODS:
        raise UserError(f"methods: unknown {name!r}, there are {', '.join(METHODS)}")
    return METHODS[name](table, config)


def above_the_worst(table: Table, objective: str) -> Callable[[jax.Array], jax.Array]:
    """The reward of an architecture: how much better it is than the worst in the table, in units of the metric."""
    values = floats(np.asarray(metric_of(table, objective.removeprefix("-"))))
    worst = np.nanmax(-values if objective.startswith("-") else values)
    return lambda fitness: worst - fitness


class Study(NamedTuple):
    """What is searched.

    Attributes:
      config: the configuration of the script.
      table: the benchmark.
      searches: the search of each method, from `simulate`.
    """

    config: Config
    table: Table
    searches: dict[str, Callable]


def prepare(config: Config) -> Study:
    """The table and the searches."""
    # An evaluation may cost a share of the metric, which becomes a metric of the table.
    table, cost = load(os.path.expandvars(config.table)), config.cost
    if cost is not None and config.cost_share != 1.0:
        table = with_metrics(table, {"cost": config.cost_share * floats(np.asarray(metric_of(table, cost)))})
        cost = "cost"
    for metric in config.report:
        metric_of(table, metric)
    task = table_task(table, config.objective, cost=cost, single_runs=config.single_runs)
    searches = {name: simulate(make_searcher(name, table, config), task, config.budget) for name in config.methods}
    # What would not fit into one call for all seeds is refused.
    refuse_too_many("budget", config.budget / task.cheapest, "evaluations", config.seeds)
    refuse_too_many("population_size", max(config.population_size, config.sample_size), "members", config.seeds)
    return Study(config, table, searches)


def refuse_too_many(field: str, count: float, of_what: str, seeds: int) -> None:
    """Raises `UserError` for more than fits into one call, which does all seeds."""
    if count * seeds > MOST:
        wanted = f"{count:.0f} {of_what} for each of {seeds} seeds"
        raise UserError(f"{field} makes {wanted}, expected at most {MOST} in all")


def search(run: Run, study: Study, name: str):
    """All seeds of one method: what each has found by every point of the clock, and how long that took.

    Returns:
      Metrics `[S, G]` by name, the number of evaluations `[S]`, and seconds of compilation and of the call.
    """
    config, table, searches = study
    one = searches[name]
    times = jnp.linspace(config.budget / POINTS, config.budget, POINTS)

    # One seed: its search, and the metrics of what it had found by each moment.
    def follow(key):
        _, history = one(key)
        places = best_at(history, times)
        archs = jax.tree.map(lambda leaf: leaf[places], history.archs)
        found = {metric: lookup(table, metric, archs) for metric in config.report}
        known = {metric: jnp.where(places >= 0, values, missing(values.dtype)) for metric, values in found.items()}
        return known, history.done.sum()

    # All seeds in one call, compilation and run timed apart.
    keys = jax.random.split(run.key(name), config.seeds)
    started = time.perf_counter()
    program = jax.jit(jax.vmap(follow)).lower(keys).compile()
    compiled = time.perf_counter()
    found, evaluations = jax.block_until_ready(program(keys))
    running = time.perf_counter() - compiled
    found = {metric: floats(np.asarray(values)) for metric, values in found.items()}
    return found, evaluations, compiled - started, running


def summary(name: str, found: dict[str, jax.Array], evaluations: jax.Array) -> dict[str, float | str]:
    """One row of the table: mean and standard deviation over seeds at the end of the budget."""
    row: dict[str, float | str] = {"method": name, "evaluations": round(float(evaluations.mean()), 1)}
    for metric, values in found.items():
        last = np.asarray(values)[:, -1]
        spread = f" ± {np.std(last, ddof=1):.2f}" if len(last) > 1 else ""
        row[metric] = f"{np.mean(last):.2f}{spread}"
    return row


def markdown(rows: list[dict[str, float | str]]) -> str:
    """Rows with the same entries as a table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows])


def main(run: Run, study: Study) -> None:
    """Search, look up, tell."""
    config, table, _ = study
    rows, curves, seconds = [], {}, {}
    for name in config.methods:
        found, evaluations, compiling, running = search(run, study, name)
        rows.append(summary(name, found, evaluations))
        curves[name] = {metric: np.asarray(values) for metric, values in found.items()}
        seconds[name] = {"compile_seconds": round(compiling, 2), "run_seconds": round(running, 3)}
    # The curves of the last metric, all numbers, and the table.
    times = np.linspace(config.budget / POINTS, config.budget, POINTS)
    drawn = config.report[-1]
    unit = "evaluations" if config.cost is None else "simulated seconds"
    title = f"{table.name}: mean of {config.seeds} searches with its 95 per cent band"
    shown = {name: found[drawn] for name, found in curves.items()}
    labels = {"xlabel": unit, "ylabel": f"{drawn} of the best so far", "title": title}
    pictures.draw(plot.progress, run.path / "progress.png", times, shown, **labels)
    arrays = {f"{name}/{metric}": values for name, found in curves.items() for metric, values in found.items()}
    np.savez_compressed(run.path / "found.npz", times=times, **arrays)
    (run.path / "table.md").write_text(markdown(rows) + "\n")
    print(markdown(rows))
    run.finish({"system": "tabular", "table": table.name, "budget": config.budget, "rows": rows, "seconds": seconds})


def smoke(config: Config) -> Config:
    """The same searches with few seeds and a small budget."""
    return dataclasses.replace(config, seeds=3, budget=config.budget / 4)


if __name__ == "__main__":
    script(main, PRESETS, system="tabular", prepare=prepare, smoke=smoke)
