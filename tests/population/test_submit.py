"""A farm whose children are submitted ask after ask: they train side by side, and none of them is lost."""

import concurrent.futures
import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest

from jaxnas.errors import UserError
from jaxnas.population import Farm, Workers, local_processes
from jaxnas.run import Interrupted, Run, search
from jaxnas.searchers import random_search
from tests.population.farm_children import FINE, RAISES, calls, child, processes
from tests.population.flight_script import let_live, numbers_of, searched
from tests.population.test_farm_processes import assert_gone

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("error", "macs")
PATIENCE = 30  # seconds until a wait for another thread is given up
OPEN = [threading.Event() for _ in range(8)]


def threads(count=4, at_once=None):
    return Workers(lambda: concurrent.futures.ThreadPoolExecutor(count), at_once)


def archs(*conducts, first=0):
    return {"layer": np.stack([conducts, first + np.arange(len(conducts))], -1)}


def make(folder, workers=None, **settings):
    return Farm(child, NAMES, config={"folder": str(folder)}, workers=workers or threads(), **settings)


def gated(arch, seed, config):
    """Waits until the event of its number is set, then does what `child` does."""
    assert OPEN[arch["layer"][1]].wait(PATIENCE)
    return child(arch, seed, config)


def make_gated(folder, workers=None, **settings):
    for event in OPEN:
        event.clear()
    return Farm(gated, NAMES, config={"folder": str(folder)}, workers=workers or threads(), **settings)


def until(condition):
    """Waits for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_futures_have_the_fitness_of_evaluate_and_every_child_one_record(tmp_path):
    with make(tmp_path, seed=2) as farm:
        expected = farm.evaluate(range(5), archs(FINE, RAISES, FINE, FINE, FINE))
    assert np.isnan(expected).all(1).tolist() == [False, True, False, False, False]
    with make(tmp_path, seed=2, directory=tmp_path / "farm") as farm:
        one = farm.submit([0, 1], archs(FINE, RAISES))
        other = farm.submit([2, 3, 4], archs(FINE, FINE, FINE, first=2))
        found = np.concatenate([one.result(PATIENCE), other.result(PATIENCE)])
        again = farm.submit([3], archs(FINE, first=3)).result(PATIENCE)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again, expected[3:4])
    assert sorted(calls(tmp_path)) == sorted([*range(5)] * 2)
    assert sorted(farm.records) == list(range(5))
    assert len(list((tmp_path / "farm").glob("child_*.json"))) == 5


def test_a_later_ask_is_trained_and_ready_while_an_earlier_one_waits(tmp_path):
    with make_gated(tmp_path) as farm:
        early, late = farm.submit([0, 1], archs(FINE, FINE)), farm.submit([2], archs(FINE, first=2))
        OPEN[2].set()
        OPEN[1].set()
        assert late.result(PATIENCE).shape == (1, 2)
        assert not early.done()
        assert not early.cancel()
        OPEN[0].set()
        assert early.result(PATIENCE)[:, 1].tolist() == [0.0, 10.0]


def test_evaluate_joins_what_was_submitted(tmp_path):
    """The executor gets one child at a time, so that a second dispatcher would be seen."""
    with make_gated(tmp_path, threads(4, at_once=1)) as farm:
        early = farm.submit([0, 1], archs(FINE, FINE))
        timer = threading.Thread(target=lambda: [OPEN[number].set() for number in (0, 2, 1)])
        timer.start()
        assert farm.evaluate([2], archs(FINE, first=2)).tolist()[0][1] == 20.0
        assert early.done()
        timer.join()
    assert calls(tmp_path) == [0, 1, 2]


def test_an_ask_has_its_children_in_their_order(tmp_path):
    with make_gated(tmp_path) as farm:
        future = farm.submit([0, 1, 2], archs(FINE, FINE, FINE))
        for number in (2, 0, 1):
            OPEN[number].set()
            until(lambda number=number: number in farm.records)
        assert future.result(PATIENCE)[:, 1].tolist() == [0.0, 10.0, 20.0]


def test_a_child_that_is_submitted_twice_is_trained_once(tmp_path):
    with make_gated(tmp_path) as farm:
        futures = [farm.submit([0], archs(FINE)) for _ in range(3)]
        OPEN[1].set()
        farm.submit([1], archs(FINE, first=1)).result(PATIENCE)  # by now the farm has seen all three
        OPEN[0].set()
        assert [future.result(PATIENCE)[0, 1] for future in futures] == [0.0] * 3
    assert calls(tmp_path) == [1, 0]


def test_a_record_of_another_child_fails_its_own_ask_alone(tmp_path):
    with make_gated(tmp_path) as farm:
        early = farm.submit([0], archs(FINE))
        OPEN[1].set()
        farm.submit([1], archs(FINE, first=1)).result(PATIENCE)
        with pytest.raises(UserError, match=r"another child: arch\.layer"):
            farm.submit([1], archs(FINE, first=2)).result(PATIENCE)
        OPEN[0].set()
        assert early.result(PATIENCE).shape == (1, 2)


def test_an_objective_that_is_not_there_is_refused(tmp_path):
    with Farm(child, ("loss",), config={"folder": str(tmp_path)}, workers=threads()) as farm:
        with pytest.raises(UserError, match=r"child 0 has no number 'loss'"):
            farm.submit([0], archs(FINE)).result(PATIENCE)
        assert farm.records[0].result["macs"] == 0


def test_what_progress_raises_the_futures_raise_and_the_farm_goes_on(tmp_path):
    class Stop(BaseException):
        pass

    told, seen = [], threading.Event()

    def on_progress(done, total):
        if total == 2:
            seen.set()
        told.append((done, total))
        if (done, total) == (1, 2) and told.count((1, 2)) == 1:
            raise Stop

    with make_gated(tmp_path, on_progress=on_progress) as farm:
        futures = [farm.submit([number], archs(FINE, first=number)) for number in (0, 1)]
        assert seen.wait(PATIENCE)
        OPEN[0].set()
        assert futures[0].result(PATIENCE).shape == (1, 2)
        with pytest.raises(Stop):
            futures[1].result(PATIENCE)
        OPEN[1].set()
        OPEN[2].set()
        assert farm.submit([1, 2], archs(FINE, FINE, first=1)).result(PATIENCE)[:, 1].tolist() == [10.0, 20.0]
    assert told[-1] == (2, 2)


def test_leaving_the_farm_ends_what_was_submitted(tmp_path):
    with make_gated(tmp_path, threads(1), directory=tmp_path / "farm") as farm:
        OPEN[0].set()
        done = farm.submit([0], archs(FINE))
        assert done.result(PATIENCE).shape == (1, 2)
        left = [farm.submit([number], archs(FINE, first=number)) for number in (1, 2)]
    for future in left:
        with pytest.raises(concurrent.futures.CancelledError, match="the farm was left"):
            future.result(PATIENCE)
    for event in OPEN:
        event.set()  # the thread of the executor ends
    assert sorted(farm.records) == [0]
    with make(tmp_path, directory=tmp_path / "farm") as other, pytest.raises(UserError, match="another child"):
        other.submit([0], archs(FINE, first=5)).result(PATIENCE)


def test_a_disk_that_takes_no_record_is_told_and_nothing_hangs(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with make(tmp_path) as farm:
        monkeypatch.setattr(farm._records, "add", full)
        with pytest.raises(OSError, match="No space left"):
            farm.submit([0, 1], archs(FINE, FINE)).result(PATIENCE)


def test_without_workers_children_are_trained_at_once_in_this_thread(tmp_path):
    with Farm(named, ("thread",)) as farm:
        future = farm.submit([0], archs(FINE))
        assert future.done()
        assert future.result().tolist() == [[threading.get_ident() % 2**31]]


def named(arch, seed, config):
    return {"thread": threading.get_ident() % 2**31}


def test_a_worker_that_dies_under_several_asks_loses_no_child(tmp_path):
    """An executor whose second call breaks it, with all that it holds."""
    made = []

    class Breaks(concurrent.futures.ThreadPoolExecutor):
        def __init__(self):
            super().__init__(4)
            self.held = []
            made.append(self)

        def submit(self, fn, /, *args, **kwargs):
            if len(made) > 1:
                return super().submit(fn, *args, **kwargs)
            if len(self.held) == 2:
                raise concurrent.futures.BrokenExecutor("broken before")
            self.held.append(concurrent.futures.Future())
            if len(self.held) == 2:
                for future in self.held:
                    future.set_exception(concurrent.futures.BrokenExecutor("a process was killed"))
            return self.held[-1]

    with make(tmp_path, Workers(Breaks)) as farm:
        futures = [farm.submit([number], archs(FINE, first=number)) for number in range(3)]
        found = np.concatenate([future.result(PATIENCE) for future in futures])
    assert found[:, 1].tolist() == [0.0, 10.0, 20.0]
    assert len(made) == 2
    assert [farm.records[number].attempts for number in range(2)] == [2, 2]


class Holds(concurrent.futures.Executor):
    """Ends a call only when the test does; `handed` are the calls of all executors together."""

    handed: ClassVar[list] = []

    def submit(self, fn, /, *args, **kwargs):
        Holds.handed.append((concurrent.futures.Future(), fn, args))
        return Holds.handed[-1][0]


@pytest.mark.parametrize("retries", [0, 1])
def test_nothing_starts_beside_a_last_attempt(tmp_path, monkeypatch, retries):
    """A newcomer that broke the executor would have the other child recorded as failed."""
    handed = []
    monkeypatch.setattr(Holds, "handed", handed)
    with make(tmp_path, Workers(Holds), retries=retries) as farm:
        futures = [farm.submit([0], archs(FINE))]
        for lost in range(retries):
            until(lambda lost=lost: len(handed) > lost)
            handed[lost][0].set_exception(concurrent.futures.BrokenExecutor("a process was killed"))
        until(lambda: len(handed) > retries)
        futures.append(farm.submit([1], archs(FINE, first=1)))
        for _ in range(2):  # when the second of these is answered, the turn that could start the newcomer is over
            assert farm.submit([], archs()).result(PATIENCE).shape == (0, 2)
        assert len(handed) == retries + 1
        for place in (retries, retries + 1):
            until(lambda place=place: len(handed) > place)
            future, fn, args = handed[place]
            future.set_result(fn(*args))
        assert [future.result(PATIENCE)[0, 1] for future in futures] == [0.0, 10.0]
    assert [farm.records[number].attempts for number in range(2)] == [retries + 1, 1]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """By name a search in which nobody dies, its children trained one after the other in this thread."""

    @functools.cache
    def found(name):
        folder = tmp_path_factory.mktemp(name)
        let_live(folder, 0, 1, 2)
        return searched(folder, None, name)

    return found


def assert_same(found, calm):
    (_, history), (_, expected) = found, calm("evolution")
    np.testing.assert_array_equal(history.archs["layer"], expected.archs["layer"])
    assert history.fitness.tobytes() == expected.fitness.tobytes()
    assert np.isnan(expected.fitness).any()  # children that raise are among them


def test_a_search_on_threads_is_the_search_in_this_thread(tmp_path, calm):
    let_live(tmp_path, 0, 1, 2)
    assert_same(searched(tmp_path, threads()), calm)
    assert sorted(int(path.stem[6:]) for path in (tmp_path / "farm").glob("*.json")) == list(range(16))


def test_a_search_by_arrival_trains_every_child_once(tmp_path):
    let_live(tmp_path, 0, 1, 2)
    _, history = searched(tmp_path, threads(), order="arrival")
    assert sorted(history.told.tolist()) == history.ids.tolist() == list(range(16))
    assert len(calls(tmp_path)) == 16


def asked_to_stop(folder, workers, child_fn):
    """A search whose first child asks the script to stop; its children do not end by themselves."""
    box = random_search({"layer": jax.ShapeDtypeStruct((2, 3), np.float32)})
    config = {"folder": str(folder), "script": os.getpid()}
    with (
        Run(folder / "run", writers=()) as run,
        Farm(child_fn, ("error",), config=config, workers=workers, directory=folder / "farm") as farm,
        pytest.raises(Interrupted),
    ):
        search(run, "search", box, farm.submit, 4, in_flight=2)


def ask_to_stop(config):
    with contextlib.suppress(FileExistsError):
        (Path(config["folder"]) / "asked").touch(exist_ok=False)
        os.kill(config["script"], signal.SIGTERM)


def stopping(arch, seed, config):
    ask_to_stop(config)
    assert OPEN[0].wait(PATIENCE)
    return {"error": 0.0}


def sleeping(arch, seed, config):
    with (Path(config["folder"]) / "calls.txt").open("a") as file:
        file.write(f"0 {os.getpid()}\n")
    ask_to_stop(config)
    while True:
        time.sleep(1)


def test_a_signal_is_heard_while_children_are_trained(tmp_path):
    OPEN[0].clear()
    asked_to_stop(tmp_path, threads(), stopping)
    assert not list((tmp_path / "farm").glob("child_*"))  # it has not waited for the child
    OPEN[0].set()


@pytest.mark.slow
def test_a_signal_ends_processes_that_are_at_work(tmp_path):
    asked_to_stop(tmp_path, local_processes(2), sleeping)
    assert_gone(processes(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_processes"), [("nas_rl", 0), ("evolution", 0), ("evolution", 2)])
def test_a_script_killed_with_asks_out_goes_on_with_the_same_history(tmp_path, calm, name, num_processes):
    """The same controller, too."""

    def run_script(doomed):
        command = [sys.executable, "-m", "tests.population.flight_script", tmp_path, name, num_processes, doomed]
        return subprocess.run(list(map(str, command)), cwd=ROOT, timeout=300, check=False).returncode

    assert run_script(9) == -signal.SIGKILL
    recorded = list((tmp_path / "farm").glob("child_*.json"))
    assert 7 <= len(recorded) < 12  # asks 0 to 6 were told before ask 9 was made
    before = len(calls(tmp_path))
    assert run_script(-1) == 0
    assert len(calls(tmp_path)) - before == 16 - len(recorded)  # none is trained twice that had a record
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), numbers_of(calm(name)), rtol=1e-6)


@pytest.mark.slow
def test_a_process_that_dies_with_asks_out(tmp_path, calm):
    let_live(tmp_path, 0, 1)
    assert_same(searched(tmp_path, local_processes(2)), calm)
    assert (tmp_path / "died_2").exists()


@pytest.mark.slow
def test_dask_with_a_worker_killed_in_mid_child_and_asks_out(tmp_path, calm):
    import dask
    from distributed import Client, LocalCluster

    let_live(tmp_path, 0, 1)
    quiet = {"distributed.worker.memory.terminate": False, "distributed.admin.system-monitor.gil.enabled": False}
    with (
        dask.config.set({**quiet, "distributed.scheduler.allowed-failures": 20}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        workers = Workers(lambda: client.get_executor(pure=False, retries=2))
        found = searched(tmp_path, workers, child_fn=child)
    assert (tmp_path / "died_2").exists()
    assert_same(found, calm)
    assert sorted(int(path.stem[6:]) for path in (tmp_path / "farm").glob("*.json")) == list(range(16))
