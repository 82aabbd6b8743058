"""Asks of a search that are out: their children were proposed and are being evaluated, and nothing was told of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from jaxnas.base import Arch, Tree
from jaxnas.errors import UserError

__all__ = ["Evaluate", "InFlight", "Order", "Outstanding"]

Order = Literal["proposal", "arrival"]

POLL_SECONDS = 0.2  # the longest wait for fitness between two looks at signals


class Evaluate(Protocol):
    """Gives every proposed architecture its fitness: `(ids, archs, origins) -> fitness[n, M]`, minimised.

    Weights stay with the evaluator, under the id of the child they belong to. A resumed search may ask again for
    children that were evaluated before it was killed: the same ids and architectures must then give the same fitness.
    """

    def __call__(self, ids: np.ndarray, archs: Arch, origins: Tree, /) -> Any:
        """Evaluates `n` children.

        Args:
          ids: int64 `[n]`, the place of each child in the order of proposal, from 0.
          archs: architectures as numpy arrays, leaves `[n, E]`.
          origins: what `BlackBox.origins` says of the children, leaves `[n, ...]`; None for a search without it.

        Returns:
          Numbers `[n, M]`, or a `concurrent.futures.Future` of them, as `Farm.submit` returns it: a search with
          `in_flight` above 1 then makes its next asks while these children are evaluated. A row that is not finite
          stands for a child that failed: it never wins.
        """
        ...


class Outstanding(NamedTuple):
    """The `m` children that were proposed and not yet told, in the order of proposal, as numpy arrays.

    Attributes:
      asks: int64 `[m]`, the number of the ask that proposed the child, from 0.
      ids: int64 `[m]`, the place of the child in the order of proposal, from 0.
      archs: architectures, leaves `[m, E]`.
      origins: what `BlackBox.origins` said after the ask, leaves `[m, ...]`; None for a search without it.
    """

    asks: np.ndarray
    ids: np.ndarray
    archs: Arch
    origins: Tree

    @property
    def numbers(self) -> list[int]:
        """The numbers of the asks that are out, the oldest first."""
        return np.unique(self.asks).tolist()

    def of(self, ask: int) -> Outstanding:
        """The children of one ask."""
        return jax.tree.map(lambda leaf: leaf[self.asks == ask], self)

    def without(self, ask: int) -> Outstanding:
        """The children of all other asks."""
        return jax.tree.map(lambda leaf: leaf[self.asks != ask], self)


class _Call:
    """One call of the evaluator: its fitness, now or later, and the time that it takes."""

    def __init__(self, evaluate: Evaluate, children: Outstanding):
        self._begun = time.monotonic()
        self._ended: float | None = None
        answer = evaluate(children.ids, children.archs, children.origins)
        # Fitness that is there at once becomes a future that has ended.
        self.future: Future = answer if isinstance(answer, Future) else Future()
        if self.future is not answer:
            self.future.set_result(answer)
        self.future.add_done_callback(self._end)

    def _end(self, future: Future) -> None:
        del future
        self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time until the fitness was there; until now where the callback has not run yet."""
        return (self._ended or time.monotonic()) - self._begun


class InFlight:
    """Has asks evaluated and gives their fitness one ask after the other.

    Args:
      evaluate: the evaluator of the search.
      order: which ask is next: with `"proposal"` the oldest one; with `"arrival"` the first that is ready, and of
        several the oldest.
      check: called while nothing is ready; raises when the search has to stop.
    """

    def __init__(self, evaluate: Evaluate, order: Order, check: Callable[[], None]):
        self._evaluate, self._order, self._check = evaluate, order, check
        self._calls: dict[int, _Call] = {}

    def submit(self, outstanding: Outstanding) -> None:
        """Calls the evaluator for every ask that this process has not handed to it yet, the oldest first."""
        for ask in outstanding.numbers:
            if ask not in self._calls:
                self._calls[ask] = _Call(self._evaluate, outstanding.of(ask))

    def next(self, outstanding: Outstanding) -> tuple[int, np.ndarray, float]:
        """Waits for the ask that is to be told next.

        Returns:
          The number of the ask, the fitness of its children as float64 `[n, M]`, and the seconds that it took.

        Raises:
          UserError: fitness of another shape.
        """
        oldest, *others = outstanding.numbers
        ready = self._wait([oldest] if self._order == "proposal" else [oldest, *others])
        call, num = self._calls.pop(ready), len(outstanding.of(ready).ids)
        fitness = np.asarray(call.future.result(), np.float64)
        if fitness.ndim != 2 or len(fitness) != num or not fitness.shape[1]:
            raise UserError(f"evaluate must return fitness of shape ({num}, objectives), got {fitness.shape}")
        return ready, fitness, call.seconds

    def cancel(self) -> None:
        """Cancels the calls that have not begun, since nobody will be told of them."""
        for call in self._calls.values():
            call.future.cancel()

    def _wait(self, asks: list[int]) -> int:
        """The first of these asks whose fitness is ready."""
        futures = [self._calls[ask].future for ask in asks]
        while not any(future.done() for future in futures):
            wait(futures, POLL_SECONDS, FIRST_COMPLETED)
            self._check()
        return next(ask for ask in asks if self._calls[ask].future.done())
