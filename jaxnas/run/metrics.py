"""Metrics as rows of plain numbers, and the sinks that take them: a JSON-lines file always, TensorBoard when installed.

`metrics.jsonl` holds nothing that depends on the clock, so a resumed run writes the same bytes as an uninterrupted one;
times stand in `timing.jsonl`.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jaxnas.run.workdir import plain, write_text

__all__ = ["Clock", "JsonLines", "Row", "TensorBoard", "Writer", "has_bad_loss", "rows_of"]

Row = dict[str, Any]  # name -> number or nested list of numbers


class Writer(Protocol):
    """A sink of metrics. A writer may also have `close()`."""

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics after `step` steps; `metrics["phase"]` names the phase."""
        ...


def rows_of(infos: Any, count: int) -> list[Row]:
    """Cuts stacked infos into one row per step.

    Args:
      infos: pytree of arrays `[n, ...]` with `n >= count`.
      count: number of rows.

    Returns:
      Rows of Python numbers (lists of them for leaves that are not scalars) named by tree path, `grads/norm`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(infos))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "value" for path, _ in leaves]
    columns = [_numbers(np.asarray(leaf)[:count]) for _, leaf in leaves]
    return [{name: column[i] for name, column in zip(names, columns, strict=True)} for i in range(count)]


def _numbers(array: np.ndarray) -> list[Any]:
    return array.tolist() if array.dtype.kind in "biuf" else array.astype(np.float32).tolist()  # bfloat16


def has_bad_loss(row: Row) -> bool:
    """Whether an entry whose name ends in `loss` is NaN or infinite."""
    losses = [value for name, value in row.items() if name.endswith("loss")]
    return not all(np.isfinite(np.asarray(value, np.float64)).all() for value in losses)


class JsonLines:
    """An append-only file of records `{"phase": ..., "step": ..., ...}`, one JSON object per line."""

    def __init__(self, path: Path):
        self._path = path
        self._last: dict[str, int] = {}
        for record in _records(path):
            self._last[record["phase"]] = record["step"]
        self._file = path.open("a")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one record; `metrics` holds the phase."""
        self._file.write(json.dumps(plain({"phase": metrics["phase"], "step": step, **metrics})) + "\n")
        self._last[metrics["phase"]] = step

    def truncate(self, phase: str, step: int) -> None:
        """Drops the records of `phase` that are later than `step`."""
        if self._last.get(phase, 0) <= step:
            return
        self._file.close()
        records = [(json.loads(line), line) for line in self._path.read_text().splitlines(keepends=True)]
        kept = [line for record, line in records if record["phase"] != phase or record["step"] <= step]
        write_text(self._path, "".join(kept))
        self._last[phase] = step
        self._file = self._path.open("a")

    def flush(self, *, sync: bool = False) -> None:
        """Hands the records to the system, and with `sync` to the disk."""
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends writing."""
        self._file.close()


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; half a line at its end, which a kill can leave, is cut off."""
    content = path.read_text() if path.exists() else ""
    whole = content[: content.rfind("\n") + 1]
    if whole != content:
        write_text(path, whole)
    return [json.loads(line) for line in whole.splitlines()]


class TensorBoard:
    """Scalars as TensorBoard events, one run per phase; does nothing where tensorboardX is missing or fails."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._writers: dict[str, Any] = {}

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes the scalars among `metrics`; a resumed phase hides what it repeats."""
        phase = metrics["phase"]
        if phase not in self._writers:
            self._writers[phase] = _summary_writer(self._directory / phase, step)
        for name, value in metrics.items() if self._writers[phase] else ():
            if isinstance(value, int | float) and math.isfinite(value):
                self._writers[phase].add_scalar(name, value, step)

    def close(self) -> None:
        """Ends writing."""
        for writer in filter(None, self._writers.values()):
            writer.close()


def _summary_writer(directory: Path, step: int) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensorboardX import SummaryWriter

            return SummaryWriter(str(directory), purge_step=step)
    except Exception:
        return None


class Clock:
    """Wall-clock time of a run over all its processes, kept in `timing.jsonl`; what a kill cut off is not counted."""

    def __init__(self, path: Path):
        self._path = path
        records = _records(path)
        self._seconds = sum(record["seconds"] for record in records)
        self._compile = sum(record["compile_seconds"] for record in records)
        self._since, self._compiling = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """Seconds in which the run was open."""
        return self._seconds + time.monotonic() - self._since

    @property
    def compile_seconds(self) -> float:
        """Seconds of those spent in tracing and compiling."""
        return self._compile + self._compiling

    def compiled(self, seconds: float) -> None:
        """Counts a compilation."""
        self._compiling += seconds

    def record(self, phase: str | None, step: int | None) -> None:
        """Appends the time since the last record."""
        now = time.monotonic()
        seconds, compiling = now - self._since, self._compiling
        times = {"phase": phase, "step": step, "seconds": seconds, "compile_seconds": compiling}
        with self._path.open("a") as file:
            file.write(json.dumps(times) + "\n")
        self._seconds, self._compile, self._since, self._compiling = (
            self._seconds + seconds,
            self.compile_seconds,
            now,
            0.0,
        )
