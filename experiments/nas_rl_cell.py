"""NAS-RL on recurrent cells: a controller that writes the tree of a cell, beside random search.

  python -m experiments.nas_rl_cell [shakespeare | ptb] [--network.combinations add elem_mult max] [--smoke]

Zoph and Le (2017, arXiv 1611.01578), sections 3.4 and 4.2. The controller and random search train the same number of
cells, each from first weights in a small language model; a generation is one population, trained side by side and saved
under `children/`, so that a run that is killed in mid-generation goes on there. The cell that each search found is then
trained with a grid of settings beside the published NASCell and an LSTM, all with as many weights.

Draws `history.png`, `top.png` (the mean reward of the best 1, 5 and 15 different cells so far) and the tree of the best
cell; `history/` holds every cell. `python -m experiments.transfer_cell --cell WORKDIR` trains it on another text.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

from experiments import cells, common, pictures, repeats
from experiments import text as texts
from experiments.configs.nas_rl_cell import PRESETS, Config
from jaxnas import plot
from jaxnas.base import Arch, BlackBox
from jaxnas.data.text import Text
from jaxnas.errors import UserError
from jaxnas.plot.searches import top_means
from jaxnas.policies import controller
from jaxnas.population import Family, Population, PopulationData, Recipe, resolve
from jaxnas.run import History, Run, script, search
from jaxnas.searchers import PPO, best_of_last, inverse_square_perplexity, nas_rl, random_search
from jaxnas.spaces.nas_rl import RecurrentCellSpace, language_model, recurrent_cell_space

METHODS = ("nas_rl", "random_search")
TOP = (1, 5, 15)  # the numbers of best cells whose mean the paper compares


class Study(NamedTuple):
    """What all parts of the script share: the configuration, the text, the space and the language model's family."""

    config: Config
    text: Text
    space: RecurrentCellSpace
    size: cells.Size
    family: Family
    data: PopulationData
    recipe: Recipe


def prepare(config: Config) -> Study:
    """The text, the space and the recipe, after a look at everything that the later parts will need."""
    form = config.search
    resolve(form.strategy)
    if form.children % form.generation:
        raise UserError(f"search.children is {form.children}, expected a multiple of generation, {form.generation}")
    network = config.network
    space = recurrent_cell_space(network.base, combinations=network.combinations, activations=network.activations)
    # The text, in windows of the length that cells are searched with; the last training is only looked at.
    text = texts.load_text_data(config.data)
    data = texts.text_population_data(text, config.child.length, validation_windows=config.data.validation_windows)
    recipe = texts.text_recipe(config.child, name="child")
    cells.check_batches("child", config.child, data)
    cells.check_final(text, config.final)
    size = cells.Size(len(text.vocabulary), network.hidden, network.layers)
    model = language_model(space, *size[:2], layers=size.layers)
    family = Family(model.init, model.apply)
    return Study(config, text, space, size, family, data, recipe)


def make_searcher(name: str, study: Study) -> BlackBox:
    """The controller that learns, or random search, in generations of one size."""
    form, space = study.config.search, study.space
    if name == "random_search":
        return random_search(space.choices, batch_size=form.generation)
    return nas_rl(
        controller(space.choices, space.tokens),
        optax.adam(form.learning_rate),
        batch_size=form.generation,
        reward=lambda nats: inverse_square_perplexity(nats, form.c),
        baseline_decay=form.baseline_decay,
        ppo=PPO(steps=form.ppo_steps) if form.ppo_steps else None,
        staleness=form.staleness,
    )


def make_evaluator(run: Run, study: Study, method: str) -> Callable[..., np.ndarray]:
    """`(ids, archs, origins) -> nats[n, 1]`: trains a generation and gives each cell its best late judgement."""
    form = study.config.search

    def evaluate(ids: np.ndarray, archs: Arch, origins: Any) -> np.ndarray:
        del origins  # cells inherit nothing
        name = f"{method}/{ids[0]}"
        settings = {"choices": study.space.choices, "seeds": ids, "strategy": form.strategy}
        found = common.train_networks(run, name, study.family, archs, study.data, study.recipe, **settings)
        run.once(f"seconds/{name}", lambda: float(found.seconds.sum()))
        return nats_of(found)[:, None]

    return evaluate


def nats_of(found: Population) -> np.ndarray:
    """The best of the last five judgements of every cell in nats per token, NaN for one that has diverged."""
    return -best_of_last(-np.asarray(found.score["validation"], float))


def search_all(run: Run, study: Study) -> dict[str, History]:
    """By method the history of its search."""
    form, found = study.config.search, {}
    size = form.generation
    for method in METHODS:
        black_box, meta = make_searcher(method, study), {"space": study.space.about.name}
        evaluate = make_evaluator(run, study, method)
        _, history = search(run, method, black_box, evaluate, form.children // size, meta=meta)
        # A search that was resumed finds generations trained already: each says itself what its training took.
        took = [float(run.once(f"seconds/{method}/{first}", lambda: math.nan)) for first in history.ids[::size]]
        found[method] = history._replace(seconds=np.repeat(np.array(took) / size, size))
        if not history.good.any():
            raise UserError(f"{method}: no cell was trained without a loss that is not finite, so nothing was found")
    return found


def losses(history: History) -> np.ndarray:
    """Validation loss of every cell in nats per token, infinite for one that has diverged: `[T]`."""
    return np.where(history.good, history.fitness[:, 0], np.inf)


def best_arch(history: History) -> Arch:
    """The cell with the least validation loss."""
    return common.child(history.archs, int(np.argmin(losses(history))))


def rewards(history: History, c: float) -> np.ndarray:
    """`c / perplexity^2` of every cell, 0 for one that has diverged: `[T]`."""
    return np.asarray(inverse_square_perplexity(losses(history), c))


def top_rewards(history: History, c: float) -> dict[int, np.ndarray]:
    """By `k` the mean reward of the best `k` different cells so far, `[T]`; NaN until there are so many.

    A cell that is proposed again does not count again, so that a search cannot fill the top with one cell.
    """
    values = np.where(repeats.is_new(history.archs), rewards(history, c), np.nan)
    return {k: -top_means(-values, k) for k in TOP}


def summary(study: Study, found: dict[str, History]) -> dict[str, Any]:
    """The entry `search` of `result.json`."""
    form, rows = study.config.search, {}
    for method, history in found.items():
        seconds = float(history.seconds.sum())
        rows[method] = {
            "validation": cells.in_units(float(losses(history).min())),
            "top_rewards": {str(k): float(values[-1]) for k, values in top_rewards(history, form.c).items()},
            "children": len(history.ids),
            "distinct": int(repeats.is_new(history.archs).sum()),
            "not_finite": int((~history.good).sum()),
            "seconds": round(seconds, 1),
            "children_per_hour": round(3600 * len(history.ids) / seconds) if seconds > 0 else None,
        }
    return {"c": form.c, "cells": study.space.about.size, "methods": rows}


def draw(run: Run, study: Study, found: dict[str, History]) -> None:
    """Every cell of both searches, and the means of the best ones so far."""
    name, network, c = study.config.data.path.rpartition("/")[2], study.config.network, study.config.search.c
    labels = {"xlabel": "cells trained", "title": f"{name}, base {network.base}, {network.hidden} hidden units"}
    # Cells that predict worse than a guess among all tokens have no dot: a few of them are far off.
    guess = math.log(study.size.num_tokens)
    nats = {method: np.where(losses(history) <= guess, losses(history), np.inf) for method, history in found.items()}
    pictures.draw(plot.history, run.path / "history.png", nats, ylabel="validation loss (nats per token)", **labels)
    curves = {
        f"{method}, top {k}": values[None]
        for method, history in found.items()
        for k, values in top_rewards(history, c).items()
        if np.isfinite(values).any()
    }
    times = np.arange(1, 1 + study.config.search.children)
    ylabel = f"mean reward ({c:g} / perplexity²)"
    pictures.draw(plot.progress, run.path / "top.png", times, curves, ylabel=ylabel, **labels)


def main(run: Run, study: Study) -> None:
    """Search, draw, train what was found beside known cells, write."""
    config, text = study.config, study.text
    found = search_all(run, study)
    draw(run, study, found)
    # The last training, the same for all: the cell of each search, the published one and an LSTM of equal size.
    contestants = {method: cells.Cell(study.space, best_arch(history), study.size) for method, history in found.items()}
    contestants |= cells.known_cells(contestants["nas_rl"])
    about = {"system": "nas_rl_cell", "data": config.data.path, "unit": config.data.unit}
    steps = len(METHODS) * config.search.children * config.child.steps
    about |= {"steps": steps, "search": summary(study, found)}
    cells.conclude(run, contestants, text, config.final, about)


def smoke(config: Config) -> Config:
    """The same searches: a few cells and steps on a made-up text."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=texts.SYNTHETIC, fractions=None, validation_windows=4),
        network=dataclasses.replace(config.network, base=2, hidden=4, layers=1),
        search=dataclasses.replace(config.search, children=8, generation=4),
        child=dataclasses.replace(config.child, **texts.FEW, judgements=2, judge_every=1),
        final=dataclasses.replace(config.final, **texts.FEW, learning_rates=(0.01,), test_length=16),
    )


if __name__ == "__main__":
    script(main, PRESETS, system="nas_rl_cell", prepare=prepare, smoke=smoke, default="shakespeare")
