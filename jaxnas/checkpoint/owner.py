"""The right to write in a directory, which one object of one process has at a time."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import jax

from jaxnas.errors import UserError
from jaxnas.standard_error import say

__all__ = ["Owner", "is_writer"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def is_writer() -> bool:
    """Whether this process writes the files: of the processes of one `jax.distributed` run, the first one does."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


class Owner:
    """The ownership of a directory, by a lock on its file `.lock`.

    The operating system takes the lock back when the process ends, in whatever way, so a killed process leaves nothing
    behind that has to be removed. Two objects of one process are as strange to each other as two processes are.

    Args:
      directory: the directory to own; it is made when it is acquired.
      what: the word for the directory in messages, for example `workdir`.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, Owner(Path(folder), "workdir") as owner:
      ...     owner.held
      True
    """

    def __init__(self, directory: Path, what: str):
        self._directory, self._what = directory, what
        self._lock: Any = None

    @property
    def held(self) -> bool:
        """Whether this object owns the directory."""
        return self._lock is not None

    def acquire(self) -> None:
        """Takes the directory; does nothing when it is held already, or in a process that writes no files.

        Raises:
          UserError: another object or process owns the directory, or it cannot be written to.
        """
        if self.held or not is_writer():
            return
        from filelock import FileLock, Timeout

        place = f"{self._what} {self._directory}"
        # Taken at once or refused; a file system without locks is used without one, which is said.
        lock = FileLock(str(self._directory / ".lock"), thread_local=False)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{place} is in use by another run: wait until that one ends, or use another") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UserError(f"{place} cannot be written to: {error.strerror}") from None
            say(f"{place} cannot be locked ({error.strerror}): nothing else may write there")
        self._lock = lock

    def release(self) -> None:
        """Gives the directory back, if it is held."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __enter__(self) -> Owner:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
