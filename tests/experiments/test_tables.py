"""The experiments on tables: who is trained, what is written, and that the scripts run small and end in one line."""

import json

import numpy as np
import pytest

from experiments import exhaustive
from experiments.configs.exhaustive import PRESETS
from experiments.tabular import above_the_worst
from jaxnas.spaces.nasbench201 import all_cells, live_operations, representatives
from jaxnas.tabular import digits, lookup
from jaxnas.tabular import exhaustive as read_table
from tests.experiments.test_scripts import finish

CONFIG = PRESETS["digits"]


def test_the_plan_trains_every_class_once_and_some_more_often():
    plan = exhaustive.make_plan(CONFIG)
    assert len(plan.first) == 5653
    np.testing.assert_array_equal(plan.first[plan.class_of], representatives())
    counts = np.bincount(plan.member_class, minlength=5653)
    assert [(counts == n).sum() for n in (1, 2, 3)] == [4653, 0, 1000]
    assert len(set(zip(plan.member_class.tolist(), plan.member_seed.tolist(), strict=True))) == 7653
    cost = exhaustive.operation_counts(plan.cells[plan.first]) @ (0, 0, 2, 10, 1)
    assert (np.diff(cost[plan.member_class]) <= 0).all(), "networks of one chunk cost about the same"


def test_operations_that_run_are_counted_without_those_that_lead_nowhere():
    cells = np.array([[3, 3, 3, 3, 3, 3], [3, 3, 3, 1, 0, 0], [2, 4, 0, 0, 1, 0]])
    found = exhaustive.operation_counts(cells)
    np.testing.assert_array_equal(found, [[0, 0, 0, 6, 0], [5, 1, 0, 0, 0], [4, 1, 1, 0, 0]])
    assert np.asarray(live_operations(cells[1])).tolist() == [0, 0, 0, 1, 0, 0]


def test_seconds_are_recovered_from_measurements_that_other_work_has_spoiled():
    plan = exhaustive.make_plan(CONFIG)
    counts = exhaustive.operation_counts(plan.cells[plan.first])
    true = 0.1 + counts @ (0, 0, 0.03, 0.2, 0.02)
    rng = np.random.default_rng(0)
    spoiled = true[plan.member_class] * (1 + rng.exponential(0.3, 7653) * (rng.random(7653) < 0.2))
    found = exhaustive.fitted_seconds(plan, spoiled)
    assert np.abs(found / true - 1).max() < 0.05


def test_tables_by_class_keep_holes_and_failures():
    plan = exhaustive.make_plan(CONFIG)
    accuracy = np.full((7653, 4), 0.5)
    accuracy[3] = np.nan
    table = exhaustive.by_class(plan, exhaustive.hits(accuracy, 542), exhaustive.MISSING)
    assert table.shape == (5653, 3, 4)
    assert (table == exhaustive.MISSING).sum() == 4 * (2 * 4653 + 1)
    assert (table[plan.member_class[0], plan.member_seed[0]] == 271).all()


def test_the_bundled_table_is_whole_and_what_its_readme_says():
    table = digits()
    assert table.present is None
    test = np.asarray(table.metrics["test_16"])
    assert test.mean() == pytest.approx(78.34, abs=0.01)  # over cells; the README's mean is over classes
    assert test.max() == pytest.approx(98.59, abs=0.01)
    runs = np.asarray(table.metrics["test_16_runs"])[np.unique(representatives())]
    spread = runs[np.isfinite(runs).all(1)].std(1, ddof=1)
    assert len(spread) == 1000
    assert np.sqrt((spread**2).mean()) == pytest.approx(3.70, abs=0.01)
    cell = {"cell": all_cells()[7812]}
    assert float(lookup(table, "parameters", cell)) > 0
    assert np.asarray(table.metrics["seconds"]).min() == pytest.approx(0.098, abs=0.001)


@pytest.mark.slow
def test_a_small_exhaustive_run_writes_a_table_that_is_read(tmp_path):
    code, out, err = finish("exhaustive", tmp_path, "--smoke")
    assert code == 0, err
    result = json.loads(out)
    assert (result["networks"], result["not_finite"]) == (8, 0)
    table = read_table(tmp_path / "table.npz", sha256=result["sha256"])
    runs = np.asarray(table.metrics["valid_2_runs"])[np.unique(representatives())]
    assert np.isfinite(runs).sum() == 8


@pytest.mark.parametrize("objective", ["-valid_16", "macs"])
def test_the_reward_on_a_table_is_zero_at_its_worst_whatever_is_wanted(objective):
    """So that a child that fails, whose reward is 0, is never above another one."""
    table = digits()
    values = np.asarray(table.metrics[objective.removeprefix("-")], np.float32)
    fitness = -values if objective.startswith("-") else values
    rewards = above_the_worst(table, objective)(fitness)
    assert rewards.min() == 0.0
    assert rewards[np.argmin(fitness)] == pytest.approx(np.ptp(values))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("tabular", ("--methods", "regularized_evolution")),
        ("fronts", ("--costs", "macs")),
        ("policy_gradient", ("--top", "1", "3")),
    ],
)
def test_small_searches_on_the_bundled_table(system, options, tmp_path):
    code, out, err = finish(system, tmp_path, "--smoke", *options)
    assert code == 0, err
    assert json.loads(out[out.index("{") :])["rows"]
    assert out.startswith((tmp_path / "table.md").read_text())
    assert any(path.stat().st_size > 1000 for path in tmp_path.glob("*.png"))
