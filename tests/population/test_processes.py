"""Two processes train one population; when one dies, those that are left go on from the last chunk."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(out, **options):
    """A worker; every process has two devices."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.population.worker", "--out", str(out), *words],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def finish(*processes):
    for process in processes:
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text


def address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process trains, without a stop."""
    out = tmp_path_factory.mktemp("alone") / "found.npz"
    finish(start(out, chunk=4))
    return np.load(out)


def assert_same(out, alone, devices):
    """The same to rounding: programs for other numbers of devices may round differently."""
    found = np.load(out)
    assert found["devices"] == devices
    assert set(found) == set(alone)
    for name in set(alone) - {"devices"}:
        if name.startswith("score"):  # a rounding may turn an example over
            assert np.abs(found[name] - alone[name]).mean() < 0.01
        else:
            np.testing.assert_allclose(found[name], alone[name], rtol=1e-4, atol=1e-5)


def await_checkpoint(directory, process):
    """Returns once `process` has saved a chunk: the other one may have died before that."""
    end = time.monotonic() + 300
    while not any(directory.glob("step_*[0-9]")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, alone):
    together = {"processes": 2, "address": address(), "chunk": 8, "directory": tmp_path / "saved"}
    outs = [tmp_path / f"{i}.npz" for i in range(2)]
    finish(*(start(out, process=i, **together) for i, out in enumerate(outs)))
    for out in outs:
        assert_same(out, alone, 4)


@pytest.mark.slow
def test_the_rest_goes_on_when_a_process_dies(tmp_path, alone):
    together = {"processes": 2, "address": address(), "chunk": 8, "directory": tmp_path / "saved"}
    first = start(tmp_path / "0.npz", process=0, **together)
    second = start(tmp_path / "1.npz", process=1, dies_after=8, **together)
    second.communicate(timeout=300)
    assert second.returncode == -signal.SIGKILL
    await_checkpoint(tmp_path / "saved", first)
    first.kill()  # it waits for the dead one and gives up by itself only after a timeout
    first.communicate()
    out = tmp_path / "left.npz"
    assert not out.exists()
    finish(start(out, chunk=4, directory=tmp_path / "saved"))
    assert_same(out, alone, 2)
