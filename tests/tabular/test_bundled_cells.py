"""The bundled table of recurrent cells: whole, as its README says, and equal to training anew."""

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import exhaustive_cells
from experiments.configs.exhaustive_cells import PRESETS
from jaxnas.run import Run
from jaxnas.searchers import random_search
from jaxnas.spaces.nas_rl import recurrent_cell_space
from jaxnas.spaces.nas_rl.symmetry import cell_representatives
from jaxnas.tabular import cells, load, lookup, simulate, table_task

SPACE = recurrent_cell_space(2)
TEXT = Path(os.environ.get("JAXNAS_DATA", "/nonexistent")) / "text" / "tinyshakespeare.txt.gz"


@pytest.fixture(scope="module")
def table():
    return cells()


def test_it_has_every_cell_of_the_space_and_one_result_for_each_class(table):
    assert (table.present, table.choices) == (None, SPACE.choices)
    assert set(load("cells").metrics) == set(table.metrics)
    first = cell_representatives(SPACE)
    for name, values in table.metrics.items():
        np.testing.assert_array_equal(values, np.asarray(values)[first], err_msg=name)
    runs = np.asarray(table.metrics["valid_nats_25_runs"])[np.unique(first)]
    assert runs.shape == (10994, 3)
    # A thousand classes have three runs; few runs have diverged by then.
    assert 900 < np.isfinite(runs).all(1).sum() <= 1000
    assert (np.asarray(table.metrics["seconds"]) > 0).all()


def test_nats_fall_with_the_steps_and_hold_on_the_test_part(table):
    nats = {name: np.asarray(values) for name, values in table.metrics.items()}
    medians = [np.nanmedian(nats[f"valid_nats_{step}"]) for step in (25, 50, 100)]
    assert medians[0] > medians[1] > medians[2]
    gap = nats["test_nats_100"] - nats["valid_nats_100"]
    assert abs(np.nanmedian(gap)) < 0.1
    # Cells that give zero know the frequencies of characters alone; the best know far more.
    zero = SPACE.about.parse("add tanh, add tanh | elem_mult tanh | inject elem_mult relu | index 2 0")
    assert float(lookup(table, "valid_nats_100", zero)) > np.nanmin(nats["valid_nats_100"]) + 0.8


def test_it_is_noise_neither_among_all_cells_nor_among_the_best(table):
    first = np.unique(cell_representatives(SPACE))
    runs = np.asarray(table.metrics["valid_nats_100_runs"])[first]
    runs = runs[np.isfinite(runs).all(1)]
    ranks = lambda values: np.argsort(np.argsort(values))  # noqa: E731
    assert np.corrcoef(ranks(runs[:, 0]), ranks(runs[:, 1]))[0, 1] > 0.9
    best = np.argsort(runs[:, 0])[: len(runs) // 10]
    assert np.corrcoef(ranks(runs[best, 1]), ranks(runs[best, 2]))[0, 1] > 0.4


def test_a_search_minimises_nats(table):
    task = table_task(table, "valid_nats_100")
    history = simulate(random_search(table.choices, batch_size=10), task, budget=100)(jax.random.key(0))[1]
    nats = np.asarray(table.metrics["valid_nats_100"])
    assert np.nanmin(np.asarray(history.fitness)) < np.nanquantile(nats, 0.1)


@pytest.mark.slow
@pytest.mark.skipif(not TEXT.exists(), reason="JAXNAS_DATA has no text/tinyshakespeare.txt.gz")
def test_rows_are_those_of_training_anew(table, tmp_path):
    config = dataclasses.replace(PRESETS["shakespeare"], cells=8, repeated=0)
    study = exhaustive_cells.prepare(config)
    with Run(tmp_path, config, seed=config.seed) as run:
        found = exhaustive_cells.train(run, study)
    rows = study.plan.first[study.plan.member_class]
    stored = np.asarray(table.metrics["test_nats_100_runs"])[rows, 0]
    np.testing.assert_array_equal(np.isnan(stored), np.isnan(found.score["test"][:, -1]))
    # Another program and another processor round differently, and training carries that on.
    np.testing.assert_allclose(found.score["test"][:, -1], stored, atol=0.01)
