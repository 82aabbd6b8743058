"""The history of a black-box search: all of its children, in memory and as a file of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxnas.base import Arch, Tree
from jaxnas.checkpoint import is_writer
from jaxnas.errors import UserError
from jaxnas.files import plain, write_text, writing

__all__ = ["History", "HistoryFile", "by_id", "join", "read_history"]


class History(NamedTuple):
    """All `T` children of a search in the order of proposal, as numpy arrays.

    Attributes:
      ids: int64 `[T]`, counted from 0.
      archs: architectures, leaves `[T, E]`.
      fitness: float64 `[T, M]`, the numbers of the evaluator as they were.
      origins: what `BlackBox.origins` said, leaves `[T, ...]`; None for a search without it.
      seconds: float64 `[T]`, wall time from the call of the evaluator that the child was part of until its fitness was
        there, divided by the number of children of that call. With several asks out this includes the time in which the
        child waited for a worker. For a child that was out when the search was killed it is the time of the second
        call, which is short where the evaluator has kept the result; the records of a `Farm` hold the time that each
        child itself took. With `order="proposal"` no other field of a resumed search differs from those of a search
        that was never stopped; with `order="arrival"` any of them may, as between two searches that were not.
      told: int64 `[T]`, place of the child in the order in which children were told to the search, from 0. It differs
        from `ids` only in a search with `order="arrival"`.
    """

    ids: np.ndarray
    archs: Arch
    fitness: np.ndarray
    origins: Tree
    seconds: np.ndarray
    told: np.ndarray

    @property
    def good(self) -> np.ndarray:
        """Which children have a fitness that is finite in every objective: bool `[T]`."""
        return np.isfinite(self.fitness).all(-1)


def join(earlier: Tree, later: Tree, num_earlier: int) -> Tree:
    """Two pytrees of arrays `[n, ...]` one after the other. What has no rows yet need not know their shape."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), earlier, later) if num_earlier else later


def by_id(history: History) -> History:
    """The same children in the order of proposal."""
    order = np.argsort(history.ids, kind="stable")
    return jax.tree.map(lambda leaf: leaf[order], history)


def read_history(path: str | Path) -> History:
    """Reads a file that `search` has written, for example to draw it.

    Args:
      path: the file `history/<name>.jsonl` in a work directory. Its lines stand in the order in which children were
        told.

    Returns:
      The children that stand in it, the same numbers as those of `search`.

    Raises:
      UserError: there is no such file, or a line of it is not that of a child.
    """
    try:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        stacked = jax.tree.map(lambda *values: np.array(values), *rows, is_leaf=lambda node: isinstance(node, list))
        fitness = np.array([[float(value) for value in row["fitness"]] for row in rows])  # JSON has NaN as text
        columns = stacked["id"], stacked["arch"], fitness, stacked.get("origin"), stacked["seconds"]
        return by_id(History(*columns, np.arange(len(rows))))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"history {path} cannot be read: {error}") from None


class HistoryFile:
    """The history of a search as JSON lines in the order of telling.

    A file that a kill has torn is made again from the state of the search.

    Args:
      path: the file.
    """

    def __init__(self, path: Path):
        self._path, self._begun = path, False

    def begin(self, history: History) -> None:
        """Writes the file anew with what a run starts from; without effect from the second call on."""
        if not self._begun and is_writer():
            write_text(self._path, _lines(history))
        self._begun = True

    def append(self, children: History) -> None:
        """Adds the children of one ask."""
        if is_writer():
            with writing(self._path), self._path.open("a") as file:
                file.write(_lines(children))


def _lines(history: History) -> str:
    """One JSON object for each child."""
    lines = []
    for number in range(len(history.ids)):
        child = jax.tree.map(lambda leaf, number=number: leaf[number], history)
        row = {"id": child.ids, "arch": child.archs, "fitness": child.fitness}
        row |= {} if child.origins is None else {"origin": child.origins}
        lines.append(json.dumps(plain({**row, "seconds": child.seconds})) + "\n")
    return "".join(lines)
