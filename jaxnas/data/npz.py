"""`.npz` files of images and labels, under the names of this library or under those of Keras."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.data.examples import Data, checked_examples, hold_out
from jaxnas.data.notes import expanded, listed, note
from jaxnas.errors import UserError

__all__ = ["load"]

LAYOUTS = (("images", "labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"))
NUM_CLASSES = "num_classes"


def load(name: str, file: str) -> Data:
    """Reads `images` and `labels`, and `test_images` and `test_labels` where the file has them.

    The names `x_train`, `y_train`, `x_test` and `y_test`, as in the files of Keras, mean the same. Without test arrays
    `hold_out` takes every fifth image of each class. An integer `num_classes` is optional, the default is the largest
    label plus one. One line on standard error names the arrays that are not loaded; pickled arrays are refused.

    Args:
      name: the name of the data set in messages.
      file: the path of the `.npz` file.

    Returns:
      The data.

    Raises:
      UserError: if the file is missing or damaged, lacks an array, or an array has another layout than `Examples`.
    """
    path = expanded(name, file)
    arrays, unread = _read(name, path)
    parts = [key for key in arrays if key != NUM_CLASSES]
    train = checked_examples(arrays[parts[0]], arrays[parts[1]], name)
    if len(parts) == 4:
        test = checked_examples(arrays[parts[2]], arrays[parts[3]], f"{name} (test)")
    else:
        train, test = hold_out(train)
    largest = max((int(part.labels.max()) for part in (train, test) if len(part.labels)), default=0)
    num_classes = arrays.get(NUM_CLASSES, np.array(largest + 1))
    if num_classes.shape != () or not np.issubdtype(num_classes.dtype, np.integer):
        raise UserError(f"{name}: num_classes is {num_classes.tolist()!r}, expected one integer")
    data = Data(train, test, num_classes=int(num_classes), name=name)
    if unread:
        note(name, f"not loaded: array{'s' * (len(unread) > 1)} {listed(unread)}")
    return data


def _read(name: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Returns the arrays to be loaded, each checked by the checksum of its zip member, and the names of all others."""
    if not path.is_file():
        raise UserError(f"{name}: {path} is a folder" if path.is_dir() else f"{name}: there is no file {path}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = sorted(archive.files)
            wanted = _wanted(set(names))
            arrays = {key: archive[key] for key in wanted}
    except Exception as error:  # numpy, zipfile and zlib have different ones for a damaged file
        raise UserError(f"{name}: {path} is not a readable .npz file of plain arrays: {error}") from error
    if not arrays:
        expected = " or ".join(" and ".join(layout[:2]) for layout in LAYOUTS)
        raise UserError(f"{name}: {path} has {_having(names)}, expected {expected}")
    for layout in LAYOUTS:
        if len(set(layout[2:]) & set(names)) == 1 and layout[0] in arrays:
            raise UserError(f"{name}: {path} has only one of {' and '.join(layout[2:])}, expected both or neither")
    return arrays, [key for key in names if key not in arrays]


def _wanted(names: set[str]) -> list[str]:
    """Returns which arrays to load: those of the first layout that has its two training arrays."""
    for layout in LAYOUTS:
        if names >= set(layout[:2]):
            test = layout[2:] if names >= set(layout[2:]) else ()
            return [*layout[:2], *test, *({NUM_CLASSES} & names)]
    return []


def _having(names: list[str]) -> str:
    """Returns `no arrays`, `one array, x` or `the arrays x, y`."""
    return f"the array{'s' * (len(names) > 1)} {listed(names)}" if names else "no arrays"
