"""Tables as files: an `.npz` that plain numpy reads, and a checksum."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import decisions
from jaxnas.errors import UserError
from jaxnas.tabular.table import Table, from_arrays

__all__ = ["load_table", "read_npz", "save_table"]

FORMAT = "jaxnas table 1"


def save_table(path: str | Path, table: Table) -> str:
    """Writes a table and returns the sha256 of the file.

    The file holds `format`, `name`, `choices` (JSON, `{leaf: [E, K]}`), `present` where there are holes, and every
    metric as `metric/<name>`, in the order of counting, the last decision fastest.

    Args:
      path: the `.npz` file to write; its folder is made where it is missing.
      table: the table, whose choices are a dictionary.

    Raises:
      UserError: choices that are not a dictionary of leaves.

    Example:
      >>> import tempfile
      >>> choices = {"op": jax.ShapeDtypeStruct((1, 3), jnp.float32)}
      >>> table = from_arrays(choices, {"accuracy": np.array([0.5, 0.75, 0.6])}, name="mine")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checksum = save_table(f"{folder}/mine.npz", table)
      ...     same = load_table(f"{folder}/mine.npz", sha256=checksum)
      >>> same.name, float(same.metrics["accuracy"][1])
      ('mine', 0.75)
    """
    if not isinstance(table.choices, dict) or not jax.tree_util.all_leaves(table.choices.values()):
        raise UserError(f"{table.name}: choices must be a dictionary of leaves to be written, got {table.choices}")
    # Metrics, holes and the shape of the space.
    arrays: dict[str, Any] = {f"metric/{name}": np.asarray(values) for name, values in table.metrics.items()}
    if table.present is not None:
        arrays["present"] = np.asarray(table.present)
    choices = json.dumps({name: leaf.shape for name, leaf in sorted(table.choices.items())})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("wb") as file:
        np.savez_compressed(file, format=FORMAT, name=table.name, choices=choices, **arrays)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load_table(path: str | Path, *, sha256: str | None = None) -> Table:
    """Reads what `save_table` wrote.

    Args:
      path: the `.npz` file.
      sha256: the checksum that the file must have, if given.

    Raises:
      UserError: a missing, damaged or other file; another checksum.
    """
    arrays = read_npz(path, {"format", "name", "choices"}, sha256=sha256)
    if str(arrays["format"]) != FORMAT:
        raise UserError(f"{path}: format is {str(arrays['format'])!r}, expected {FORMAT!r}")
    shapes = json.loads(str(arrays["choices"]))
    choices = {name: jax.ShapeDtypeStruct(tuple(shape), jnp.float32) for name, shape in shapes.items()}
    metrics = {name.removeprefix("metric/"): array for name, array in arrays.items() if name.startswith("metric/")}
    table = from_arrays(choices, metrics, name=str(arrays["name"]), holes=True)
    if "present" not in arrays:
        return table
    # Metrics have a number for every architecture, also for those that are not there.
    present, size = arrays["present"], decisions(choices).size
    if present.shape != (size,) or present.dtype != bool:
        raise UserError(f"{path}: present is {present.dtype} {present.shape}, expected bool ({size},)")
    return table._replace(present=jnp.asarray(present))


def read_npz(path: str | Path, needed: set[str], *, sha256: str | None = None) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`; pickled ones are refused.

    Args:
      path: the `.npz` file.
      needed: names of arrays that must be there.
      sha256: the checksum that the file must have, if given.

    Raises:
      UserError: a missing or damaged file, a missing array, another checksum.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    # The checksum before anything is read.
    found = None if sha256 is None else hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(f"{file}: sha256 is {found}, expected {sha256}")
    # Arrays alone: a pickled one raises ValueError.
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a readable .npz file: {error}") from None
    missing = needed - set(arrays)
    if missing:
        raise UserError(f"{file} has no array {sorted(missing)}; it has {sorted(arrays)}")
    return arrays
