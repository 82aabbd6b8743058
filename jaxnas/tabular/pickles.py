"""Pickles of strangers, read without running anything in them: plain containers and numbers, and nothing else."""

import bz2
import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.errors import UserError

__all__ = ["read_pickle"]

# The functions by which a pickle rebuilds a number and an array of numpy, and all that a file may ask for by name.
SCALAR = np.float64(0).__reduce__()[0]
ARRAY = np.zeros(0).__reduce__()[0]
ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{(f"numpy.{core}.multiarray", "scalar"): SCALAR for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): ARRAY for core in ("core", "_core")},
}


class _Plain(pickle.Unpickler):
    """An unpickler that knows dictionaries, lists, numbers, text and numpy's numbers and arrays of numbers."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the list stands for; any other one is refused instead of imported."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return ALLOWED[module, name]


def read_pickle(path: str | Path) -> Any:
    """The content of a pickle, also of one that bz2 has compressed.

    Args:
      path: the file.

    Raises:
      UserError: a missing or damaged file, or one that holds anything but plain containers and numbers.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    with file.open("rb") as raw:
        compressed = raw.read(3) == b"BZh"  # how every file of bz2 begins
    try:
        with bz2.open(file) if compressed else file.open("rb") as stream:
            return _Plain(stream).load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{file} is refused: {error}") from None
    except Exception as error:
        raise UserError(f"{file} is not a readable pickle: {type(error).__name__} {error}") from None
