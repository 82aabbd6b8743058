"""Curves for TensorBoard, where tensorboardX is installed."""

from __future__ import annotations

import math
import os
import socket
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxnas.standard_error import say

__all__ = ["TensorBoard"]

FLUSH_SECONDS = 10.0  # between two times that curves reach the disk


class TensorBoard:
    """Writes scalars as TensorBoard events, one run of TensorBoard per phase; idle where tensorboardX is missing.

    Events are written here and not by tensorboardX's thread: when that thread dies, on a full disk, its queue fills and
    the search would wait for ever. What goes wrong ends the curves with one line on standard error, and never the
    search.

    Args:
      directory: the folder that TensorBoard is pointed at; every phase gets a folder in it.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._files: dict[str, Any] = {}
        self._usable = True
        self._flushed = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes the scalars among `metrics`; a resumed phase hides what it repeats."""
        if not self._usable:
            return
        # TensorBoard draws finite scalars alone; names, lists and NaN stay in `metrics.jsonl`.
        numbers = {
            name: value for name, value in metrics.items() if isinstance(value, int | float) and math.isfinite(value)
        }
        try:
            self._write(metrics["phase"], step, numbers)
        except ImportError:
            self._usable = False
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Closes the files of all phases."""
        files, self._files = list(self._files.values()), {}
        for file in files:
            try:
                file.close()
            except Exception as error:
                self._give_up(error)

    def _write(self, phase: str, step: int, numbers: Mapping[str, float]) -> None:
        """Appends one event with these numbers to the file of the phase."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if phase not in self._files:
            self._files[phase] = _events(self._directory / phase, step)
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])
        self._files[phase].write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._files[phase].flush()
            self._flushed = time.monotonic()

    def _give_up(self, error: Exception) -> None:
        """Ends the curves; only the first error is told."""
        if self._usable:
            say(f"no more curves in {self._directory}: {error}")
        self._usable = False
        self.close()


def _events(directory: Path, step: int) -> Any:
    """Opens a file of events, for whose sake TensorBoard hides what former files hold from `step` on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboardX warns of what it itself imports
        import tensorboardX
        from tensorboardX.proto.event_pb2 import Event, SessionLog

    directory.mkdir(parents=True, exist_ok=True)
    file = tensorboardX.record_writer.RecordWriter(
        str(directory / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}")
    )
    # Every file opens with its version; the start of a session at `step` is what hides the rest of former files.
    for opening in ({"file_version": "brain.Event:2"}, {"session_log": SessionLog(status=SessionLog.START)}):
        file.write(Event(wall_time=time.time(), step=step, **opening).SerializeToString())
    return file
