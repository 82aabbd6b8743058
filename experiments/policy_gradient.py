"""NAS-RL above random search: the mean of the best children so far, against the number of children.

  python -m experiments.policy_gradient [digits | cells]
  python -m experiments.policy_gradient digits --learning-rates 0.01 --children 1000

The comparison of Zoph and Le (2017, arXiv 1611.01578, figure 6), on a table that knows the fitness of every
architecture. A child that a search has proposed before is counted among its children, but not once more among its best.
Prints means over seeds with 95 per cent intervals, each over the seeds with so many distinct children that have a
fitness, and how many seeds these are where it is not all of them. Leaves `table.md`, `top.npz` and one picture
`above_<learning rate>.png` for each rate.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from scipy.stats import t as student

from experiments import common, pictures, repeats
from experiments.configs.policy_gradient import PRESETS, Config
from experiments.tabular import markdown, refuse_too_many
from jaxnas import plot
from jaxnas.base import Arch, BlackBox
from jaxnas.errors import UserError
from jaxnas.policies import controller
from jaxnas.run import Run, script
from jaxnas.searchers import PPO, accuracy_cubed, inverse_square_perplexity, nas_rl, random_search
from jaxnas.spaces.nas_rl import recurrent_cell_space
from jaxnas.tabular import Table, load, simulate, table_task

REWARDS = {
    "accuracy": lambda fitness: accuracy_cubed(1 + fitness / 100),  # the fitness is minus the accuracy in per cent
    "perplexity": inverse_square_perplexity,
}
UNITS = {"accuracy": "%", "perplexity": "nats"}  # of the metric that a reward is made from
MARKS = 4  # numbers of children at which the table compares the searches


class Study(NamedTuple):
    """What is searched.

    Attributes:
      config: the configuration of the script.
      table: the benchmark.
      searches: the search of each method, from `simulate`; random search is the first.
    """

    config: Config
    table: Table
    searches: dict[str, Callable]


def tokens_of(table: Table) -> tuple[tuple[str, int], ...] | None:
    """The order of tokens that NAS-RL gives recurrent cells of base 2; None for other tables: decisions as they lie."""
    cells = recurrent_cell_space(2)
    return cells.tokens if table.choices == cells.choices else None


def methods(table: Table, config: Config) -> dict[str, BlackBox]:
    """The searches by name, random search first."""
    found = {"random search": random_search(table.choices, batch_size=config.batch_size)}
    for rate in config.learning_rates:
        found[f"controller, {rate:g}"] = nas_rl(
            controller(table.choices, tokens_of(table)),
            optax.adam(rate),
            batch_size=config.batch_size,
            reward=REWARDS[config.reward],
            ppo=PPO(steps=config.ppo_steps) if config.ppo_steps else None,
            staleness=config.staleness,
        )
    return found


def prepare(config: Config) -> Study:
    """The table and the searches."""
    if config.children % config.batch_size:
        raise UserError(f"children is {config.children}, expected a multiple of batch_size, {config.batch_size}")
    if max(config.top) > config.children // MARKS:
        most = f"at most {config.children // MARKS}, the children at the first comparison"
        raise UserError(f"top has {max(config.top)}, expected {most}")
    if config.objective.startswith("-") != (config.reward == "accuracy"):
        wanted = "an accuracy with a minus for 'accuracy', or nats without one for 'perplexity'"
        raise UserError(f"objective is {config.objective!r} for reward {config.reward!r}, expected {wanted}")
    refuse_too_many("children", config.children, "children", config.seeds)
    table = load(os.path.expandvars(config.table))
    shapes = jax.eval_shape(controller(table.choices, tokens_of(table)).init, jax.random.key(0))
    size = (1 + config.staleness) * sum(leaf.size for leaf in jax.tree.leaves(shapes))
    refuse_too_many("staleness", size, "present and earlier parameters", config.seeds)
    task = table_task(table, config.objective)
    searches = {name: simulate(one, task, config.children) for name, one in methods(table, config).items()}
    return Study(config, table, searches)


def tops_of(fitness: np.ndarray, archs: Arch, top: tuple[int, ...]) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """What several searches have found so far.

    Args:
      fitness: what each child reached, to be minimised, `[S, T]`; NaN for a child that diverged.
      archs: the architectures, leaves `[S, T, E]`.
      top: the numbers of best distinct children.

    Returns:
      By number of best children their mean fitness so far, `[S, T]`, NaN until there are so many distinct ones with a
      fitness; and the number of distinct children so far, `[S, T]`, those without a fitness among them.
    """
    new = np.stack([repeats.is_new(common.child(archs, seed)) for seed in range(len(fitness))])
    known = np.where(new, fitness, np.nan)
    return {count: plot.top_means(known, count) for count in top}, np.cumsum(new, 1)


def search(run: Run, study: Study, name: str) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """What all seeds of one method have found so far, as `tops_of` says."""
    keys = jax.random.split(run.key(name), study.config.seeds)
    _, history = jax.jit(jax.vmap(study.searches[name]))(keys)
    return tops_of(np.asarray(history.fitness[..., 0], np.float64), history.archs, study.config.top)


class Interval(NamedTuple):
    """A mean over seeds.

    Attributes:
      mean: the mean over the seeds that have a value; None if no seed has one.
      half_width: half the width of the 95 per cent interval of the mean, by Student's t; None for fewer than two seeds.
      seeds: number of seeds that have a value.
      missing: number of seeds that have none.
    """

    mean: float | None
    half_width: float | None
    seeds: int
    missing: int

    def __str__(self) -> str:
        """The mean with its half width, and the number of seeds where it is not all of them."""
        numbers = " ± ".join(f"{value:.3f}" for value in self[:2] if value is not None) or "none"
        return numbers + (f" ({self.seeds} of {self.seeds + self.missing})" if self.missing else "")


def interval(values: np.ndarray) -> Interval:
    """The mean over seeds with its interval; seeds whose value is NaN are left out."""
    known = values[~np.isnan(values)]
    seeds, mean, half = len(known), None, None
    if seeds:
        mean = round(float(np.mean(known)), 4)
    if seeds > 1:
        half = round(float(student.ppf(0.975, seeds - 1) * np.std(known, ddof=1) / np.sqrt(seeds)), 4)
    return Interval(mean, half, seeds, len(values) - seeds)


def rows_of(config: Config, found: dict[str, Any], above: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers of the table: a row for each method and each mark. The last mark is the last child."""
    sign, rows = -1 if config.objective.startswith("-") else 1, []
    for mark in (config.children * quarter // MARKS for quarter in range(1, MARKS + 1)):
        for name, (tops, distinct) in found.items():
            row: dict[str, Any] = {"children": mark, "search": name}
            row["distinct"] = round(float(distinct[:, mark - 1].mean()), 1)
            for count, means in tops.items():
                row[f"top {count}"] = interval(sign * means[:, mark - 1])
                row[f"top {count} above random"] = interval(above[name][count][:, mark - 1]) if name in above else None
            rows.append(row)
    return rows


def as_text(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its intervals written out."""
    written = {name: str(value) if isinstance(value, Interval) else value for name, value in row.items()}
    return {name: "" if value is None else value for name, value in written.items()}


def in_json(value: Any) -> Any:
    """A value of a row for `result.json`, where an interval is a dictionary with the names of its parts."""
    return value._asdict() if isinstance(value, Interval) else value


def main(run: Run, study: Study) -> None:
    """Search with every method, compare with random search, draw and tell."""
    config, table, searches = study
    found = {name: search(run, study, name) for name in searches}
    # How far the mean of the best is above that of random search with the same number, in units of the metric.
    (_, (chance, _)), *others = found.items()
    above = {name: {count: chance[count] - tops[count] for count in config.top} for name, (tops, _) in others}
    numbers, metric = np.arange(1, config.children + 1), config.objective.removeprefix("-")
    for rate, differences in zip(config.learning_rates, above.values(), strict=True):
        title = f"{table.name}: mean of {config.seeds} searches with its 95 per cent band"
        labels = {"xlabel": "children", "ylabel": f"{metric} better than random search [{UNITS[config.reward]}]"}
        shown = {f"top {count}": values for count, values in differences.items()}
        pictures.draw(plot.progress, run.path / f"above_{rate:g}.png", numbers, shown, **labels, title=title)
    rows = rows_of(config, found, above)
    arrays = {f"{name}/{count}": means for name, (tops, _) in found.items() for count, means in tops.items()}
    np.savez_compressed(run.path / "top.npz", **arrays)
    text = markdown([as_text(row) for row in rows])
    (run.path / "table.md").write_text(text + "\n")
    print(text)
    told = [{name: in_json(value) for name, value in row.items()} for row in rows]
    run.finish({"system": "policy_gradient", "table": table.name, "objective": config.objective, "rows": told})


def smoke(config: Config) -> Config:
    """The same searches with few seeds and children."""
    return dataclasses.replace(config, seeds=3, children=80, batch_size=8, learning_rates=config.learning_rates[:1])


if __name__ == "__main__":
    script(main, PRESETS, system="policy_gradient", prepare=prepare, smoke=smoke)
