"""A process that has been asked to leave does so, whatever it is doing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnas.run import Interrupted, StopSignals

ROOT = Path(__file__).resolve().parents[2]
BUSY = """
import hashlib, os, signal
from jaxnas.run.signals import StopSignals

with StopSignals(grace=0.1):
    os.kill(os.getpid(), signal.{name})
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in which Python cannot handle a signal
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_process_that_cannot_handle_the_signal_leaves_all_the_same(name, code):
    command = [sys.executable, "-c", BUSY.format(name=name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    first, last = done.stderr.strip().splitlines()
    assert first == f"{name}: saving, then leaving (Ctrl-C quits at once)"
    assert last == f"{name}: not done after 0.1 s; the same command goes on from the last checkpoint"


def test_the_first_signal_is_remembered_and_handlers_come_back(capfd):
    former = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as left:
            stop.check()
    assert left.value.exit_code == 143
    assert stop.received == signal.SIGTERM
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == former
    assert signal.set_wakeup_fd(-1) == -1
    assert capfd.readouterr().err.count("SIGTERM: saving, then leaving") == 1
