"""Children that cannot share a program: each is one call of a Python function, in this process or on many machines.

`train_population` is faster wherever one program serves all architectures. A farm is for the other cases, such as
layers of other sizes or graphs that grow. It runs on any `concurrent.futures.Executor` and imports no engine itself.
"""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnas.base import Arch, Tree
from jaxnas.checkpoint.broken import first_line
from jaxnas.errors import UserError
from jaxnas.files import plain
from jaxnas.population.records import Child, Record, Records
from jaxnas.population.workers import Ended, Workers, call, in_process

__all__ = ["Farm"]

POLL_SECONDS = 0.5  # the longest wait for children between two calls of `on_progress`


class Farm:
    """Trains children through one Python function, keeps a record of each, and has an `evaluate` for `search`.

    The child function stands at the top level of a module and takes `(arch, seed, config)`. It returns a dictionary of
    numbers, or of other JSON data and arrays beside them. The same arguments must give the same result: a child whose
    worker died is called again. For a search that reports origins it also takes the keywords `child_id` and `origin`,
    so that it can store its weights under its id and load those of its parent.

    Every child is accounted for:

    * One that returns has a result, and one that raises has the error as its reason.
    * One whose worker died runs again, `retries` times at most; the last time it runs alone, so that no other child can
      be the cause. Then the death of its workers is its reason.
    * One that has a record is not trained again. With a directory that holds across processes, so a script that was
      killed and is started again trains what is missing and gets the same numbers in the same order.

    Use a farm as a context: leaving it ends the workers. After Ctrl-C, or an exception of `on_progress`, children that
    wait are cancelled, those that are done are recorded, and processes of `local_processes` are stopped.

    Args:
      child_fn: the child function.
      objectives: names of the numbers in a child's result that are its fitness, in this order; all are minimised.
      config: JSON data that every child gets. A record made with another config is refused.
      seed: makes the seeds of the children, one for each id, so that an architecture that is proposed twice is trained
        with two seeds.
      workers: where the children run.
      directory: the folder of the records, one file `child_<id>.json` each, that this object alone writes to. None
        keeps records in memory only.
      retries: number of times that a child whose worker died is run again, at least 0. With 0 children run one after
        another, since the first attempt is the last one, too.
      on_progress: `(done, total)`, called after every child and at least once a second. It may raise to stop the farm:
        `lambda done, total: run.check()` leaves when the `Run` it belongs to has got a signal.

    Raises:
      UserError: a child function that other processes cannot import, no objective, or a setting out of range.

    Example:
      >>> from jaxnas.population import Farm
      >>> def child(arch, seed, config):
      ...     return {"error": sum(arch["layer"]) / config["scale"], "macs": 10}
      >>> with Farm(child, ("error", "macs"), config={"scale": 2}) as farm:
      ...     fitness = farm.evaluate([0, 1], {"layer": np.array([[0, 1], [2, 2]])})
      >>> fitness.tolist()
      [[0.5, 10.0], [2.0, 10.0]]
    """

    def __init__(
        self,
        child_fn: Callable[..., Mapping[str, Any]],
        objectives: Sequence[str],
        *,
        config: Any = None,
        seed: int = 0,
        workers: Workers | None = None,
        directory: str | Path | None = None,
        retries: int = 2,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ):
        _check(child_fn, objectives, config, sent=workers is not None)
        if retries < 0 or seed < 0:
            raise UserError(f"retries and seed must not be negative, got {retries} and {seed}")
        if workers is not None and workers.at_once is not None and workers.at_once < 1:
            raise UserError(f"workers: at_once is {workers.at_once}, expected at least 1 child or None for all")
        self._child_fn, self._objectives = child_fn, tuple(objectives)
        self._config, self._seed, self._retries, self._on_progress = config, seed, retries, on_progress
        self._executor_fn, self._at_once = workers or in_process()
        self._executor: Executor | None = None
        self._records = Records(config, directory)

    @property
    def records(self) -> dict[int, Record]:
        """The records of all children that were asked for so far, by id."""
        return self._records.by_id

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._end_executor(wait=error is None)
        self._records.release()

    def evaluate(self, ids: Any, archs: Arch, origins: Tree = None, /) -> np.ndarray:
        """The fitness of proposed children, in the form that `jaxnas.run.search` asks for.

        Args:
          ids: the number of each child in the order of proposal, `[n]`.
          archs: architectures, leaves `[n, ...]`, lists allowed.
          origins: where each child comes from, as the search says it, leaves `[n, ...]`; None if it says nothing.

        Returns:
          The objectives as float64 `[n, M]`, in the order of `ids`. The row of a child that failed is NaN.

        Raises:
          UserError: a result without one of the objectives, or a record of another child or config.
        """
        children = [
            Child(int(number), _row(archs, place), self.seed_of(int(number)), _row(origins, place))
            for place, number in enumerate(ids)
        ]
        rows = [[_number(record, name) for name in self._objectives] for record in self.train(children)]
        return np.array(rows, float).reshape(len(children), len(self._objectives))

    def seed_of(self, child_id: int) -> int:
        """The seed of a child, an integer from 0 to 2^31 - 1."""
        return int(np.random.SeedSequence((self._seed, child_id)).generate_state(1)[0] >> 1)

    def train(self, children: Sequence[Child]) -> list[Record]:
        """Trains the children that have no record yet.

        Args:
          children: any number of children with different ids, in any order.

        Returns:
          One record for each child, in the order of `children`.

        Raises:
          UserError: a record of another child or config, or a directory that another process writes to.
        """
        self._records.acquire()
        waiting = {child.id: child for child in children if child not in self._records}
        running: dict[Future, tuple[Child, Executor]] = {}
        losses: Counter[int] = Counter()
        try:
            # Start what may start, wait until something ends, and record it or queue it again.
            while waiting or running:
                for child in self._startable(list(waiting.values()), len(running), losses):
                    future, executor = self._submit(waiting.pop(child.id))
                    running[future] = child, executor
                ended = wait(running, POLL_SECONDS, FIRST_COMPLETED).done
                for future in [future for future in running if future in ended]:  # in the order of starting
                    child, executor = running.pop(future)
                    if not self._settle(child, future, executor, losses):
                        waiting[child.id] = child
                self._on_progress(len(children) - len(waiting) - len(running), len(children))
        except BaseException:
            self._abandon(running, losses)
            raise
        return [self.records[child.id] for child in children]

    def _startable(self, waiting: list[Child], num_running: int, losses: Counter[int]) -> list[Child]:
        """The waiting children that may start now."""
        # A child that was lost before has its last attempt alone: if its worker dies again, the child is to blame.
        beside_others = [child for child in waiting if losses[child.id] < self._retries]
        if beside_others:
            return beside_others if self._at_once is None else beside_others[: max(self._at_once - num_running, 0)]
        return [] if num_running else waiting[:1]

    def _submit(self, child: Child) -> tuple[Future, Executor]:
        if self._executor is None:
            self._executor = self._executor_fn()
        lineage = {} if child.origin is None else {"child_id": child.id, "origin": child.origin}
        try:
            future = self._executor.submit(call, self._child_fn, child.arch, child.seed, self._config, lineage)
        except BrokenExecutor as error:  # the pool broke after the last child was settled
            future = Future()
            future.set_exception(error)
        return future, self._executor

    def _settle(self, child: Child, future: Future, executor: Executor, losses: Counter[int]) -> bool:
        """Records a child whose call has ended; False if its worker died and the child is to run again."""
        error = _error(future)
        if error is None:
            self._records.add(child, future.result(), losses[child.id] + 1)
            return True
        # `call` returns what a child raises, so this error is the executor's word on a worker that is gone.
        losses[child.id] += 1
        if isinstance(error, BrokenExecutor) and executor is self._executor:
            self._end_executor(wait=False)
        # It runs again as long as it has attempts left.
        if losses[child.id] <= self._retries:
            return False
        reason = f"no worker brought it to an end in {losses[child.id]} attempts; the last one: {first_line(error)}"
        self._records.add(child, Ended(None, reason, 0.0), losses[child.id])
        return True

    def _abandon(self, running: Mapping[Future, tuple[Child, Executor]], losses: Counter[int]) -> None:
        """Cancels what has not started and records what has ended meanwhile."""
        ended = [future for future in running if not future.cancel() and future.done() and _error(future) is None]
        self._end_executor(wait=False)
        for future in ended:
            child, _ = running[future]
            self._records.add(child, future.result(), losses[child.id] + 1)

    def _end_executor(self, *, wait: bool) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=wait)


def _error(future: Future) -> BaseException | None:
    """The error with which an executor gave up a call that has ended; None if the call was made."""
    return CancelledError() if future.cancelled() else future.exception()


def _row(tree: Tree, place: int) -> Tree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[place], tree, is_leaf=lambda node: isinstance(node, list))


def _number(record: Record, name: str) -> float:
    """One objective of a child: NaN if the child failed."""
    if record.result is None:
        return math.nan
    try:
        return float(record.result[name])
    except (KeyError, TypeError, ValueError):
        found = ", ".join(record.result) or "nothing"
        raise UserError(f"objectives: child {record.child['id']} has no number {name!r}, it has {found}") from None


def _check(child_fn: Callable[..., Any], objectives: Sequence[str], config: Any, *, sent: bool) -> None:
    """Raises `UserError` for arguments that could not be sent to a worker or recorded."""
    if not objectives or isinstance(objectives, str):
        raise UserError(f"objectives must be a sequence of names, at least one, got {objectives!r}")
    try:
        json.dumps(plain(config))
    except (TypeError, ValueError) as error:
        raise UserError(f"config must be JSON data: {error}") from None
    try:
        pickle.dumps(child_fn) if sent else None
    except Exception as error:
        raise UserError(f"child_fn must be a function at the top level of a module: {first_line(error)}") from None
