"""Exact counts of parameters and multiply-adds of NAS-Bench-201's networks, against which records of files are held."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnas.base import Arch
from jaxnas.costs import cost, space_tables
from jaxnas.spaces import nasbench201_space
from jaxnas.spaces.nasbench201 import OPERATIONS
from jaxnas.spaces.nasbench201.genotype import genotype

__all__ = ["cell_counts", "checked_counts", "warn_of_disagreements"]

# Two cells with different counts are at least 1.4 % apart; records that were rounded for printing are within 1 %.
TOLERANCE = 0.01


def cell_counts(archs: Arch) -> dict[str, np.ndarray]:
    """The exact counts of the benchmark's CIFAR-10 networks: `{"parameters": [A], "macs": [A]}`, int64.

    Args:
      archs: the cells, `{"cell": [A, 6]}`.

    Example:
      >>> cell_counts({"cell": [[0, 0, 0, 0, 0, 0]]})["parameters"].tolist()  # no cell computes anything
      [73306]
    """
    tables = space_tables(nasbench201_space(16, 5, 10), (32, 32, 3))
    archs = {"cell": np.asarray(archs["cell"], np.int64)}
    return {name: cost(tables[name], archs) for name in ("parameters", "macs")}


def checked_counts(where: Any, archs: Arch, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The exact counts, and for each of the two one warning if recorded ones differ from it.

    Args:
      where: words for the records in the warning, for example the name of a file.
      archs: the cells, `{"cell": [A, 6]}`.
      recorded: records of each cell under `parameters` and `macs`, `[A, R]`; NaN where there is none.

    Returns:
      What `cell_counts` returns.
    """
    exact = cell_counts(archs)
    for name, values in recorded.items():
        wanted = np.broadcast_to(exact[name][:, None], values.shape)
        what = f"number of {name}, for which the exact one is taken"
        warn_of_disagreements(where, what, archs, values, wanted, TOLERANCE * wanted)
    return exact


def warn_of_disagreements(
    where: Any, what: str, archs: Arch, recorded: np.ndarray, expected: np.ndarray, tolerance: Any
) -> None:
    """Warns in one line, if there is a need: how many records differ, and which cell is the first of them.

    Args:
      where: words for the place of the records in the warning, for example the name of a file.
      what: words for what was recorded.
      archs: the cells, `{"cell": [A, 6]}`.
      recorded: the records, `[A, R]`, NaN where nothing was recorded.
      expected: the values that they should have, `[A, R]`.
      tolerance: the largest distance that counts as agreement, a number or an array that broadcasts against them.
    """
    apart = np.abs(recorded - expected) > tolerance  # never where nothing was recorded, which is NaN
    if not apart.any():
        return
    row, run = np.argwhere(apart)[0]
    cell = genotype(OPERATIONS, {"cell": np.asarray(archs["cell"])[row]})
    warnings.warn(
        f"{where}: {int(apart.sum())} of {int(np.isfinite(recorded).sum())} records, in {int(apart.any(1).sum())} of "
        f"{len(apart)} cells, disagree with the {what}; the first is of cell {cell}, "
        f"{recorded[row, run]:.10g} for {expected[row, run]:.10g}",
        stacklevel=4,
    )
