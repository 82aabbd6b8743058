"""What a person sees while a run works: a bar on a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

from jaxnas.standard_error import say

__all__ = ["Progress", "Ticker"]


def _is_terminal() -> bool:
    """Whether standard error is a terminal; what has been put in its place may have no `isatty`."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):
        return False


class Progress:
    """Shows steps done, rate and time left on standard error, as a context manager.

    Args:
      label: words for what is going on, for example the name of a phase.
      total: number of steps in all.
      done: number of steps done before this process started.
      every: seconds between two lines where standard error is not a terminal.
      unit: word for one step, without the `s` of its plural.

    Example:
      >>> with Progress("search", 10, done=4) as progress:
      ...     progress.update(3, "loss 0.25")
      >>> progress.done
      7
    """

    def __init__(self, label: str, total: int, *, done: int = 0, every: float = 10.0, unit: str = "step"):
        self._label, self._total, self._first, self._done, self._every = label, total, done, done, every
        self._unit = unit
        self._started = self._printed = time.monotonic()
        self._bar = None
        if _is_terminal():
            self._bar = tqdm(
                desc=label, total=total, initial=done, unit=unit, file=sys.stderr, dynamic_ncols=True, mininterval=0.2
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done > self._first:  # the last line of a log says how it ended
            self._print("")

    @property
    def done(self) -> int:
        """Number of steps done."""
        return self._done

    def update(self, steps: int, text: str = "") -> None:
        """Counts `steps` more steps and shows `text` beside them."""
        self._done += steps
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._printed >= self._every:
            self._print(text)

    def _print(self, text: str) -> None:
        """Says in one line how far it is; the rate is that of this process."""
        now = time.monotonic()
        # Steps that were done before this process say nothing of its rate.
        rate = (self._done - self._first) / max(now - self._started, 1e-9)
        left = _duration((self._total - self._done) / rate) + " left" if self._done < self._total else "done"
        parts = [f"{self._label} {self._done}/{self._total}", f"{rate:.3g} {self._unit}s/s", left, text]
        say(", ".join(part for part in parts if part))
        self._printed = now


class Ticker:
    """Shows that something without steps is going on, and for how long: `compiling search ... 12 s`.

    Args:
      label: words for what is going on.
      every: seconds between two lines where standard error is not a terminal.

    Attributes:
      seconds: the seconds that the block took, once it has ended.
    """

    def __init__(self, label: str, *, every: float = 10.0):
        self._label = label
        self._tty = _is_terminal()
        self._interval = 0.5 if self._tty else every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self.seconds = 0.0

    def __enter__(self) -> Ticker:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.seconds = time.monotonic() - self._started
        self._ended.set()
        self._thread.join()
        if kind is None and self.seconds >= 1.0:  # what took less is not worth a line
            say(f"{self._start_of_line()}{self._label}: {self.seconds:.1f} s")

    def _tick(self) -> None:
        """Rewrites the line of a terminal, or adds one to a log, until the block has ended."""
        while not self._ended.wait(self._interval):
            text = f"{self._start_of_line()}{self._label} ... {time.monotonic() - self._started:.0f} s"
            say(text, end="" if self._tty else "\n")

    def _start_of_line(self) -> str:
        return "\r\033[K" if self._tty else ""


def _duration(seconds: float) -> str:
    """A length of time for people: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
