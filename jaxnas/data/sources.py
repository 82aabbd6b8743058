"""Sources that need no data library: the bundled digits, made-up images, `.npz` files and folders of image files.

Each function returns `Data`; `names.load` chooses among them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.data.examples import Data, Examples, checked_examples, hold_out

__all__ = ["digits", "folder", "npz", "synthetic"]

SYNTHETIC = {"n": 1024, "size": 16, "classes": 10, "channels": 3, "seed": 0}
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
GREY_MODES, COLOUR_MODES = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


def digits() -> Data:
    """Returns scikit-learn's handwritten digits, 1,442 for training and 355 for testing.

    The original values 0 to 16 become `(255 v + 8) // 16`, which is `255 v / 16` rounded half up: 0 stays 0 and 16
    becomes 255. `hold_out` takes every fifth image of each class as the test part.
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
      ValueError: if an option is unknown, not an integer or out of range.
    """
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
    for item in text.split(",") if colon else ():
        option, _, value = item.partition("=")
        if option not in SYNTHETIC or not re.fullmatch(r"\d+", value):
            raise ValueError(f"name is {name!r}: {item!r} is not OPTION=INTEGER with an option of {list(SYNTHETIC)}")
        options[option] = int(value)
    least = {"n": options["classes"], "size": 4, "classes": 2, "channels": 1, "seed": 0}
    for option, low in least.items():
        if options[option] < low:
            raise ValueError(f"name is {name!r}: {option} is {options[option]}, expected at least {low}")
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


def npz(name: str, file: str) -> Data:
    """Reads `images` and `labels`, and `test_images` and `test_labels` where the file has them.

    Without test arrays `hold_out` takes every fifth image of each class. An integer `num_classes` is optional, the
    default is the largest label plus one. Other arrays are ignored, and pickled ones are refused.

    Args:
      name: what the data are called.
      file: path of the `.npz` file.

    Returns:
      The data.

    Raises:
      ValueError: if the file is missing or damaged, lacks an array, or an array has another layout than `Examples`.
    """
    path = Path(file).expanduser()
    arrays = _read_npz(name, path)
    missing = {"images", "labels"} - set(arrays)
    if missing:
        raise ValueError(f"{name}: {path} has no array {sorted(missing)}; it has {sorted(arrays)}")
    examples = checked_examples(arrays["images"], arrays["labels"], name)
    if ("test_images" in arrays) != ("test_labels" in arrays):
        raise ValueError(f"{name}: {path} has only one of test_images and test_labels, expected both or neither")
    if "test_images" in arrays:
        train, test = examples, checked_examples(arrays["test_images"], arrays["test_labels"], f"{name} (test)")
    else:
        train, test = hold_out(examples)
    largest = max((int(part.labels.max()) for part in (train, test) if len(part.labels)), default=0)
    return Data(train, test, num_classes=int(arrays.get("num_classes", largest + 1)), name=name)


def _read_npz(name: str, path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays that `npz` knows of, each checked by zip's own checksum."""
    wanted = ("images", "labels", "test_images", "test_labels", "num_classes")
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {path}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in wanted if key in archive}
    except Exception as error:  # numpy, zipfile and zlib each have their own for a damaged file
        raise ValueError(f"{name}: {path} is not a readable .npz file of plain arrays: {error}") from error


def folder(name: str, rest: str) -> Data:
    """Reads image files from one folder for each class; the classes are the folders' names in order.

    With both `DIR/train` and `DIR/test` the classes lie below these, and every class of `test` must be in `train`.
    Otherwise `hold_out` takes every fifth file of each class. Files are read in the order of their names. Images are
    grey when all files are, RGB otherwise; an alpha channel is dropped.

    Args:
      name: what the data are called.
      rest: `DIR`, or `DIR,size=SIDE` to crop the centre square of every image and scale it to `SIDE` by `SIDE`.

    Returns:
      The data.

    Raises:
      ValueError: if a folder is missing or empty, a file cannot be decoded, or sizes differ and no size is given.
    """
    match = re.search(r",size=([1-9]\d*)$", rest)
    root = Path(rest[: match.start()] if match else rest).expanduser()
    size = int(match[1]) if match else None
    if not root.is_dir():
        raise ValueError(f"{name}: there is no folder {root}")
    parts = [root / "train", root / "test"] if all((root / part).is_dir() for part in ("train", "test")) else [root]
    classes = _class_names(name, parts[0])
    read = [_read_folder(name, part, classes, size) for part in parts]
    if len({image.ndim for images, _ in read for image in images}) > 1:  # some grey, some not: all become RGB
        read = [([_as_rgb(image) for image in images], labels) for images, labels in read]
    both = [checked_examples(np.stack(images), np.array(labels), name) for images, labels in read]
    train, test = both if len(both) == 2 else hold_out(both[0])
    return Data(train, test, num_classes=len(classes), name=name)


def _class_names(name: str, root: Path) -> list[str]:
    """Returns the names of the folders in `root` that are not hidden, in order."""
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(f"{name}: {root} has {len(classes)} folders, expected one for each of at least 2 classes")
    return classes


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Repeats a grey image `[H, W]` over three channels; returns others as they are."""
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def _read_folder(name: str, root: Path, classes: list[str], size: int | None) -> tuple[list[np.ndarray], list[int]]:
    """Reads every image file below `root`, `[H, W]` or `[H, W, 3]` each, with its label."""
    unknown = set(_class_names(name, root)) - set(classes)
    if unknown:
        raise ValueError(f"{name}: {root} has classes {sorted(unknown)} that the training part lacks")
    images: list[np.ndarray] = []
    labels: list[int] = []
    for path, label in _files(name, root, classes):
        image = _decode(name, path, size)
        if images and image.shape[:2] != images[0].shape[:2]:
            raise ValueError(
                f"{name}: {path} has {image.shape[0]}x{image.shape[1]} pixels, files before it "
                f"{images[0].shape[0]}x{images[0].shape[1]}; add ',size=SIDE' to the name to scale all"
            )
        images.append(image)
        labels.append(label)
    return images, labels


def _files(name: str, root: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    """Yields each image file with the number of its class."""
    for label, folder_name in enumerate(classes):
        if not (root / folder_name).is_dir():
            continue
        paths = sorted(path for path in (root / folder_name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"{name}: {root / folder_name} has no image file; known are {sorted(SUFFIXES)}")
        for path in paths:
            yield path, label


def _decode(name: str, path: Path, size: int | None) -> np.ndarray:
    """Decodes one file to uint8, `[H, W]` for grey and `[H, W, 3]` otherwise."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image: Any = ImageOps.exif_transpose(file)
            if image.mode not in GREY_MODES + COLOUR_MODES:
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            image = image.convert("L" if image.mode in GREY_MODES else "RGB")
            if size is not None:
                image = _centre_square(image).resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: {path} cannot be decoded: {error}") from error


def _centre_square(image: Any) -> Any:
    """Crops a pillow image to the largest square in its middle."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))
