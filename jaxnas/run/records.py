"""`metrics.jsonl` and `timing.jsonl`: one JSON object a line, brought back in order whatever happened to them.

`metrics.jsonl` holds nothing that depends on the clock, so a resumed run writes the same bytes as an uninterrupted one;
times stand in `timing.jsonl`. A checkpoint seals the rows of its phase by their number and checksum.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.files import plain, write_text, writing
from jaxnas.standard_error import say

__all__ = ["Clock", "JsonLines"]


class _Tally(NamedTuple):
    """The rows of one phase: the step of the last one, how many there are, and the checksum of their bytes."""

    last: int = 0
    rows: int = 0
    crc32: int = 0

    def plus(self, step: int, line: bytes) -> _Tally:
        """The tally with one more row."""
        return _Tally(step, self.rows + 1, zlib.crc32(line, self.crc32))


class JsonLines:
    """A file of records `{"phase": ..., "step": ..., ...}`, one JSON object per line, phase after phase.

    Lines that are no such record, and steps that do not come after the one before, are left out when it is opened.

    Args:
      path: the file, which is made where it is missing.

    Attributes:
      order: the phases that this process has begun or passed over, in that order. It is the order of the file, with
        any other phases at its end.
    """

    def __init__(self, path: Path):
        self.order: list[str] = []
        self._path = path
        with writing(path):
            self._file = path.open("ab", buffering=0)
        self._pending: list[bytes] = []
        self._tallies: dict[str, _Tally] = {}
        self._blocks: list[str] = []  # the phases as they follow each other in the file
        try:
            self._arrange(self._read())
        except BaseException:
            self._file.close()
            raise

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one record; `metrics["phase"]` names the phase."""
        phase = metrics["phase"]
        line = json.dumps(plain({"phase": phase, "step": step, **metrics})).encode() + b"\n"
        self._pending.append(line)
        self._count(phase, step, line)

    def seal(self, phase: str) -> dict[str, int]:
        """The seal of a phase as JSON data: the number of its rows, and their checksum."""
        _, rows, crc32 = self._tallies.get(phase, _Tally())
        return {"rows": rows, "crc32": crc32}

    def holds(self, phase: str, step: int, seal: Mapping[str, Any]) -> bool:
        """Whether the rows of `phase` up to `step` are those that `seal` was made of."""
        tally = self._tallies.get(phase, _Tally())
        if tally.last > step:  # rows follow: the tally of those up to it has to be counted
            tally = _Tally()
            for number, line in self._read().get(phase, []):
                tally = tally.plus(number, line) if number <= step else tally
        return (tally.rows, tally.crc32) == (seal.get("rows"), seal.get("crc32"))

    def resume(self, phase: str, step: int) -> None:
        """Makes `phase` the next one, with its rows up to `step`; those that follow are appended."""
        if phase not in self.order:
            self.order.append(phase)
        # The file is read and written anew only if rows are to go, or if phases stand in another order than they run.
        if self._tallies.get(phase, _Tally()).last > step or self._blocks != self._in_order(self._blocks):
            groups = self._read()
            groups[phase] = [(number, line) for number, line in groups.get(phase, []) if number <= step]
            self._arrange(groups)

    def flush(self, *, sync: bool = False) -> None:
        """Hands the records to the system, and with `sync` to the disk.

        Raises:
          FileError: the disk does not take them, for example because it is full.
        """
        content, self._pending = memoryview(b"".join(self._pending)), []
        with writing(self._path):
            while content:  # the system may take a part of it
                content = content[self._file.write(content) :]
            if sync and self._path.is_file():  # the other processes of a run write to the null device
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends writing. Records that the disk does not take are those that a resumed run writes again."""
        try:
            self.flush()
        except OSError as error:
            say(str(error))
        self._file.close()

    def _read(self) -> dict[str, list[tuple[int, bytes]]]:
        """The rows of each phase with their steps."""
        self.flush()
        groups: dict[str, list[tuple[int, bytes]]] = {}
        for record, line in _lines(self._path):
            phase, step = record.get("phase"), record.get("step")
            # Rows that come twice, as after two kills, are those of the first time.
            if isinstance(phase, str) and type(step) is int and step > groups.get(phase, [(0, b"")])[-1][0]:
                groups.setdefault(phase, []).append((step, line))
        return groups

    def _arrange(self, groups: Mapping[str, list[tuple[int, bytes]]]) -> None:
        """Brings the file to these rows, in order, unless it holds just them."""
        self._tallies, self._blocks = {}, []
        rows = [(phase, *row) for phase in self._in_order(groups) for row in groups[phase]]
        for row in rows:
            self._count(*row)
        content, found = b"".join(line for *_, line in rows), self._path.read_bytes()
        if found.startswith(content):  # as after a kill: all that there may be to do is to cut off the end
            with writing(self._path):
                os.truncate(self._path, len(content)) if found != content else None
        else:  # a new file takes the place of the old one in one step
            self._file.close()
            write_text(self._path, content.decode())
            self._file = self._path.open("ab", buffering=0)

    def _count(self, phase: str, step: int, line: bytes) -> None:
        """Counts a row that stands at the end of the file."""
        self._tallies[phase] = self._tallies.get(phase, _Tally()).plus(step, line)
        if self._blocks[-1:] != [phase]:
            self._blocks.append(phase)

    def _in_order(self, phases: Iterable[str]) -> list[str]:
        """The phases, each one once, those of `order` first."""
        present = dict.fromkeys(phases)
        return [*(phase for phase in self.order if phase in present), *(p for p in present if p not in self.order)]


def _lines(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """The JSON objects of a file and their lines; half a line, which a kill can leave, and others are left out."""
    with writing(path):
        content = path.read_bytes() if path.exists() else b""
    found = []
    for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found.append((record, line))
    return found


class Clock:
    """Wall-clock time of a run over all its processes, in `timing.jsonl`; what a kill cut off is not counted.

    Times are for people: they are in no seal, and lines that cannot be read are left out, of which one line on standard
    error tells.

    Args:
      path: the file; records of earlier processes in it are counted.
    """

    def __init__(self, path: Path):
        self._path = path
        read = _lines(path)
        whole = [(record, line) for record, line in read if all(_is_time(record.get(name)) for name in _TIMES)]
        content = b"".join(line for _, line in whole)
        if path.exists() and path.read_bytes() != content:
            say(f"{path}: lines that cannot be read are left out, and their times with them")
            write_text(path, content.decode())
        self._seconds, self._compile = (sum(record[name] for record, _ in whole) for name in _TIMES)
        # What has not been recorded yet: the time since then, and the compilations in it.
        self._since, self._compiling = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """The seconds in which the run was open."""
        return self._seconds + time.monotonic() - self._since

    @property
    def compile_seconds(self) -> float:
        """The part of `seconds` that went into tracing and compiling."""
        return self._compile + self._compiling

    def compiled(self, seconds: float) -> None:
        """Counts a compilation that took so many seconds."""
        self._compiling += seconds

    def record(self, phase: str | None, step: int | None) -> None:
        """Appends the time since the last record; what a full disk does not take, the next record holds as well.

        Args:
          phase: the phase that the time went into, or None for the end of the process.
          step: the number of steps that the phase has done, or None.
        """
        now = time.monotonic()
        seconds, compiling = now - self._since, self._compiling
        times = {"phase": phase, "step": step, "seconds": seconds, "compile_seconds": compiling}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(times) + "\n")
        except OSError:
            return
        self._seconds, self._since, self._compiling = self._seconds + seconds, now, 0.0
        self._compile += compiling


_TIMES = ("seconds", "compile_seconds")


def _is_time(value: Any) -> bool:
    """Whether a value from a file can be a number of seconds."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
