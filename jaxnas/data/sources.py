"""Sources that need no files: the bundled digits and made-up images.

Each function returns `Data`; `names.load` chooses among the sources.
"""

import re

import numpy as np

from jaxnas.data.examples import Data, Examples, checked_examples, hold_out
from jaxnas.errors import UserError

__all__ = ["digits", "synthetic"]

SYNTHETIC = {"n": 1024, "size": 16, "classes": 10, "channels": 3, "seed": 0}
MOST_BYTES = 2**30  # size of all synthetic training images; making them takes about twenty times as much memory


def digits() -> Data:
    """Returns scikit-learn's handwritten digits, 1,442 for training and 355 for testing.

    The original values 0 to 16 become `(255 v + 8) // 16`, which is `255 v / 16` rounded half up: 0 stays 0 and 16
    becomes 255. `hold_out` takes every fifth image of each class as the test part.

    Example:
      >>> digits().train.images.shape
      (1442, 8, 8, 1)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images.astype(np.int32) * 255 + 8) // 16
    examples = checked_examples(images.astype(np.uint8), bunch.target, "digits")
    return Data(*hold_out(examples), num_classes=10, name="digits")


def synthetic(name: str) -> Data:
    """Returns images that a small network can learn, made from a seed alone.

    Every class has one smooth random picture. An example is its class's picture, shifted around the border by up to a
    quarter of the side, in varying contrast, with noise. `n` counts the training examples; the test part has `n // 4`
    more of the same kind, at least one for each class.

    Args:
      name: `synthetic` or `synthetic:OPTION=VALUE,...` with the options and defaults of `SYNTHETIC`.

    Returns:
      The data.

    Raises:
      UserError: if an option is unknown, given twice, not an integer or out of range, or the training images would
        take more than a gibibyte.

    Example:
      >>> synthetic("synthetic:n=40,size=8").train.images.shape
      (40, 8, 8, 3)
    """
    # One smooth picture for each class: 4x4 random numbers, enlarged and scaled to a variance of one.
    options = _options(name)
    rng = np.random.default_rng(options["seed"])
    side, classes = options["size"], options["classes"]
    coarse = rng.normal(size=(classes, 4, 4, options["channels"]))
    pictures = _enlarge(_enlarge(coarse, side, axis=1), side, axis=2)
    pictures /= pictures.std((1, 2, 3), keepdims=True)
    train = _synthetic_examples(rng, pictures, options["n"])
    test = _synthetic_examples(rng, pictures, max(options["n"] // 4, classes))
    return Data(train, test, num_classes=classes, name=name)


def _options(name: str) -> dict[str, int]:
    """Reads the options of a name such as `synthetic:n=64,size=8`."""
    options = dict(SYNTHETIC)
    _, colon, text = name.partition(":")
    items = text.split(",") if colon else []
    for item in items:
        option, _, value = item.partition("=")
        if option not in SYNTHETIC or not re.fullmatch(r"[0-9]{1,18}", value):
            raise UserError(f"name is {name!r}: {item!r} is not OPTION=INTEGER with an option of {list(SYNTHETIC)}")
        options[option] = int(value)
    if len({item.partition("=")[0] for item in items}) < len(items):
        raise UserError(f"name is {name!r}: an option is given twice")
    least = {"n": options["classes"], "size": 4, "classes": 2, "channels": 1, "seed": 0}
    for option, low in least.items():
        if options[option] < low:
            raise UserError(f"name is {name!r}: {option} is {options[option]}, expected at least {low}")
    num_bytes = options["n"] * options["size"] ** 2 * options["channels"]
    if num_bytes > MOST_BYTES:
        raise UserError(f"name is {name!r}: the images would take {num_bytes} bytes, expected at most {MOST_BYTES}")
    return options


def _enlarge(pictures: np.ndarray, side: int, axis: int) -> np.ndarray:
    """Interpolates linearly along one axis, around the border."""
    length = pictures.shape[axis]
    position = np.arange(side) * length / side
    left = np.floor(position).astype(int)
    shape = [1] * pictures.ndim
    shape[axis] = side
    weight = (position - left).reshape(shape)
    return (1 - weight) * pictures.take(left, axis) + weight * pictures.take((left + 1) % length, axis)


def _synthetic_examples(rng: np.random.Generator, pictures: np.ndarray, num: int) -> Examples:
    """Draws examples with balanced labels in random order."""
    classes, side = pictures.shape[:2]
    labels = rng.permutation(np.arange(num) % classes)
    reach = side // 4
    shifts = rng.integers(-reach, reach + 1, size=(num, 2))
    rows, columns = ((np.arange(side)[None, :] + shifts[:, [axis]]) % side for axis in (0, 1))
    images = pictures[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    images = images * rng.uniform(0.6, 1.4, size=(num, 1, 1, 1)) + rng.normal(scale=1.0, size=images.shape)
    return Examples(np.clip(128 + 40 * images, 0, 255).astype(np.uint8), labels.astype(np.int32))
