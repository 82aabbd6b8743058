"""SIGTERM and Ctrl-C ask a run to save and leave; the run looks between two chunks whether one has come."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "StopSignals"]


class Interrupted(BaseException):
    """A run was asked to stop and has saved. Not an `Exception`: code that records failed children lets it pass.

    Attributes:
      signal: the signal that asked.
      exit_code: what a script exits with, 143 after SIGTERM and 130 after Ctrl-C.
    """

    def __init__(self, signum: int):
        self.signal = signal.Signals(signum)
        self.exit_code = 128 + self.signal
        super().__init__(f"interrupted by {self.signal.name}")


class StopSignals:
    """Context in which SIGTERM and SIGINT are remembered instead of ending the process.

    Outside the main thread, where Python lets nobody handle signals, it changes nothing.

    Attributes:
      received: the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            self._former = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        self._former = {}

    def check(self) -> None:
        """Raises `Interrupted` when a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    def _handle(self, signum: int, _: FrameType | None) -> None:
        if self.received is not None:
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = signum
        name = signal.Signals(signum).name
        os.write(2, f"\n{name}: saving, then leaving (Ctrl-C quits at once)\n".encode())  # print is not reentrant
