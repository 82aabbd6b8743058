"""A farm over real processes: killed workers, a killed script, and dask.distributed."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from jaxnas.errors import UserError
from jaxnas.population import Farm, Workers, local_processes
from jaxnas.population.workers import _Process
from tests.population import farm_script
from tests.population.farm_children import DIES, DIES_ONCE, FINE, RAISES, calls, child, processes

ROOT = Path(__file__).resolve().parents[2]
CONDUCTS = [FINE, DIES_ONCE, RAISES, FINE, FINE, FINE]


def evaluate(folder, conducts, **settings):
    """The fitness of children that do as they are told, and the farm."""
    archs = {"layer": np.stack([conducts, np.arange(len(conducts))], -1)}
    with Farm(child, ("error", "macs"), config={"folder": str(folder)}, directory=folder / "farm", **settings) as farm:
        return farm.evaluate(range(len(conducts)), archs), farm.records


@pytest.fixture
def expected(tmp_path):
    """The fitness of the same children when nobody dies."""
    (tmp_path / "calm").mkdir()
    return evaluate(tmp_path / "calm", [FINE if conduct == DIES_ONCE else conduct for conduct in CONDUCTS])[0]


def assert_gone(pids):
    """Processes end by themselves, soon."""
    end = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, f"still there: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.02)


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_child_whose_process_dies_runs_again(tmp_path, expected):
    found, records = evaluate(tmp_path, CONDUCTS, workers=local_processes(2))
    np.testing.assert_array_equal(found, expected)
    assert sorted(records) == list(range(6))
    assert records[1].attempts == 2
    assert records[2].reason.startswith("ValueError: ")
    assert_gone(processes(tmp_path))


@pytest.mark.slow
def test_a_child_that_kills_every_process_is_a_row(tmp_path):
    found, records = evaluate(tmp_path, [FINE, DIES, FINE, FINE], workers=local_processes(2), retries=1)
    assert np.isnan(found).all(1).tolist() == [False, True, False, False]
    assert records[1].attempts == calls(tmp_path).count(1) == 2
    assert records[1].reason.startswith(
        "no worker brought it to an end in 2 attempts; the last one: BrokenProcessPool: "
    )


def test_a_stop_ends_processes_that_are_at_work(tmp_path):
    begun = tmp_path / "calls.txt"

    def on_progress(done, total):
        if begun.exists():
            raise KeyboardInterrupt

    archs = {"layer": np.zeros((2, 2), int)}
    workers = local_processes(2)
    with pytest.raises(KeyboardInterrupt):
        with Farm(sleep, ("error",), config=str(begun), workers=workers, on_progress=on_progress) as farm:
            farm.evaluate([0, 1], archs)
    assert_gone({int(line) for line in begun.read_text().split()})


def sleep(arch, seed, config):
    """A child that never ends by itself."""
    with open(config, "a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(1)


def test_signals_that_a_whole_group_gets_leave_a_child_alone(tmp_path):
    with Farm(signalled, ("error",), workers=local_processes(1), retries=0) as farm:
        assert farm.evaluate([0], {"layer": np.zeros((1, 1))}).tolist() == [[0.0]]


def signalled(arch, seed, config):
    for signum in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), signum)
    return {"error": 0.0}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_a_whole_group_gets_leave_a_process_alone_that_starts(monkeypatch, signum):
    start = _Process.start

    def start_signalled(process):
        start(process)
        os.kill(process.pid, signum)

    monkeypatch.setattr(_Process, "start", start_signalled)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with local_processes(1).executor_fn() as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_pool_that_broke_ends_the_processes_that_are_left(tmp_path):
    """They do not listen to the signal with which pools end their processes."""
    pool = local_processes(2).executor_fn()
    begun = tmp_path / "begun"
    pool.submit(sleep, None, 0, str(begun))
    until(begun.exists)
    with pytest.raises(BrokenProcessPool):
        pool.submit(signal.raise_signal, signal.SIGKILL).result()
    leaving = threading.Thread(target=pool.shutdown, daemon=True)
    leaving.start()
    leaving.join(60)
    left = leaving.is_alive()
    pool.shutdown(wait=False)
    assert not left
    assert_gone({int(begun.read_text())})


def until(condition):
    """Waits for what another process does."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_script_and_processes_blames_no_child(tmp_path, signum):
    """As from a scheduler or a terminal, in the only attempt of a child; the same command then trains it."""
    script, begun, record = tmp_path / "script.py", tmp_path / "begun", tmp_path / "farm" / "child_0.json"
    script.write_text(
        "import sys\n"
        "from jaxnas.population import Farm, local_processes\n"
        "from jaxnas.run import Run\n"
        "from jaxnas.run._script import exit_code\n"
        "from tests.population.test_farm_processes import sleep_at_first\n"
        "def body():\n"
        f"    folder = {str(tmp_path)!r}\n"
        "    settings = dict(config=folder, workers=local_processes(1), directory=folder + '/farm', retries=0)\n"
        "    with Run(folder + '/run', writers=()) as run:\n"
        "        check = lambda done, total: run.check()\n"
        "        with Farm(sleep_at_first, ['error'], on_progress=check, **settings) as farm:\n"
        "            farm.evaluate([0], {'layer': [[0]]})\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(exit_code(body))\n"
    )
    command, environment = [sys.executable, script], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, start_new_session=True) as started:
        until(begun.exists)
        os.killpg(started.pid, signum)
        assert started.wait(120) == 128 + signum
    assert not record.exists()
    assert subprocess.run(command, env=environment, timeout=300, check=False).returncode == 0
    assert record.exists()


def sleep_at_first(arch, seed, config):
    """A child that ends when it is called for the second time."""
    begun = Path(config) / "begun"
    return {"error": 0.0} if begun.exists() else sleep(arch, seed, begun)


def test_count_of_processes_is_checked():
    with pytest.raises(UserError, match="count is 0, expected at least 1 process"):
        local_processes(0)


def test_processes_that_cannot_start_are_no_failure_of_children(tmp_path):
    """A script that lacks `if __name__ == "__main__":` is run again by each process that it starts."""
    script = tmp_path / "script.py"
    script.write_text(
        "from jaxnas.population import Farm, local_processes\n"
        "from tests.population.farm_children import child\n"
        f"folder = {str(tmp_path)!r}\n"
        "settings = dict(config={'folder': folder}, workers=local_processes(1), directory=folder)\n"
        "with Farm(child, ['error'], **settings) as farm:\n"
        "    farm.evaluate([0], {'layer': [[0, 0]]})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "UserError: processes cannot be started: " in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("child_*"))


def run_script(folder, num_processes, dies_after=-1):
    command = [sys.executable, "-m", "tests.population.farm_script", folder, num_processes, dies_after]
    return subprocess.run(list(map(str, command)), cwd=ROOT, timeout=300, check=False).returncode


@pytest.mark.parametrize("num_processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_script_goes_on_and_has_the_same_history(tmp_path, num_processes):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    # The script dies when it is told of three children, which is in the first of its two calls of `evaluate`.
    assert run_script(killed, num_processes, dies_after=3) == -signal.SIGKILL
    assert_gone(processes(killed))
    recorded = {int(path.stem[6:]) for path in (killed / "farm").glob("child_*.json")}
    assert len(recorded) >= 3
    before = len(calls(killed))
    assert run_script(killed, num_processes) == 0
    assert set(calls(killed)[before:]) == set(range(8)) - recorded
    farm_script.main(whole, 0, -1)
    assert (killed / "history.npy").read_bytes() == (whole / "history.npy").read_bytes()


def test_dask_runs_the_child_of_a_killed_worker_again(tmp_path, expected):
    import dask
    from distributed import Client, LocalCluster

    quiet = {"distributed.worker.memory.terminate": False, "distributed.admin.system-monitor.gil.enabled": False}
    with (
        dask.config.set(quiet),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        workers = Workers(lambda: client.get_executor(pure=False, retries=2))
        found, records = evaluate(tmp_path, CONDUCTS, workers=workers)
    np.testing.assert_array_equal(found, expected)
    assert sorted(records) == list(range(6))
    assert calls(tmp_path).count(1) == 2
    assert records[2].reason.startswith("ValueError: ")
