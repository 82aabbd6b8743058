"""The study of all recurrent cells: who is trained, on what, how, and what becomes of it in the table."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import common, exhaustive_cells
from experiments.configs.exhaustive_cells import PRESETS
from jaxnas.errors import UserError
from jaxnas.population import Population
from jaxnas.spaces.nas_rl import recurrent_cell_space
from jaxnas.spaces.nas_rl.symmetry import cell_representatives
from jaxnas.tabular.cell_table import DIVERGED
from jaxnas.tabular.cell_table import exhaustive_cells as read_table
from tests.experiments.test_scripts import finish

CONFIG = PRESETS["shakespeare"]
SMOKE = exhaustive_cells.smoke(CONFIG)
SPACE = recurrent_cell_space(2)


@pytest.fixture(scope="module")
def plan():
    return exhaustive_cells.make_plan(CONFIG, SPACE)


def test_the_plan_trains_every_class_once_and_some_more_often(plan):
    np.testing.assert_array_equal(plan.first[plan.class_of], cell_representatives(SPACE))
    counts = np.bincount(plan.member_class, minlength=10994)
    assert [(counts == n).sum() for n in (1, 2, 3)] == [9994, 0, 1000]
    pairs = set(zip(plan.member_class.tolist(), plan.member_seed.tolist(), strict=True))
    assert len(pairs) == len(plan.member_class) == 12994
    assert (np.diff(plan.member_seed) >= 0).all(), "a run that is stopped early has most classes once"


def test_the_recipe_judges_on_the_way_and_at_the_end():
    assert exhaustive_cells.make_recipe(CONFIG).moments == (25, 50, 100)
    late = dataclasses.replace(CONFIG, judge_steps=(25, 101))
    with pytest.raises(UserError, match=r"judge_steps has 101, expected at most the 100 of recipe\.steps"):
        exhaustive_cells.make_recipe(late)


def test_members_are_first_cells_of_their_classes_with_their_seeds_and_sizes(plan, monkeypatch):
    called, classes = {}, plan.first[plan.class_of]

    def train_networks(run, name, family, archs, examples, recipe, **settings):
        called.update(family=family, archs=archs, examples=examples, recipe=recipe, **settings)

    monkeypatch.setattr(common, "train_networks", train_networks)
    monkeypatch.setattr(exhaustive_cells, "cell_representatives", lambda space: classes)
    config = dataclasses.replace(SMOKE, hidden=5, test_windows=3)
    study = exhaustive_cells.prepare(config)
    exhaustive_cells.train(SimpleNamespace(), study)
    plan = study.plan
    members = plan.first[plan.member_class]
    for name, leaf in called["archs"].items():
        np.testing.assert_array_equal(leaf, plan.cells[name][members])
    np.testing.assert_array_equal(called["seeds"], plan.member_seed)
    assert (called["chunk"], called["strategy"], called["choices"]) == (4, "vmap", SPACE.choices)
    shapes = {name: inputs.shape for name, (inputs, _) in called["examples"].parts.items()}
    assert shapes == {"validation": (4, 8), "test": (3, 8)}
    params = jax.eval_shape(lambda key: called["family"].init(key, None, None), jax.random.key(0))
    assert params["cells"][0]["h"].shape == (2, 5, 5)


def test_nats_are_rounded_and_what_is_not_finite_has_diverged():
    nats = np.array([2.34567, 0.00004, np.nan, np.inf, 3e5], np.float32)
    assert exhaustive_cells.units(nats).tolist() == [23457, 0, DIVERGED, DIVERGED, DIVERGED]


def test_what_was_found_is_read_again_from_the_table(plan, tmp_path):
    rng = np.random.default_rng(0)
    score = {name: rng.uniform(2, 4, (12994, 3)).astype(np.float32) for name in ("validation", "test")}
    failed = 7  # a network of a class with one run, or of one with three
    score["validation"][failed] = score["test"][failed] = np.nan
    seconds = np.where(np.arange(12994) < 12000, 5.0, 0.1)
    found = Population(score, score["test"], np.isfinite(score["test"][:, -1]), seconds, None)
    study = exhaustive_cells.Study(CONFIG, plan, None, SPACE, exhaustive_cells.make_recipe(CONFIG))
    np.savez_compressed(tmp_path / "table.npz", **exhaustive_cells.make_table(study, found))
    table = read_table(tmp_path / "table.npz")
    assert float(table.metrics["seconds"][0]) == pytest.approx(0.1), "other work on the machine does not count"
    for member in (0, failed, 11000, 12993):
        number, seed = plan.member_class[member], plan.member_seed[member]
        for cell in np.flatnonzero(plan.class_of == number)[:3]:
            for short, part in (("valid", "validation"), ("test", "test")):
                runs = [np.asarray(table.metrics[f"{short}_nats_{step}_runs"])[cell, seed] for step in (25, 50, 100)]
                np.testing.assert_allclose(runs, score[part][member], atol=6e-5)
    assert json.loads(str(np.load(tmp_path / "table.npz")["about"]))["config"]["hidden"] == 16


@pytest.mark.slow
def test_a_small_study_writes_a_table_that_is_read(tmp_path):
    code, out, err = finish("exhaustive_cells", tmp_path, "--smoke")
    assert code == 0, err
    result = json.loads(out)
    assert (result["networks"], result["not_finite"]) == (8, 0)
    table = read_table(tmp_path / "table.npz", sha256=result["sha256"])
    runs = np.asarray(table.metrics["valid_nats_4_runs"])[np.unique(cell_representatives(SPACE))]
    assert np.isfinite(runs).sum() == 8
