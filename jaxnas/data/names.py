"""`load`: from a name that fits on a command line to the arrays of a data set."""

import dataclasses
import difflib
import os
from collections.abc import Callable

import numpy as np

from jaxnas.data import folders, npz, sources, tfds
from jaxnas.data.classes import lacking
from jaxnas.data.examples import Data, Examples
from jaxnas.data.notes import note
from jaxnas.errors import UserError

__all__ = ["load"]

SHORT = {"cifar10": "tfds:cifar10", "fashion-mnist": "tfds:fashion_mnist"}
FORMS = ("digits", "synthetic", *SHORT, "tfds:BUILDER", "npz:FILE", "folder:DIR")


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Data:
    """Loads a set of images for classification, whole, as uint8 arrays.

    ================================ ==================================================================================
    `digits`                         scikit-learn's 1,797 images of 8x8; bundled, nothing is downloaded
    `synthetic[:OPTION=VALUE,...]`   made up and learnable; options `n`, `size`, `classes`, `channels`, `seed`
    `fashion-mnist`, `cifar10`       short for `tfds:fashion_mnist` and `tfds:cifar10`
    `tfds:BUILDER[/CONFIG]`          any image classifier of TensorFlow Datasets; works without TensorFlow
    `npz:FILE`                       arrays `images`, `labels` and optionally `test_images`, `test_labels`, or
                                     `x_train`, `y_train` and optionally `x_test`, `y_test`
    `folder:DIR[,size=SIDE]`         one folder of image files for each class, optionally below `train` and `test`
    ================================ ==================================================================================

    Where a source has no test part, `hold_out` takes every fifth example of each class. The order of the examples is
    fixed for each source. One line on standard error, which starts with `jaxnas:`, tells what of the source was not
    loaded, and another which classes have no training or no test example.

    Args:
      name: one of the forms in the table above.
      data_dir: the folder where TensorFlow Datasets has its prepared sets; `None` stands for its default.
      download: whether a set of TensorFlow Datasets that is not prepared may be fetched from the network.
      transform: a function from the images of a part, uint8 `[N, H, W, C]`, to uint8 `[N, h, w, c]`, such as `shrink`.

    Returns:
      The data.

    Raises:
      UserError: if the name is unknown, the data are missing or not prepared, or they do not make an image classifier.

    Example:
      >>> data = load("synthetic:n=20,size=8,classes=2")
      >>> data.train.images.shape, data.num_classes
      ((20, 8, 8, 3), 2)
    """
    try:
        data = _load(name, data_dir, download)
        data = data if transform is None else _transformed(data, transform)
    except MemoryError as error:
        raise UserError(f"{name} does not fit into memory: {error}") from error
    _note_missing_classes(data)
    return data


def _load(name: str, data_dir: str | os.PathLike | None, download: bool) -> Data:
    """Chooses the source of a name and loads from it."""
    kind, _, rest = SHORT.get(name, name).partition(":")
    if name == "digits":
        return sources.digits()
    if kind == "synthetic":
        return sources.synthetic(name)
    if kind == "tfds" and rest:
        return tfds.load(name, rest, data_dir=data_dir, download=download)
    if kind == "npz" and rest:
        return npz.load(name, rest)
    if kind == "folder" and rest:
        return folders.load(name, rest)
    raise UserError(f"name is {name!r}, expected one of {', '.join(FORMS)}{_suggestion(name)}")


def _note_missing_classes(data: Data) -> None:
    """Prints one line if the training or the test part has no example of a class."""
    classes = np.arange(data.num_classes)
    parts = (("training examples", data.train), ("test examples", data.test))
    phrases = [lacking(what, part.labels, classes) for what, part in parts]
    if any(phrases):
        note(data.name, "; ".join(filter(None, phrases)))


def _suggestion(name: str) -> str:
    """Returns `; did you mean ...?` for the closest name that works, or nothing."""
    kind, colon, rest = name.partition(":")
    prefixes = {form.partition(":")[0]: form for form in FORMS if ":" in form}
    if colon or kind in prefixes:
        close = difflib.get_close_matches(kind, [*prefixes, "synthetic"], n=1)
        best = f"{close[0]}:{rest}" if close and rest else prefixes.get(kind, "")
    elif name.replace("-", "_") in tfds.builder_names():
        best = f"tfds:{name.replace('-', '_')}"
    else:
        close = difflib.get_close_matches(name.replace("_", "-"), FORMS, n=1)
        best = close[0] if close else ""
    return f"; did you mean {best!r}?" if best else ""


def _transformed(data: Data, transform: Callable[[np.ndarray], np.ndarray]) -> Data:
    """Returns `data` with `transform` applied to the images of both parts."""
    parts = []
    for examples in (data.train, data.test):
        images = np.asarray(transform(examples.images))
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(examples.labels):
            raise UserError(
                f"transform returned {images.dtype} {images.shape}, "
                f"expected uint8 of shape [{len(examples.labels)}, H, W, C]"
            )
        parts.append(Examples(images, examples.labels))
    return dataclasses.replace(data, train=parts[0], test=parts[1])
