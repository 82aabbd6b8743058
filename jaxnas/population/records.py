"""The records of a farm: one for each child, in memory and, if wanted, in a file that is never half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.base import Arch, Tree
from jaxnas.checkpoint import Owner
from jaxnas.files import differences, plain, read_sealed, refuse, write_sealed
from jaxnas.population.workers import Ended
from jaxnas.standard_error import say

__all__ = ["Child", "Record", "Records"]


class Child(NamedTuple):
    """One network to be trained and judged.

    Attributes:
      id: place of the child in the order of proposal, counted from 0.
      arch: architecture of the child, a pytree of numpy arrays or lists.
      seed: the seed of everything random in its training, an integer from 0 to 2^31 - 1.
      origin: where the child comes from, in the form of the search; None for a search that says nothing of it.
    """

    id: int
    arch: Arch
    seed: int
    origin: Tree = None


class Record(NamedTuple):
    """What became of one child: a result, or the reason why there is none.

    Attributes:
      child: `id`, `arch`, `seed` and `origin` of the child, and the `config` of the farm, as JSON data.
      result: what the child function returned, as JSON data; None for a child that failed.
      reason: why the child failed, in one line; None for one that did not.
      seconds: wall time of the call that ended, in the process that made it; 0 if the workers of all calls died.
      attempts: number of times that the child was handed to a worker, at least 1.
    """

    child: dict[str, Any]
    result: dict[str, Any] | None
    reason: str | None
    seconds: float
    attempts: int


class Records:
    """The records of one farm, which alone writes to its directory.

    Args:
      config: JSON data that the farm hands to every child; a record that was made with other data is refused.
      directory: the folder of the files `child_<id>.json`; None keeps records in memory only.
    """

    def __init__(self, config: Any, directory: str | Path | None):
        self.by_id: dict[int, Record] = {}
        self._config = config
        self._directory = None if directory is None else Path(directory).absolute()
        self._owner = None if self._directory is None else Owner(self._directory, "farm")

    def acquire(self) -> None:
        """Becomes the writer of the directory; refused while another object or process is."""
        if self._owner is not None:
            self._owner.acquire()

    def release(self) -> None:
        """Gives the directory back."""
        if self._owner is not None:
            self._owner.release()

    def __contains__(self, child: Child) -> bool:
        """Whether the child has a record. A file that is damaged costs a line on standard error and does not count.

        Raises:
          UserError: the record is that of another child, or of another config.
        """
        record, file = self.by_id.get(child.id), self._file(child.id)
        # A record of an earlier process is read from its file.
        if record is None and file is not None and file.exists():
            content = read_sealed(file)
            if content is None:
                say(f"{file} is damaged: child {child.id} is trained again")
                return False
            record = Record(**content)
        if record is None:
            return False
        refuse(str(file or f"record {child.id}"), "child", differences(record.child, self._identity(child)))
        self.by_id[child.id] = record
        return True

    def add(self, child: Child, ended: Ended, attempts: int) -> None:
        """Records what became of a child."""
        record = Record(self._identity(child), *ended, attempts)
        file = self._file(child.id)
        if file is not None:
            write_sealed(file, record._asdict())
        self.by_id[child.id] = record

    def _identity(self, child: Child) -> dict[str, Any]:
        return plain({**child._asdict(), "config": self._config})

    def _file(self, child_id: int) -> Path | None:
        return None if self._directory is None else self._directory / f"child_{child_id}.json"
