"""The farm: every child is accounted for, in the order of proposal, whatever becomes of workers and scripts."""

import concurrent.futures
import json
import math
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.errors import UserError
from jaxnas.population import Farm, Workers, dispatch, in_process, train_population
from jaxnas.run import Run, search
from jaxnas.searchers import random_search
from tests.population.families import DATA, FAMILY, KEY, RECIPE, SPACE
from tests.population.farm_children import DIES, FINE, INFINITE, LEAVES, RAISES, RETURNS_TEXT, calls, child

NAMES = ("error", "macs")


def archs(*conducts):
    return {"layer": np.stack([conducts, np.arange(len(conducts))], -1)}


def make(folder, **settings):
    return Farm(child, NAMES, config={"folder": str(folder)}, **settings)


class Engine(concurrent.futures.Executor):
    """Ends its calls when the farm waits: the last one first, or, if one of them is bound to die, none of them."""

    waiting: ClassVar[list] = []
    made = 0
    most = 0

    def __init__(self):
        Engine.made += 1
        Engine.waiting = []
        self.ended = False

    def submit(self, fn, /, *args, **kwargs):
        assert not self.ended
        future = concurrent.futures.Future()
        Engine.waiting.append((future, fn, args))
        Engine.most = max(Engine.most, len(Engine.waiting))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.ended = True

    @classmethod
    def work(cls, num=None):
        called, cls.waiting = cls.waiting[::-1][:num], cls.waiting[::-1][num:] if num else []
        if any(args[1]["layer"][0] == DIES for _, _, args in called):
            for future, *_ in called:
                future.set_exception(concurrent.futures.BrokenExecutor("a process was killed"))
            return
        for future, fn, args in called:
            future.set_result(fn(*args))


@pytest.fixture
def engine(monkeypatch):
    """Workers that need no process and no time; the farm hears of the last call first."""
    monkeypatch.setattr(Engine, "made", 0)
    monkeypatch.setattr(Engine, "most", 0)

    def wait(futures, *rest):
        if not any(future.done() for future in futures):
            Engine.work()
        return concurrent.futures.wait([[future for future in futures if future.done()][-1]], *rest)

    monkeypatch.setattr(dispatch, "wait", wait)
    return Engine


def test_fitness_is_what_the_child_says(tmp_path):
    with make(tmp_path, seed=3) as farm:
        fitness = farm.evaluate([4, 7], archs(FINE, FINE))
        seeds = [farm.seed_of(number) for number in (4, 7)]
    assert fitness.dtype == np.float64
    assert fitness.tolist() == [[0 + seeds[0] / 2**31, 0.0], [1 / 7 + seeds[1] / 2**31, 10.0]]
    assert farm.records[7].child == {
        "id": 7,
        "arch": {"layer": [FINE, 1]},
        "seed": seeds[1],
        "origin": None,
        "config": {"folder": str(tmp_path)},
    }
    assert farm.records[7].attempts == 1
    assert not (tmp_path / "farm").exists()


def test_seeds_differ_from_child_to_child_and_from_farm_to_farm(tmp_path):
    seeds = {make(tmp_path, seed=seed).seed_of(number) for seed in range(20) for number in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_order_of_completion_changes_nothing(tmp_path, engine):
    proposed = archs(FINE, FINE, FINE, FINE, RAISES, FINE)
    with make(tmp_path) as farm:
        expected = farm.evaluate(range(6), proposed)
    assert calls(tmp_path) == [0, 1, 2, 3, 4, 5]
    with make(tmp_path, workers=Workers(engine)) as farm:
        found = farm.evaluate(range(6), proposed)
    assert calls(tmp_path)[6:] == [5, 4, 3, 2, 1, 0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("at_once", "most"), [(2, 2), (None, 6)])
def test_an_executor_gets_as_many_children_as_it_asks_for(tmp_path, engine, at_once, most):
    with make(tmp_path, workers=Workers(engine, at_once)) as farm:
        farm.evaluate(range(6), archs(*[FINE] * 6))
    assert engine.most == most
    assert engine.made == 1


@pytest.mark.parametrize("retries", [1, 2])
def test_only_the_child_that_kills_its_workers_fails(tmp_path, engine, retries):
    with make(tmp_path, workers=Workers(engine, 3), retries=retries) as farm:
        fitness = farm.evaluate(range(6), archs(FINE, DIES, FINE, FINE, FINE, FINE))
    assert np.isnan(fitness).all(1).tolist() == [False, True, False, False, False, False]
    record = farm.records[1]
    assert record.attempts == retries + 1
    assert record.reason == (
        f"no worker brought it to an end in {retries + 1} attempts; the last one: BrokenExecutor: a process was killed"
    )
    assert engine.made == retries + 2  # one for each death, and one for the children after the last
    assert calls(tmp_path).count(0) == 1
    assert [farm.records[number].attempts for number in (0, 2, 3)] == [retries + 1, retries + 1, 1]


@pytest.mark.parametrize("at_once", [1, 3])
def test_without_retries_a_lost_child_is_a_row(tmp_path, engine, at_once):
    """Its only attempt is its last, so it has it alone, and takes no other child with it."""
    with make(tmp_path, workers=Workers(engine, at_once), retries=0) as farm:
        fitness = farm.evaluate(range(3), archs(DIES, FINE, FINE))
    assert np.isnan(fitness).all(1).tolist() == [True, False, False]
    assert farm.records[0].attempts == 1


def test_an_executor_that_refuses_new_calls_is_made_anew(tmp_path, engine):
    class Refuses(engine):
        def submit(self, fn, /, *args, **kwargs):
            if engine.made == 1:
                raise concurrent.futures.BrokenExecutor("broken before")
            return super().submit(fn, *args, **kwargs)

    with make(tmp_path, workers=Workers(Refuses)) as farm:
        assert np.isfinite(farm.evaluate(range(2), archs(FINE, FINE))).all()
    assert engine.made == 2


@pytest.mark.parametrize(
    ("conduct", "reason"),
    [
        (RAISES, "ValueError: no layer 1 (farm_children.py, line "),
        (LEAVES, "SystemExit: 3 (farm_children.py, line "),
        (RETURNS_TEXT, "TypeError: the child function must return a dictionary, got str ("),
    ],
)
def test_a_child_that_fails_is_a_row_with_its_reason(tmp_path, conduct, reason):
    for _ in range(2):  # the second time from its record
        with make(tmp_path, directory=tmp_path / "farm") as farm:
            fitness = farm.evaluate(range(3), archs(FINE, conduct, FINE))
        assert np.isnan(fitness).all(1).tolist() == [False, True, False]
        assert farm.records[1].reason.startswith(reason)
        assert farm.records[1].result is None
    assert calls(tmp_path) == [0, 1, 2]


def test_numbers_come_back_from_records_in_the_same_bits(tmp_path):
    fitness = []
    for _ in range(2):
        with make(tmp_path, directory=tmp_path / "farm", seed=1) as farm:
            fitness.append(farm.evaluate(range(4), archs(FINE, INFINITE, FINE, RAISES)))
    assert calls(tmp_path) == [0, 1, 2, 3]
    assert fitness[0].tobytes() == fitness[1].tobytes()
    assert fitness[0][1].tolist() == [math.inf, 10.0]


def test_a_damaged_record_is_made_again(tmp_path, capsys):
    with make(tmp_path, directory=tmp_path / "farm") as farm:
        expected = farm.evaluate(range(3), archs(FINE, FINE, FINE))
    file = tmp_path / "farm" / "child_1.json"
    content = json.loads(file.read_text())
    content["result"]["error"] = 0.0
    file.write_text(json.dumps(content))
    with make(tmp_path, directory=tmp_path / "farm") as farm:
        found = farm.evaluate(range(3), archs(FINE, FINE, FINE))
    assert capsys.readouterr().err == f"{file} is damaged: child 1 is trained again\n"
    assert calls(tmp_path) == [0, 1, 2, 1]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("directory", [None, "farm"])
def test_a_record_of_another_child_is_refused(tmp_path, directory):
    directory = directory and tmp_path / directory
    with make(tmp_path, directory=directory) as farm:
        farm.evaluate([0], archs(FINE))
        with pytest.raises(UserError, match=r"another child: arch\.layer is \[0, 0\] there and \[1, 0\] here$"):
            farm.evaluate([0], archs(RAISES))
    assert calls(tmp_path) == [0]


def test_a_record_of_another_config_or_seed_is_refused(tmp_path):
    with make(tmp_path, directory=tmp_path / "farm") as farm:
        farm.evaluate([0], archs(FINE))
    other = Farm(child, NAMES, config={"folder": str(tmp_path), "epochs": 2}, directory=tmp_path / "farm")
    with other, pytest.raises(UserError, match=r"child_0\.json belongs to another child: config\.epochs is None there"):
        other.evaluate([0], archs(FINE))
    with (
        make(tmp_path, directory=tmp_path / "farm", seed=1) as farm,
        pytest.raises(UserError, match="another child: seed is"),
    ):
        farm.evaluate([0], archs(FINE))


def test_a_directory_has_one_writer(tmp_path):
    with make(tmp_path, directory=tmp_path / "farm") as farm:
        farm.evaluate([0], archs(FINE))
        with make(tmp_path, directory=tmp_path / "farm") as other, pytest.raises(UserError, match=r"farm .* is in use"):
            other.evaluate([0], archs(FINE))
    with make(tmp_path, directory=tmp_path / "farm") as other:
        other.evaluate([0], archs(FINE))
    assert calls(tmp_path) == [0]


def test_an_objective_that_is_not_there_is_refused_and_no_child_is_lost(tmp_path):
    with Farm(child, ("loss",), config={"folder": str(tmp_path)}, directory=tmp_path / "farm") as farm:
        with pytest.raises(UserError, match=r"child 0 has no number 'loss', it has error, macs, lineage$"):
            farm.evaluate([0, 1], archs(FINE, FINE))
    with make(tmp_path, directory=tmp_path / "farm") as farm:
        assert farm.evaluate([0, 1], archs(FINE, FINE))[:, 1].tolist() == [0.0, 10.0]
    assert calls(tmp_path) == [0, 1]


def test_origins_reach_the_children(tmp_path):
    origins = {"parent": np.array([0, 5]), "operators": np.array([[1, 2], [3, 4]])}
    with make(tmp_path) as farm:
        farm.evaluate([6, 7], archs(FINE, FINE), origins)
    assert farm.records[7].result["lineage"] == [7, {"parent": 5, "operators": [3, 4]}]
    assert farm.records[7].child["origin"] == {"parent": 5, "operators": [3, 4]}


class Stop(BaseException):
    """What `on_progress` raises."""


def stop(done, total):
    raise Stop


def test_a_stop_cancels_what_waits_and_records_what_is_done(tmp_path, engine, monkeypatch):
    def wait(futures, *rest):
        Engine.work(2)
        return concurrent.futures.wait([next(future for future in futures if future.done())], *rest)

    monkeypatch.setattr(dispatch, "wait", wait)

    def on_progress(done, total):
        assert (done, total) == (1, 5)
        raise Stop

    submitted = []
    make_engine = Workers(lambda: submitted.append(engine()) or submitted[0])
    with pytest.raises(Stop), make(tmp_path, workers=make_engine, on_progress=on_progress, directory=tmp_path) as farm:
        farm.evaluate(range(5), archs(*[FINE] * 5))
    assert submitted[0].ended
    assert all(future.cancelled() for future, *_ in Engine.waiting)
    assert len(Engine.waiting) == 3
    assert {int(path.stem[6:]) for path in tmp_path.glob("child_*.json")} == {3, 4} == set(farm.records)


@pytest.mark.parametrize("submits", [False, True])
def test_a_stop_comes_before_a_child_is_blamed_for_its_worker(tmp_path, engine, submits):
    """The signal that stops the farm may have ended the worker as well; the child is trained at the next start."""
    farm = make(tmp_path, workers=Workers(engine), retries=0, directory=tmp_path, on_progress=stop)
    with farm, pytest.raises(Stop):
        farm.submit([0], archs(DIES)).result() if submits else farm.evaluate([0], archs(DIES))
    assert engine.made == 1
    assert not farm.records
    assert not list(tmp_path.glob("child_*"))


@pytest.mark.parametrize(("settings", "error"), [({"on_progress": stop}, Stop), ({}, OSError)])
def test_a_stop_comes_before_the_error_of_an_executor_that_cannot_be_made(tmp_path, settings, error):
    def executor_fn():
        raise OSError("no process")

    with make(tmp_path, workers=Workers(executor_fn), **settings) as farm, pytest.raises(error):
        farm.evaluate([0], archs(FINE))


def test_progress_is_told_after_every_child(tmp_path):
    told = []
    with make(tmp_path, on_progress=lambda *progress: told.append(progress), directory=tmp_path) as farm:
        farm.evaluate([0, 1], archs(FINE, FINE))
        farm.evaluate([0, 1, 2], archs(FINE, FINE, FINE))
    assert told == [(1, 2), (2, 2), (3, 3)]


def test_a_search_that_was_stopped_in_mid_generation_goes_on_with_the_same_history(tmp_path):
    box = random_search({"layer": jax.ShapeDtypeStruct((2, 5), np.float32)}, batch_size=3)

    def searched(folder, stop_at=None):
        def on_progress(done, total):
            if len(farm.records) == stop_at:
                raise KeyboardInterrupt

        folder.mkdir(exist_ok=True)
        with (
            Run(folder, writers=()) as run,
            Farm(
                child_of_search, ("error",), config=str(folder), directory=folder / "f", on_progress=on_progress
            ) as farm,
        ):
            return search(run, "search", box, farm.evaluate, 3)[1]

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "stopped", stop_at=5)
    found = searched(tmp_path / "stopped")
    expected = searched(tmp_path / "whole")
    assert found.fitness.tobytes() == expected.fitness.tobytes()
    np.testing.assert_array_equal(found.archs["layer"], expected.archs["layer"])
    for folder in (tmp_path / "stopped", tmp_path / "whole"):
        assert len((folder / "calls.txt").read_text()) == len(found.ids) == 9


def child_of_search(arch, seed, config):
    with (Path(config) / "calls.txt").open("a") as file:
        file.write(".")
    return {"error": arch["layer"].sum() + seed / 2**31}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ()}, "objectives must be a sequence of names, at least one"),
        ({"objectives": "error"}, "objectives must be a sequence of names"),
        ({"retries": -1}, "retries and seed must not be negative, got -1 and 0"),
        ({"seed": -1}, "retries and seed must not be negative, got 2 and -1"),
        ({"config": {"fn": print}}, "config must be JSON data: "),
        (
            {"child_fn": lambda arch, seed, config: {}, "workers": in_process()},
            "child_fn must be a function at",
        ),
        ({"workers": Workers(Engine, 0)}, "at_once is 0, expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Farm(**{"child_fn": child, "objectives": NAMES, **settings})


def train_one(arch, seed, config):
    """One member of the small population as a child of a farm."""
    alone = jax.tree.map(lambda leaf: np.asarray(leaf)[None], arch)
    rates, seeds = np.array([config["rate"]]), np.array([seed])
    found = train_population(KEY, FAMILY, alone, DATA, RECIPE, choices=SPACE.choices, rates=rates, seeds=seeds)
    return {"error": 1 - found.score["test"][0, -1], "loss": found.loss[0, -1], "good": found.good[0]}


def test_a_farm_trains_what_a_population_trains():
    proposed = {"chain": np.array([[0, 1], [2, 0], [1, 2]])}
    with Farm(train_one, ("error", "loss"), config={"rate": 0.03}) as farm:
        fitness = farm.evaluate(range(3), proposed)
        seeds = np.array([farm.seed_of(number) for number in range(3)])
    rates = np.full(3, 0.03)
    found = train_population(KEY, FAMILY, proposed, DATA, RECIPE, choices=SPACE.choices, rates=rates, seeds=seeds)
    np.testing.assert_allclose(fitness[:, 1], found.loss[:, -1], rtol=1e-4)
    assert np.abs(fitness[:, 0] - (1 - found.score["test"][:, -1])).mean() < 0.01
    assert jnp.isfinite(fitness).all()


def test_no_child_has_no_fitness(tmp_path):
    with make(tmp_path) as farm:
        assert farm.evaluate([], archs()).shape == (0, len(farm.evaluate([0], archs(FINE))[0]))
