"""Folders of image files: how they are divided into parts and classes, and how the files are decoded."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.data.examples import Data, checked_examples, hold_out
from jaxnas.data.files import SUFFIXES, Left, described, identity, images_below, pass_over, scan
from jaxnas.data.notes import expanded, listed, note
from jaxnas.errors import UserError

__all__ = ["load"]

# Names of the folder of each part, in lower case, in the order of preference: validation stands in for test.
TRAINING = {"train", "training"}
TEST = {"test", "testing"}
VALIDATION = {"dev", "eval", "val", "valid", "validation"}
LAYOUT = "one for each of at least 2 classes, directly or below train and test (or train and val)"
GREY_MODES, COLOUR_MODES = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


def load(name: str, rest: str) -> Data:
    """Reads image files from one folder for each class; the classes are the folders' names in order.

    The images of a class may lie in folders below that of the class, however deep; links are followed. They are read in
    the order of their paths. Where `DIR` has a folder `train`, alone or with `test` or `val`, the classes lie below
    these: `test` is the test part, in its absence `val`. Upper case, `training`, `testing`, `valid`, `validation`,
    `dev` and `eval` are understood too. Every class of the test part must be in the training part. Without a test part
    `hold_out` takes every fifth file of each class. Images are grey when all files are, RGB otherwise; an alpha channel
    is dropped.

    One line on standard error counts by kind what is not loaded: files of other endings, what systems leave behind
    (`.DS_Store`, `Thumbs.db`, `__MACOSX`), images outside of the class folders, parts that are not used, frames after
    the first.

    Args:
      name: the name of the data set in messages.
      rest: `DIR`, or `DIR,size=SIDE` to crop the centre square of every image and scale it to `SIDE` by `SIDE`.

    Returns:
      The data.

    Raises:
      UserError: if a folder is missing or empty, the folders are neither classes nor parts, a file cannot be decoded,
        or sizes differ and no size is given.
    """
    directory, size = _address(name, rest)
    root = expanded(name, directory)
    if not root.is_dir():
        raise UserError(f"{name}: there is no folder {root}")
    # The folders right below are classes, or parts with classes below them.
    left: Left = {}
    folders = _folders(name, root, left)
    parts = _parts(name, root, [folder.name for folder in folders])
    by_part = {root: folders}
    if parts:
        by_part = {root / part: _folders(name, root / part, left) for part in parts}
        for folder in folders:
            if folder.name not in parts:
                names = [path.name for path in images_below(name, folder, {})]
                pass_over(left, "image file", f"below {folder.name}, which is not used", *names)
    # Every file is read once; images are grey only if all of them are.
    classes = _classes(name, by_part)
    read = [_read_part(name, part, by_part[part], classes, size, left) for part in by_part]
    if len({image.ndim for images, _ in read for image in images}) > 1:
        read = [([_as_rgb(image) for image in images], labels) for images, labels in read]
    both = [checked_examples(np.stack(images), np.array(labels), name) for images, labels in read]
    train, test = both if len(both) == 2 else hold_out(both[0])
    data = Data(train, test, num_classes=len(classes), name=name)
    if left:
        note(name, f"not loaded: {described(left)}")
    return data


def _address(name: str, rest: str) -> tuple[str, int | None]:
    """Returns the directory and the size of `DIR,size=SIDE`."""
    directory, found, text = rest.rpartition(",size=")
    if not found:
        return rest, None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise UserError(f"{name}: size is {text!r}, expected a whole number of pixels from 1 to 9999")
    return directory, int(text)


def _folders(name: str, root: Path, left: Left) -> list[Path]:
    """Returns the folders in `root`; image files beside them belong to no class."""
    folders, images = scan(name, root, left)
    pass_over(left, "image file", "outside of the class folders", *(path.name for path in images))
    return folders


def _parts(name: str, root: Path, folders: Sequence[str]) -> list[str]:
    """Returns the folder of the training part and, where there is one, that of the test part, or none of either.

    None means that the folders are classes. A folder called `train` among others may be a class, of vehicles for
    example: it is a part when it is alone or another part is there too.
    """
    found = [[folder for folder in folders if folder.lower() in names] for names in (TRAINING, TEST, VALIDATION)]
    num = sum(map(len, found))
    if not found[0] and 0 < num == len(folders):
        raise UserError(f"{name}: {root} has the folders {listed(folders)} but none called train, expected {LAYOUT}")
    if not found[0] or (num < 2 and len(folders) > 1):
        return []
    for names in found:
        if len(names) > 1:
            raise UserError(f"{name}: {root} has the folders {listed(names)}, expected one of them")
    return [names[0] for names in found if names][:2]


def _classes(name: str, by_part: dict[Path, list[Path]]) -> list[str]:
    """Returns the names of the class folders of the training part, which must hold those of the test part."""
    (root, folders), *others = by_part.items()
    classes = [folder.name for folder in folders]
    inner = [scan(name, folder, {}) for folder in folders]
    if len(classes) < 2:
        hint = f"; did you mean folder:{folders[0]}?" if folders and len(inner[0][0]) > 1 else ""
        plural = "s" * (len(classes) != 1)
        raise UserError(f"{name}: {root} has {len(classes)} folder{plural}, expected {LAYOUT}{hint}")
    for part, part_folders in others:
        unknown = [folder.name for folder in part_folders if folder.name not in classes]
        if unknown:
            raise UserError(f"{name}: {part} has classes {unknown} that the training part lacks")
        if not part_folders:
            raise UserError(f"{name}: {part} has 0 folders, expected one for each class with test images")
    names = [[folder.name for folder in below] for below, _ in inner]
    if len(names[0]) > 1 and names == names[:1] * len(names) and not any(images for _, images in inner):
        note(
            name,
            f"the folders {listed(classes)} are taken for classes, though each holds the folders {listed(names[0])}; "
            "parts are to be called train and test",
        )
    return classes


def _read_part(
    name: str, part: Path, folders: list[Path], classes: list[str], size: int | None, left: Left
) -> tuple[list[np.ndarray], list[int]]:
    """Reads the image files of every class folder of a part, `[H, W]` or `[H, W, 3]` each, with their labels."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    for folder in folders:
        before = len(images)
        for path in images_below(name, folder, left, frozenset({identity(part)})):
            image = _decode(name, path, size, left)
            if images and image.shape[:2] != images[0].shape[:2]:
                raise UserError(
                    f"{name}: {path} has {image.shape[0]}x{image.shape[1]} pixels, files before it "
                    f"{images[0].shape[0]}x{images[0].shape[1]}; add ',size=SIDE' to the name to scale all"
                )
            images.append(image)
            labels.append(classes.index(folder.name))
        if len(images) == before:
            raise UserError(f"{name}: {folder} has no image file; known are {sorted(SUFFIXES)}")
    return images, labels


def _decode(name: str, path: Path, size: int | None, left: Left) -> np.ndarray:
    """Decodes one file to uint8, `[H, W]` for grey and `[H, W, 3]` otherwise."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            if getattr(file, "is_animated", False):
                pass_over(left, "animated file", "beyond the first frame", path.name)
            image: Any = ImageOps.exif_transpose(file)
            if image.mode not in GREY_MODES + COLOUR_MODES:
                raise UserError(f"mode {image.mode} has more than 8 bits a channel")
            image = image.convert("L" if image.mode in GREY_MODES else "RGB")
            if size is not None:
                image = _centre_square(image).resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: {path} cannot be decoded: {error}") from error


def _centre_square(image: Any) -> Any:
    """Crops a pillow image to the largest square in its middle."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Repeats a grey image `[H, W]` over three channels; returns others as they are."""
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image
