"""Children that cannot share a program: each is one call of a Python function, in this process or on many machines.

`train_population` is faster wherever one program serves all architectures. A farm is for the other cases, such as
layers of other sizes or graphs that grow. It runs on any `concurrent.futures.Executor` and imports no engine itself.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnas.base import Arch, Tree
from jaxnas.checkpoint.broken import first_line
from jaxnas.errors import UserError
from jaxnas.files import plain
from jaxnas.population.dispatch import Dispatcher, Submissions
from jaxnas.population.records import Child, Record, Records
from jaxnas.population.workers import Workers, in_process

__all__ = ["Farm"]


class Farm:
    """Trains children through one Python function, keeps a record of each, and has what `search` evaluates with.

    The child function stands at the top level of a module and takes `(arch, seed, config)`. It returns a dictionary of
    numbers, or of other JSON data and arrays beside them. The same arguments must give the same result: a child whose
    worker died is called again. For a search that reports origins it also takes the keywords `child_id` and `origin`,
    so that it can store its weights under its id and load those of its parent.

    Every child is accounted for:

    * One that returns has a result, and one that raises has the error as its reason.
    * One whose worker died runs again, `retries` times at most. The last time it runs alone, when all others are done
      that have more attempts left, so that no other child can be the cause. If its worker dies then, it has failed.
    * One that has a record is not trained again. With a directory that holds across processes, so a script that was
      killed and is started again trains what is missing and gets the same numbers in the same order.

    `evaluate` waits for its children; `submit` returns a future, so that a search may have several asks out at a time.
    One thread calls the farm.

    Use a farm as a context: leaving it ends the workers and whatever was submitted and is not done. After Ctrl-C, or an
    exception of `on_progress`, children that wait are cancelled, those that are done are recorded, and processes of
    `local_processes` are stopped.

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
      on_progress: `(done, total)`, called after every child, at least once a second, and before a child is blamed for
        the death of its worker. It may raise to stop the farm: `lambda done, total: run.check()` leaves when the `Run`
        it belongs to has got a signal.

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
        self._objectives, self._seed, self._on_progress = tuple(objectives), seed, on_progress
        self._records = Records(config, directory)
        self._is_inline = workers is None or workers.executor_fn is in_process().executor_fn
        self._dispatcher = Dispatcher(child_fn, config, workers or in_process(), retries, self._records)
        self._submissions = Submissions(self._dispatcher, self._records, on_progress)

    @property
    def records(self) -> dict[int, Record]:
        """The records of all children that were asked for so far, by id."""
        return self._records.by_id

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._submissions.stop()
        self._dispatcher.end_executor(wait=error is None)
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
        return self._fitness(self.train(self._children(ids, archs, origins)))

    def submit(self, ids: Any, archs: Arch, origins: Tree = None, /) -> Future:
        """The future of what `evaluate` returns: children are trained beside those of earlier calls.

        `jaxnas.run.search` takes it in place of `evaluate` and then has several asks out at a time. A thread of the
        farm hands children to the workers, writes their records and calls `on_progress` with the numbers of all
        children that were submitted since it was last idle. What `on_progress` raises, the futures raise. Without
        `workers` the children are trained before this function returns.

        Args:
          ids: the number of each child in the order of proposal, `[n]`.
          archs: architectures, leaves `[n, ...]`, lists allowed.
          origins: where each child comes from, as the search says it, leaves `[n, ...]`; None if it says nothing.

        Returns:
          A future of float64 `[n, M]`. It cannot be cancelled; leaving the context of the farm ends it with an error.

        Raises:
          UserError: a directory that another process writes to.
        """
        if self._is_inline:
            answer: Future = Future()
            answer.set_result(self.evaluate(ids, archs, origins))
            return answer
        self._records.acquire()
        return self._submissions.submit(self._children(ids, archs, origins), self._fitness)

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

        def progress():
            self._on_progress(len(children) - self._dispatcher.unfinished, len(children))

        self._records.acquire()
        if self._submissions.active:
            return self._submissions.submit(children, list).result()
        try:
            self._dispatcher.add(children)
            while self._dispatcher.unfinished:
                self._dispatcher.turn(progress)
                progress()
        except BaseException:
            self._dispatcher.abandon()
            raise
        return [self.records[child.id] for child in children]

    def _children(self, ids: Any, archs: Arch, origins: Tree) -> list[Child]:
        return [
            Child(int(number), _row(archs, place), self.seed_of(int(number)), _row(origins, place))
            for place, number in enumerate(ids)
        ]

    def _fitness(self, records: Sequence[Record]) -> np.ndarray:
        """The objectives of recorded children, `[n, M]`."""
        rows = [[_number(record, name) for name in self._objectives] for record in records]
        return np.array(rows, float).reshape(len(records), len(self._objectives))


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
