"""Where the children of a farm run: in this process, in processes beside it, or on any executor of the user's."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.base import Tree
from jaxnas.checkpoint.broken import first_line
from jaxnas.errors import UserError
from jaxnas.files import plain

__all__ = ["Ended", "Workers", "call", "in_process", "local_processes"]

_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # what schedulers and terminals send to a whole group of processes


class Workers(NamedTuple):
    """Where the children of a farm run.

    Attributes:
      executor_fn: makes an executor. The farm calls it when it first has a child to train and again when an executor
        has broken, and it shuts down every executor that it got.
      at_once: number of children that an executor is handed at a time; None for all that wait, which suits a scheduler
        with a queue. A pool of processes that breaks loses every child that it was handed.
    """

    executor_fn: Callable[[], Executor]
    at_once: int | None = None


def in_process() -> Workers:
    """One child after the other, in this process and this thread."""
    return Workers(_InProcess, 1)


def local_processes(count: int) -> Workers:
    """`count` processes on this machine, which end with the process that started them, however that ends.

    They are spawned, since JAX does not survive a fork, so a script needs the usual `if __name__ == "__main__":`. They
    inherit the environment: set `XLA_FLAGS` or `CUDA_VISIBLE_DEVICES` before the farm starts its first child. SIGTERM
    and Ctrl-C do not end them, which are for the script that started them; SIGKILL ends one.

    Raises:
      UserError: `count` is below 1.
    """
    if count < 1:
        raise UserError(f"count is {count}, expected at least 1 process")

    def start() -> Executor:
        pool = _LocalProcesses(count)
        # Calls that do nothing, one for each process, tell processes that cannot start from children that kill theirs.
        first, *_ = [pool.submit(os.getpid) for _ in range(count)]
        try:
            first.result()
        except BrokenExecutor as error:
            hint = "a script needs 'if __name__ == \"__main__\":' around its work"
            raise UserError(f"processes cannot be started: {first_line(error)}; {hint}") from None
        return pool

    return Workers(start, count + 1)  # one more than there are processes, so that none waits for the next child


class _InProcess(Executor):
    """Runs each call while it is submitted."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Process(SpawnProcess):
    """A process of a pool, which signals to a whole group of processes do not end.

    Schedulers and terminals send SIGTERM and Ctrl-C to a script and to all processes that it started. It is the script
    that decides what becomes of children, so its processes leave when it closes their pipe.
    """

    def start(self) -> None:
        # A new process has the signals blocked that are blocked here, until `_watch` handles them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """Ends the process as a pool that broke does; SIGTERM would not end it."""
        self.kill()


class _Spawn(SpawnContext):
    Process = _Process


class _LocalProcesses(ProcessPoolExecutor):
    """A pool whose processes end when this one does, and not before.

    The processes of an ordinary pool outlive their parent when it is killed, and keep it from leaving when it is asked
    to. Here each process watches a pipe whose other end only the parent holds open.
    """

    def __init__(self, count: int):
        context = _Spawn()
        theirs, self._ours = context.Pipe(duplex=False)
        super().__init__(count, context, initializer=_watch, initargs=(theirs,))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the pool; without `wait` calls that are running are stopped."""
        if not wait:
            self._ours.close()
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._ours.close()


def _watch(theirs: Connection) -> None:
    """Prepares a process of a pool: it leaves signals to the process that started it, and ends when that one does."""
    # A handler, and not SIG_IGN, which the programs that a child starts would inherit.
    for signum in _GROUP_SIGNALS:
        signal.signal(signum, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    threading.Thread(target=_end_with, args=(theirs,), daemon=True).start()


def _end_with(theirs: Connection) -> None:
    theirs.poll(None)  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)


class Ended(NamedTuple):
    """What came of one call of a child function: a result or a reason, and the wall time in seconds."""

    result: dict[str, Any] | None
    reason: str | None
    seconds: float


def call(child_fn: Callable[..., Any], arch: Tree, seed: int, config: Any, lineage: dict[str, Any]) -> Ended:
    """Calls a child function, in whatever process this is.

    What the function raises is returned as text: some errors cannot be sent between processes, and whatever an executor
    raises by itself then tells of a worker that is gone.
    """
    started = time.monotonic()
    result, reason = None, None
    try:
        found = plain(child_fn(arch, seed, config, **lineage))
        if not isinstance(found, dict):
            raise TypeError(f"the child function must return a dictionary, got {type(found).__name__}")
        # What JSON cannot hold is the fault of the child, so it is found here.
        json.dumps(found)
        result = found
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{first_line(error)} ({Path(place.filename).name}, line {place.lineno})"
    return Ended(result, reason, time.monotonic() - started)
