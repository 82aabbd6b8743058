"""Evolution with trained children: what each child is told to cost, who is the best, and a kill in mid-generation."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import common, evolution, generations
from experiments.configs.evolution import PRESETS, Config
from jaxnas.architectures import check_architecture
from jaxnas.describe import network_costs
from jaxnas.errors import UserError
from jaxnas.run import History
from tests.experiments.killed import essentials, killed_in_second_generation
from tests.experiments.test_scripts import check_files, finish

SMALL = evolution.smoke(PRESETS["digits"])


def changed(config: Config = SMALL, *, space=None, settings=None, **search) -> Config:
    space, settings = space or config.space, config.settings if settings is None else settings
    return dataclasses.replace(
        config, space=space, settings=settings, search=dataclasses.replace(config.search, **search)
    )


@pytest.fixture(scope="module")
def setting():
    return evolution.prepare(SMALL)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(methods=("hill_climbing",)), "search.methods is hill_climbing, expected some of"),
        (changed(methods=("random_search",)), "search.methods is random_search, expected some of"),
        (changed(objectives=("error", "flops")), "search.objectives is error, flops, expected some of"),
        (changed(children=10), "search.children is 10, expected a multiple of population_size, 4"),
        (changed(children=4, generation=3), "search.children is 4, expected a multiple of generation, 3"),
        (changed(space="nasbench202"), "unknown space 'nasbench202'"),
        (changed(settings=("width=4",)), "unknown setting 'width'"),
        (
            changed(generation=2, population_size=2, sample_size=1, settings=("channels=0",)),
            "channels must be at least",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        evolution.prepare(config)


def test_searches_stay_within_the_rule_of_the_space():
    config = changed(space="darts", settings=("channels=2", "cells=1", "nodes=2"))
    space = evolution.build(config, 3)
    for name in ("regularized_evolution", "nsga2", "random_search"):
        searcher = evolution.make_searcher(name, config, space)
        _, archs = jax.device_get(jax.jit(searcher.ask)(jax.random.key(0), searcher.init(jax.random.key(1))))
        assert len(archs["normal"]) == 4
        for number in range(4):
            check_architecture(space, common.child(archs, number))


def test_children_get_their_objectives_by_name_and_failed_ones_no_fitness(setting):
    asked = []

    def train(name, archs, seeds, parts):
        asked.append((name, seeds.tolist(), sorted(parts)))
        return SimpleNamespace(
            score={"validation": np.array([[0.1, 0.75], [0.2, np.nan]])}, seconds=np.array([2.0, 3.0])
        )

    def once(name, fn):
        assert (name, fn()) == ("seconds/nsga2/8", 5.0)  # the training's own, which a resumed search finds again

    config = changed(objectives=("macs", "error", "parameters"))
    evaluate = evolution.make_evaluator(SimpleNamespace(once=once), setting._replace(config=config), train, "nsga2")
    archs = {"cell": np.array([[3, 3, 3, 3, 3, 3], [0, 1, 2, 3, 4, 0]], np.int32)}
    fitness = evaluate(np.array([8, 9]), archs, None)
    assert asked == [("nsga2/8", [8, 9], ["validation"])]  # a child's seed is its id; nothing is judged on test data
    counted = [network_costs(setting.space, common.child(archs, i), setting.images.image_shape) for i in (0, 1)]
    expected = [[one["macs"], error, one["parameters"]] for one, error in zip(counted, (0.25, np.nan), strict=True)]
    np.testing.assert_array_equal(fitness, expected)


def test_latencies_are_measured_once_for_each_generation(setting, monkeypatch):
    measured, kept = [], {}

    def measure(space, archs, shape):
        measured.append(len(archs))
        return np.array([[1.0, 5.0], [3.0, 7.0], [2.0, 6.0]])

    def once(name, fn):
        return kept.setdefault(name, None) or kept.update({name: fn().tolist()}) or kept[name]

    monkeypatch.setattr(evolution.latency, "measure_networks", measure)
    config = setting._replace(config=changed(objectives=("latency",)))
    evaluate = evolution.make_evaluator(SimpleNamespace(once=once), config, None, "nsga2")
    archs = {"cell": np.zeros((2, 6), np.int32)}
    for _ in range(2):
        assert evaluate(np.arange(2), archs, None).tolist() == [[2.0], [6.0]]
    assert (measured, list(kept)) == ([2], ["latency/nsga2/0"])


def history_of(fitness, cells):
    ids = np.arange(len(fitness))
    return History(ids, {"cell": np.array(cells)}, np.array(fitness, float), None, np.full(len(ids), 0.5), ids)


def test_summaries_by_hand():
    found = {
        "nsga2": history_of([[0.5, 4.0], [np.nan, 1.0], [0.25, 8.0]], [[0], [1], [0]]),
        "random_search": history_of([[1.0, 2.0], [1.0, 2.0]], [[2], [2]]),
    }
    assert generations.best_arch(found["nsga2"]) == {"cell": 0}
    rows, worst = evolution.summaries(("error", "macs"), found, {"nsga2": [0.9], "random_search": [0.8]})
    assert worst == {"error": 1.0, "macs": 8.0}
    assert rows["nsga2"] == {
        "best": {"error": 0.25, "macs": 8.0},
        "test_accuracies": [0.9],
        "hypervolume": 0.25,  # of the box of 1 and 8: (1 - 0.5) * (8 - 4) / 8
        "children": 3,
        "distinct": 2,
        "not_finite": 1,
        "seconds": 1.5,
        "children_per_hour": 7200,
    }
    assert (rows["random_search"]["hypervolume"], rows["random_search"]["distinct"]) == (0.0, 1)


@pytest.mark.slow
def test_killed_in_mid_generation_goes_on_there_and_ends_in_the_same_bits(tmp_path):
    options = ("--smoke", "--search.methods", "nsga2", "--search.verified", "1", "--retrain.random-children", "1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, out, err = finish("evolution", whole, *options)
    assert code == 0, err
    check_files(whole, out)
    for name in ("history.png", "front_macs.png"):
        assert (whole / name).stat().st_size > 0
    saved = killed_in_second_generation("evolution", killed, "nsga2", "--checkpoint-seconds", 0, *options)
    assert saved
    assert max(saved) < 4 * 6  # children, each of so many steps
    code, _, err = finish("evolution", killed, *options)
    assert code == 0, err
    assert essentials(killed) == essentials(whole)
