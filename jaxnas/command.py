"""What every command of the library does around its work: one line and exit code 2 for what its user got wrong.

Commands are the modules that run with `python -m jaxnas...`; the scripts of experiments have `jaxnas.run.script`.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jaxnas.errors import UserError
from jaxnas.standard_error import say

__all__ = ["Parser", "answer", "check_out"]


class Parser(argparse.ArgumentParser):
    """A parser of arguments that refuses in one line, without the lines about usage that `--help` prints."""

    def error(self, message: str) -> NoReturn:
        """Prints one line on standard error and exits with 2."""
        self.exit(2, f"error: {' '.join(message.split())}; '{self.prog} --help' tells more\n")


def answer(work: Callable[[], object]) -> int:
    """Does the work of a command; returns 0, or 2 after one line on standard error.

    Args:
      work: the work. Where its user got something wrong it raises a `UserError`, or one of the errors below that Python
        itself raises for what a user has said; every other one is a mistake of the library and keeps its traceback.

    Example:
      >>> answer(lambda: None)
      0
    """
    try:
        work()
    except (UserError, OSError, ImportError) as error:
        return _refuse(error)
    except (OverflowError, MemoryError) as error:
        return _refuse(f"a number is too large: {error}")
    except RuntimeError as error:
        if "home directory" not in str(error):  # which `Path.expanduser` says of an unknown `~user`
            raise
        return _refuse(error)
    return 0


def check_out(path: str | Path) -> None:
    """Makes the folder of a file that is to be written, before the long work of which it is the result.

    Args:
      path: the path of the file; a file that is there will be replaced.

    Raises:
      UserError: `path` is empty or a folder, or its folder cannot be written to.
      OSError: the folder of `path` cannot be made.
    """
    file = Path(path)
    if not os.fspath(path) or file.is_dir():
        raise UserError(f"the file to write is {os.fspath(path)!r}, which is {'a folder' if path else 'no name'}")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"the file to write is {os.fspath(path)!r}, whose folder cannot be written to")


def _refuse(what: object) -> int:
    """Prints the one line on standard error and returns 2."""
    say(f"error: {' '.join(str(what).split())}")
    return 2
