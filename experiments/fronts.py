"""NSGA-II beside random search: how much of a table's true front do they find?

  python -m experiments.fronts [digits | nasbench201]
  python -m experiments.fronts nasbench201 --costs latency/fpga --evaluations 1000

Objectives are the error and a cost, such as the latency on a device. The table knows the true front, so the share of
its hypervolume that a search has reached is exact. The reference point is the worst error and cost of the table.
Prints the shares over seeds and leaves `table.md` and one `front_<cost>.png` for each cost.
"""

import dataclasses
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.configs.fronts import PRESETS, Config
from experiments.tabular import markdown, refuse_too_many
from jaxnas import plot
from jaxnas.base import BlackBox
from jaxnas.errors import UserError
from jaxnas.run import Run, script
from jaxnas.searchers import hypervolume, nsga2, pareto_front, random_search
from jaxnas.tabular import Table, floats, load, metric_of, simulate, table_task, with_metrics


def both(table: Table, accuracy: str, cost: str) -> np.ndarray:
    """Error in per cent and cost of every architecture in the table: `[N, 2]`."""
    error, price = (floats(np.asarray(metric_of(table, metric))) for metric in (accuracy, cost))
    points = np.stack([100 - error, price], 1)
    return points[np.isfinite(points).all(1)]


def methods(table: Table, config: Config) -> dict[str, BlackBox]:
    """The searches by name."""
    return {
        "nsga2": nsga2(table.choices, population_size=config.population_size),
        "random_search": random_search(table.choices, num_objectives=2, archive_size=config.population_size),
    }


def searches(run: Run, config: Config, table: Table, cost: str):
    """All points of the table, the front of every method's median seed, and shares of the true hypervolume `[S]`."""
    points = both(table, config.accuracy, cost)
    # The truth. Objectives are in units of the worst, so that float32 loses nothing.
    scale = points.max(0)
    reference = jnp.ones(2)
    front = points[np.asarray(pareto_front(jnp.asarray(points)))]
    whole = hypervolume(jnp.asarray(front / scale), reference)
    error = {"error": 100 - np.asarray(table.metrics[config.accuracy])}
    task = table_task(with_metrics(table, error), ("error", cost))
    # Every method over all seeds in one call.
    keys = jax.random.split(run.key(cost), config.seeds)
    found, shares = {"true front": front}, {}
    for name, method in methods(table, config).items():
        one = simulate(method, task, config.evaluations)
        _, history = jax.jit(jax.vmap(one))(keys)
        reached = jax.vmap(hypervolume, (0, None))(history.fitness / scale[None, None], reference)
        shares[name] = np.asarray(reached / whole)
        middle = np.asarray(history.fitness)[np.argsort(shares[name])[config.seeds // 2]]
        middle = middle[np.isfinite(middle).all(1)]
        found[f"{name}, median seed"] = middle[np.asarray(pareto_front(jnp.asarray(middle)))]
    return points, found, shares


class Study(NamedTuple):
    """What is searched: the configuration of the script, and the benchmark."""

    config: Config
    table: Table


def prepare(config: Config) -> Study:
    """Loads the table, after a look at every objective and method."""
    if config.evaluations < config.population_size:
        least = f"at least the {config.population_size} of population_size"
        raise UserError(f"evaluations is {config.evaluations}, expected {least}")
    refuse_too_many("evaluations", config.evaluations, "evaluations", config.seeds)
    refuse_too_many("population_size", config.population_size**2, "pairs of members", config.seeds)
    table = load(os.path.expandvars(config.table))
    for cost in config.costs:
        both(table, config.accuracy, cost)
    methods(table, config)
    return Study(config, table)


def main(run: Run, study: Study) -> None:
    """Searches the trade-off of the error with every cost by itself, draws the fronts and writes the table."""
    config, table = study
    rows = []
    for cost in config.costs:
        points, found, shares = searches(run, config, table, cost)
        row: dict[str, float | str] = {"cost": cost, "architectures on the true front": len(found["true front"])}
        # Mean and standard deviation over seeds.
        for name, values in shares.items():
            spread = f" ± {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            row[f"{name}: per cent of the hypervolume"] = f"{100 * np.mean(values):.2f}{spread}"
        rows.append(row)
        # The picture of this cost: the true front and those of the median seeds.
        title = f"{table.name}, {config.evaluations} evaluations"
        picture = run.path / f"front_{cost.replace('/', '_')}.png"
        pictures.draw(
            plot.fronts, picture, points, found, xlabel=f"error of {config.accuracy} [%]", ylabel=cost, title=title
        )
    (run.path / "table.md").write_text(markdown(rows) + "\n")
    print(markdown(rows))
    run.finish({"system": "fronts", "table": table.name, "evaluations": config.evaluations, "rows": rows})


def smoke(config: Config) -> Config:
    """The same searches, short."""
    return dataclasses.replace(config, seeds=3, evaluations=60)


if __name__ == "__main__":
    script(main, PRESETS, system="fronts", prepare=prepare, smoke=smoke)
