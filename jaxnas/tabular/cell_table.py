"""The benchmark of recurrent cells: every cell of base 2 as a small language model, bundled with the library."""

from importlib import resources
from pathlib import Path

import numpy as np

from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl import recurrent_cell_space
from jaxnas.tabular.files import read_npz
from jaxnas.tabular.table import Table, from_arrays, mean_of_runs

__all__ = ["DIVERGED", "MISSING", "UNIT", "cells", "exhaustive_cells"]

CELLS_SHA256 = "7477b5419ff122d1f2f00bfae1e78ea821e49f95dc74ca2882f7ec34a8e90eda"
LEAVES = ("activation", "combination", "index")
UNIT = 1e-4  # nats, of the whole numbers in the file
MISSING, DIVERGED = -1, -2  # in place of a number: no such run; a run whose training or judgement was not finite


def cells() -> Table:
    """Every recurrent cell of base 2 as a language model on tiny Shakespeare, trained with this library.

    Metrics are `valid_nats_E` and `test_nats_E`, the mean nats per character after `E` training steps, to be minimised,
    each with its `_runs`; `diverged`, the share of runs whose training was not finite; and `seconds`, what training and
    judging took. Where all runs of a cell diverged, its nats are NaN. `jaxnas/tabular/data/README.md` says how the
    table was made.

    The architectures are those of `jaxnas.spaces.nas_rl.recurrent_cell_space(2)`.

    Example:
      >>> cells().metrics["valid_nats_100"].shape
      (36864,)
    """
    with resources.as_file(resources.files("jaxnas.tabular") / "data" / "cells.npz") as path:
        return exhaustive_cells(path, name="cells", sha256=CELLS_SHA256)


def exhaustive_cells(path: str | Path, *, name: str = "exhaustive-cells", sha256: str | None = None) -> Table:
    """A table that `python -m experiments.exhaustive_cells` wrote.

    Args:
      path: the `.npz` file.
      name: words for people to know the table by.
      sha256: the checksum that the file must have, if given.

    Raises:
      UserError: a missing, damaged or other file; another checksum; arrays whose shapes or types do not fit together; a
        class with runs in one part alone. A study of some cells has none for the others, whose metrics are NaN.
    """
    arrays = read_npz(path, {*LEAVES, "class_of", "steps", "validation_nats", "test_nats", "seconds"}, sha256=sha256)
    _check(path, arrays)
    # Cells that compute the same function form a class, and one network was trained for all of them.
    classes, trained = arrays["class_of"].astype(np.int64), arrays["validation_nats"]
    steps, last = arrays["steps"].tolist(), trained[..., -1][classes]
    metrics = {
        "diverged": mean_of_runs(np.where(last == MISSING, np.nan, last == DIVERGED)),
        "seconds": np.full(len(classes), arrays["seconds"], np.float32),
    }
    for part, short in (("validation", "valid"), ("test", "test")):
        nats = np.where(arrays[f"{part}_nats"] < 0, np.nan, arrays[f"{part}_nats"] * UNIT)
        for place, step in enumerate(steps):
            runs = nats[classes, :, place]
            metrics |= {f"{short}_nats_{step}": mean_of_runs(runs), f"{short}_nats_{step}_runs": runs}
    choices, archs = recurrent_cell_space(2).choices, {leaf: arrays[leaf] for leaf in LEAVES}
    return from_arrays(choices, metrics, archs=archs, name=name, holes=bool((last < 0).all(1).any()))


def _check(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises `UserError` unless the arrays of a file fit together."""
    space, trained, steps = recurrent_cell_space(2), arrays["validation_nats"], arrays["steps"]
    # Shapes: every cell of the space once, and runs and judgements of every class, in both parts alike.
    cells, nats = space.about.size, (*(*trained.shape, 0, 0)[:2], steps.size)
    expected = {"class_of": (cells,), "steps": (steps.size,), "validation_nats": nats, "test_nats": nats, "seconds": ()}
    expected |= {leaf: (cells, space.choices[leaf].shape[0]) for leaf in LEAVES}
    for name, shape in expected.items():
        found, kinds = arrays[name], "iuf" if name == "seconds" else "iu"
        if found.shape != shape or not found.size or found.dtype.kind not in kinds:
            words = "a number" if name == "seconds" else f"whole numbers of shape {shape}"
            raise UserError(f"{path}: {name} is {found.dtype} of shape {found.shape}, expected {words}")
    # Classes: those that cells are in, with the same runs in both parts.
    first, last = int(arrays["class_of"].min()), int(arrays["class_of"].max())
    if not 0 <= first <= last < len(trained):
        raise UserError(f"{path}: class_of names the classes {first} to {last}, and there are {len(trained)} rows")
    differ = np.flatnonzero(((trained == MISSING) != (arrays["test_nats"] == MISSING)).any((1, 2)))
    if len(differ):
        raise UserError(f"{path}: other runs in test_nats than in validation_nats, first for class {differ[0]}")
