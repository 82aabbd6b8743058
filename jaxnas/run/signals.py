"""SIGTERM and Ctrl-C ask a run to save and leave; the run looks between two chunks whether one has come."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any

from jaxnas.standard_error import say

__all__ = ["Interrupted", "StopSignals"]

GRACE = 8.0  # seconds, so that a process is gone within ten


class Interrupted(BaseException):
    """A run was asked to stop and has saved. Not an `Exception`: code that records failed children lets it pass.

    Args:
      signum: the number of the signal that asked.

    Attributes:
      signal: the signal that asked.
      exit_code: the code that a script exits with, 143 after SIGTERM and 130 after Ctrl-C.
    """

    def __init__(self, signum: int):
        self.signal = signal.Signals(signum)
        self.exit_code = 128 + self.signal
        super().__init__(f"interrupted by {self.signal.name}")


class StopSignals:
    """Context in which SIGTERM and SIGINT are remembered instead of ending the process.

    Python handles a signal only between two of its instructions, and a compilation or one long step may keep it from
    doing so. A thread therefore hears of the signal by itself, tells the user, and ends a process that has not left the
    context `grace` seconds later, as a scheduler would; what came after the last checkpoint is then done again.
    Outside of the main thread, where Python lets nobody handle signals, the context changes nothing.

    Args:
      grace: seconds between a signal and the end of a process that has not left the context.

    Attributes:
      received: the number of the first signal, or None.
    """

    def __init__(self, grace: float = GRACE) -> None:
        self.received: int | None = None
        self._grace = grace
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            # Python's handler in C writes a signal's number to the bell at once; the thread waits at its other end.
            self._bell, ringing = socket.socketpair()
            self._bell.setblocking(False)
            self._ended = threading.Event()
            self._watch = threading.Thread(target=self._watching, args=(ringing,), daemon=True)
            self._watch.start()
            self._former = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGTERM, signal.SIGINT)}
            self._former_bell = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._former:
            return
        # The former handlers come back first; then the thread hears that there is nothing to wait for.
        signal.set_wakeup_fd(self._former_bell)
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        self._former = {}
        self._ended.set()
        self._bell.close()
        self._watch.join()

    def check(self) -> None:
        """Raises `Interrupted` when a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    def _handle(self, signum: int, _: FrameType | None) -> None:
        """Remembers the first signal; a Ctrl-C after it leaves at once."""
        if self.received is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signum

    def _watching(self, ringing: socket.socket) -> None:
        """Waits for a signal, tells the user, and ends a process that does not leave in time."""
        with ringing:
            stops = {signal.SIGTERM, signal.SIGINT}
            while (heard := ringing.recv(1)) and heard[0] not in stops:
                pass
        if not heard:  # the context was left without a signal
            return
        name = signal.Signals(heard[0]).name
        say(f"\n{name}: saving, then leaving (Ctrl-C quits at once)")
        if not self._ended.wait(self._grace):
            say(f"{name}: not done after {self._grace:g} s; the same command goes on from the last checkpoint")
            sys.stdout.flush()
            os._exit(128 + heard[0])
