"""Parameters and multiply-adds of NAS-Bench-201's networks: exact, with what a file has recorded held against them."""

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
      archs: cells, `{"cell": [A, 6]}`.
    """
    tables = space_tables(nasbench201_space(16, 5, 10), (32, 32, 3))
    archs = {"cell": np.asarray(archs["cell"], np.int64)}
    return {name: cost(tables[name], archs) for name in ("parameters", "macs")}


def checked_counts(where: Any, archs: Arch, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The exact counts, and for each of the two one warning if recorded ones differ from it.

    Args:
      where: what the warning calls the records, for example a file.
      archs: cells, `{"cell": [A, 6]}`.
      recorded: under `parameters` and `macs` what was recorded of each cell, `[A, R]`; NaN where nothing was.

    Returns:
      As `cell_counts`.
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
      where: what the warning calls the records.
      what: of what they are records.
      archs: cells, `{"cell": [A, 6]}`.
      recorded: `[A, R]`, NaN where nothing was recorded.
      expected: `[A, R]`, what they should be.
      tolerance: how far they may be apart.
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
