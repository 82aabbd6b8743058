"""What a person sees."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

from jaxnas.run import Progress, StopSignals, Ticker, exit_code, parse, say
from tests.run.toy import Config


def test_lines_instead_of_a_bar(capfd):
    with Progress("search", 10, done=4, every=0.0) as progress:
        progress.update(3, "loss 0.5")
        progress.update(3, "loss 0.4")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("search 7/10, ")
    assert lines[0].endswith(" left, loss 0.5")
    assert lines[-1].endswith("done")
    with Ticker("compiling search", every=0.02) as ticker:
        time.sleep(0.1)
    assert ticker.seconds >= 0.1
    assert "compiling search ... 0 s" in capfd.readouterr().err


def test_a_bar_on_a_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Ticker("compiling search"):
            time.sleep(1.1)
        with Progress("search", 10) as progress:
            progress.update(10, "loss 0.5")
        shown = ""
        while select.select([ours], [], [], 0.2)[0]:
            shown += os.read(ours, 10_000).decode()
    os.close(ours)
    assert "compiling search ... 1 s" in shown
    assert "compiling search: 1.1 s" in shown
    assert "10/10" in shown
    assert "loss 0.5" in shown


class Plain:
    """What some programs put in the place of stderr: it takes text and has nothing else."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def show_everything():
    with Progress("search", 2, every=0.0) as progress, Ticker("compiling", every=0.001):
        progress.update(2, "loss 0.5")
        time.sleep(0.01)
    say("a line")


def test_without_stderr_nothing_is_shown_and_nothing_fails(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", None)
    show_everything()
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
    assert exit_code(lambda: parse({"digits": Config()}, args=["--sed", "3"])) == 2
    assert capfd.readouterr() == ("", "")


def test_stderr_may_lack_a_terminal_and_may_be_closed(monkeypatch, tmp_path):
    plain = Plain()
    monkeypatch.setattr(sys, "stderr", plain)
    show_everything()
    assert "search 2/2" in plain.text
    assert plain.text.endswith("a line\n")
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
    show_everything()
