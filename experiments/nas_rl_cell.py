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

from experiments import cells, common, generations, pictures, repeats
from experiments import text as texts
from experiments.configs.nas_rl_cell import PRESETS, Config
from jaxnas import plot
from jaxnas.base import Arch, BlackBox
from jaxnas.data.text import Text
from jaxnas.errors import UserError
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
        generations.keep_seconds(run, name, found)
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
        found[method] = history._replace(seconds=generations.seconds_of(run, method, history, size))
        if not history.good.any():
            raise UserError(f"{method}: no cell was trained without a loss that is not finite, so nothing was found")
    return found


def rewards(history: History, c: float) -> np.ndarray:
    """`c / perplexity^2` of every cell, 0 for one that has diverged: `[T]`."""
    return np.asarray(inverse_square_perplexity(generations.first_objective(history), c))


def top_rewards(history: History, c: float) -> dict[int, np.ndarray]:
    """By `k` the mean reward of the best `k` different cells so far, `[T]`; NaN until there are so many.

    A cell that is proposed again does not count again, so that a search cannot fill the top with one cell.
    """
    values = np.where(repeats.is_new(history.archs), rewards(history, c), np.nan)
    return {k: -plot.top_means(-values, k) for k in TOP}


def summary(study: Study, found: dict[str, History]) -> dict[str, Any]:
    """The entry `search` of `result.json`."""
    form, rows = study.config.search, {}
    for method, history in found.items():
        rows[method] = {
            "validation": cells.in_units(float(generations.first_objective(history).min())),
            "top_rewards": {str(k): float(values[-1]) for k, values in top_rewards(history, form.c).items()},
            "not_finite": int((~history.good).sum()),
            **generations.counts(history, repeats.is_new(history.archs)),
        }
    return {"c": form.c, "cells": study.space.about.size, "methods": rows}


def draw(run: Run, study: Study, found: dict[str, History]) -> None:
    """Every cell of both searches, and the means of the best ones so far."""
    name, network, c = study.config.data.path.rpartition("/")[2], study.config.network, study.config.search.c
    labels = {"xlabel": "cells trained", "title": f"{name}, base {network.base}, {network.hidden} hidden units"}
    # Cells that predict worse than a guess among all tokens have no dot: a few of them are far off.
    guess = math.log(study.size.num_tokens)
    losses = {method: generations.first_objective(history) for method, history in found.items()}
    nats = {method: np.where(loss <= guess, loss, np.inf) for method, loss in losses.items()}
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
    best = {method: generations.best_arch(history) for method, history in found.items()}
    contestants = {method: cells.Cell(study.space, arch, study.size) for method, arch in best.items()}
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
