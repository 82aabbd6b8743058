"""How a farm has its children trained: handed to an executor, recorded, and run again where a worker died.

`Dispatcher` does it turn by turn in the thread that asks. `Submissions` takes turns in a thread beside it, for as long
as there is work, so that children can be submitted while others are trained.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any, NamedTuple

from jaxnas.checkpoint.broken import first_line
from jaxnas.errors import UserError
from jaxnas.population.records import Child, Record, Records
from jaxnas.population.workers import Ended, Workers, call

__all__ = ["Dispatcher", "Submissions"]

POLL_SECONDS = 0.5  # the longest turn, so that `on_progress` is called at least once a second


class Dispatcher:
    """The children that are to be trained, those that are, and the executor. Only one thread uses it at a time.

    Args:
      child_fn: the child function of the farm.
      config: JSON data that every child gets.
      workers: where the children run.
      retries: number of times that a child whose worker died is run again.
      records: where it is written what became of a child.
    """

    def __init__(
        self, child_fn: Callable[..., Any], config: Any, workers: Workers, retries: int, records: Records
    ) -> None:
        self._child_fn, self._config, self._retries, self._records = child_fn, config, retries, records
        self._executor_fn, self._at_once = workers
        self._executor: Executor | None = None
        self._waiting: dict[int, Child] = {}
        self._running: dict[Future, tuple[Child, Executor]] = {}
        self._losses: Counter[int] = Counter()

    @property
    def unfinished(self) -> int:
        """The number of children that have been added and have no record yet."""
        return len(self._waiting) + len(self._running)

    def add(self, children: Sequence[Child]) -> None:
        """Has children trained in the turns to come, except those that have a record or were added before.

        Raises:
          UserError: a record of another child or config.
        """
        missing = [child for child in children if child not in self._records]
        known = {child.id for child, _ in self._running.values()}
        self._waiting |= {child.id: child for child in missing if child.id not in known}

    def turn(self, on_loss: Callable[[], None], *bells: Future) -> None:
        """Starts what may start, waits until a child or a bell has ended, and records what became of the children.

        Args:
          on_loss: called when there is no executor to be had, or a worker is gone, and nothing is recorded of it yet.
            What it raises ends the turn: a signal to a whole group of processes ends workers, too.
          *bells: futures that end the wait.
        """
        for child in self._startable():
            future, executor = self._submit(self._waiting.pop(child.id), on_loss)
            self._running[future] = child, executor
        done = wait([*self._running, *bells], POLL_SECONDS, FIRST_COMPLETED).done
        ended = [future for future in self._running if future in done]  # in the order of starting
        if any(_error(future) is not None for future in ended):
            on_loss()
        for future in ended:
            child, executor = self._running.pop(future)
            if not self._settle(child, future, executor):
                self._waiting[child.id] = child

    def abandon(self) -> None:
        """Cancels what has not started, ends the executor, and records what has ended meanwhile."""
        running, self._running, self._waiting = self._running, {}, {}
        ended = [future for future in running if not future.cancel() and future.done() and _error(future) is None]
        self.end_executor(wait=False)
        for future in ended:
            child, _ = running[future]
            self._records.add(child, future.result(), self._losses[child.id] + 1)
        self._losses.clear()

    def end_executor(self, *, wait: bool) -> None:
        """Shuts the executor down, if there is one; the next child that starts makes a new one."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=wait)

    def _startable(self) -> list[Child]:
        """The waiting children that may start now."""
        # A child has its last attempt alone: if its worker dies then, the child is to blame.
        if any(self._is_last_attempt(child) for child, _ in self._running.values()):
            return []
        waiting = list(self._waiting.values())
        beside_others = [child for child in waiting if not self._is_last_attempt(child)]
        if beside_others:
            free = len(waiting) if self._at_once is None else max(self._at_once - len(self._running), 0)
            return beside_others[:free]
        return [] if self._running else waiting[:1]

    def _is_last_attempt(self, child: Child) -> bool:
        """Whether the attempt that the child has now, or the next one if it waits, is its last one."""
        return self._losses[child.id] >= self._retries

    def _submit(self, child: Child, on_loss: Callable[[], None]) -> tuple[Future, Executor]:
        if self._executor is None:
            try:
                self._executor = self._executor_fn()
            except Exception:
                on_loss()
                raise
        lineage = {} if child.origin is None else {"child_id": child.id, "origin": child.origin}
        try:
            future = self._executor.submit(call, self._child_fn, child.arch, child.seed, self._config, lineage)
        except BrokenExecutor as error:  # the pool broke after the last child was settled
            future = Future()
            future.set_exception(error)
        return future, self._executor

    def _settle(self, child: Child, future: Future, executor: Executor) -> bool:
        """Records a child whose call has ended; False if its worker died and the child is to run again."""
        error, losses = _error(future), self._losses
        if error is None:
            self._records.add(child, future.result(), losses[child.id] + 1)
            return True
        # `call` returns what a child raises, so this error is the executor's word on a worker that is gone.
        losses[child.id] += 1
        if isinstance(error, BrokenExecutor) and executor is self._executor:
            self.end_executor(wait=False)
        # It runs again as long as it has attempts left.
        if losses[child.id] <= self._retries:
            return False
        reason = f"no worker brought it to an end in {losses[child.id]} attempts; the last one: {first_line(error)}"
        self._records.add(child, Ended(None, reason, 0.0), losses[child.id])
        return True


class Submissions:
    """Lets a dispatcher work in a thread of its own, which ends when every child that was submitted has a record.

    The dispatcher and the records belong to that thread as long as `active` is true.

    Args:
      dispatcher: what trains the children.
      records: the records that it writes.
      on_progress: `(done, total)` of the children that were submitted since the thread was started.
    """

    def __init__(self, dispatcher: Dispatcher, records: Records, on_progress: Callable[[int, int], None]):
        self._dispatcher, self._records, self._on_progress = dispatcher, records, on_progress
        self._lock = threading.Lock()  # held around the four attributes below, which both threads use
        self._new: dict[Future, _Submission] = {}
        self._bell: Future = Future()  # ends when there is something to look at
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._total = 0  # children that were submitted since the thread was started

    @property
    def active(self) -> bool:
        """Whether the thread is at work."""
        with self._lock:
            return self._thread is not None

    def submit(self, children: Sequence[Child], answer_fn: Callable[[list[Record]], Any]) -> Future:
        """Has children trained beside those that were submitted before.

        Returns:
          A future of `answer_fn(records)`, with one record for each child in the order of `children`. It cannot be
          cancelled. It has an error where `answer_fn` or `on_progress` raises, where a record is that of another child,
          and where the farm is left.
        """
        answer: Future = Future()
        answer.set_running_or_notify_cancel()
        with self._lock:
            self._new[answer] = _Submission(children, answer_fn)
            self._ring()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        return answer

    def stop(self) -> None:
        """Ends the thread: children that wait are cancelled, those that are done recorded, and futures get an error."""
        with self._lock:
            self._stopped, thread = True, self._thread
            self._ring()
        if thread is not None:
            thread.join()
        self._stopped = False

    def _ring(self) -> None:
        if not self._bell.done():
            self._bell.set_result(None)

    def _work(self) -> None:
        """The thread: turn after turn until nothing is left to do. What raises becomes the error of all futures."""
        unanswered: dict[Future, _Submission] = {}
        self._total = 0
        while True:
            # The thread ends under the lock, so that nothing is submitted to a thread that is about to end.
            with self._lock:
                new, stopped = self._new, self._stopped
                self._new, self._bell = {}, Future()
                if not (new or unanswered):
                    self._thread = None
                    return
            unanswered |= new
            try:
                if stopped:
                    raise CancelledError("the farm was left before these children were trained")
                self._turn(unanswered, new)
            except BaseException as error:
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    self._dispatcher.abandon()
                for answer in unanswered:
                    answer.set_exception(error)
                unanswered.clear()
                self._total = 0

    def _turn(self, unanswered: dict[Future, _Submission], new: dict[Future, _Submission]) -> None:
        """One turn of the dispatcher, and the answers to those submissions whose children all have a record."""
        for answer, submission in new.items():
            try:
                self._dispatcher.add(submission.children)
                self._total += len(submission.children)
            except UserError as error:
                del unanswered[answer]
                answer.set_exception(error)
        self._answer(unanswered)
        if unanswered:
            self._dispatcher.turn(self._progress, self._bell)
            self._answer(unanswered)
            self._progress()

    def _progress(self) -> None:
        self._on_progress(self._total - self._dispatcher.unfinished, self._total)

    def _answer(self, unanswered: dict[Future, _Submission]) -> None:
        known = self._records.by_id
        for answer, (children, answer_fn) in list(unanswered.items()):
            if all(child.id in known for child in children):
                del unanswered[answer]
                try:
                    answer.set_result(answer_fn([known[child.id] for child in children]))
                except UserError as error:
                    answer.set_exception(error)


class _Submission(NamedTuple):
    """Children that were submitted together, and what is made of their records."""

    children: Sequence[Child]
    answer_fn: Callable[[list[Record]], Any]


def _error(future: Future) -> BaseException | None:
    """The error with which an executor gave up a call that has ended; None if the call was made."""
    return CancelledError() if future.cancelled() else future.exception()
