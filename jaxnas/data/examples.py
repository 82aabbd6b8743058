"""The containers of the data edge and the rules that every source shares.

Every source hands its arrays to `checked_examples` and `Data`, which refuse what no search could use. Letters for
shapes: `N` examples, `H` rows, `W` columns, `C` channels.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.notes import note
from jaxnas.errors import UserError

__all__ = ["Data", "Examples", "check_whole", "checked_examples", "hold_out", "is_whole", "shrink"]

Array = Any  # a numpy or a JAX array
LARGEST_LABEL = np.iinfo(np.int32).max
MOST_COLOURS = 4  # channels of a picture: grey, grey and alpha, RGB, or RGB and alpha


class Examples(NamedTuple):
    """Images with their labels.

    Attributes:
      images: the pixels, `[N, H, W, C]`; uint8 as loaded, float32 in a batch.
      labels: the class of each image, int32 `[N]`.
    """

    images: Array
    labels: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A set of images as loaded: numpy arrays on the host, with the test part the source defines.

    A search is given `split(data)`, never this.

    Attributes:
      train: the examples that a search and the training of its result may use.
      test: the examples of the final judgement, which nothing else may use.
      num_classes: the number of classes, at least 2; all labels are below it.
      name: the name that `load` was given, for messages.

    Raises:
      UserError: if the layout of a part is not that of `Examples`, a part is empty, train and test differ in image
        shape, a label is out of range, or there are fewer training examples than classes.
    """

    train: Examples
    test: Examples
    num_classes: int
    name: str

    def __post_init__(self):
        check_whole(f"{self.name}: num_classes", self.num_classes)
        if self.num_classes < 2:
            raise UserError(f"{self.name}: num_classes is {self.num_classes}, expected at least 2")
        for part, examples in (("train", self.train), ("test", self.test)):
            if len(examples.labels) == 0:
                raise UserError(f"{self.name}: the {part} part has no examples")
            _check_layout(*examples, where=f"{self.name} ({part})")
            shape = examples.images.shape[1:]
            if shape != self.image_shape:
                raise UserError(f"{self.name}: {part} images have shape {shape}, train images {self.image_shape}")
            low, high = int(examples.labels.min()), int(examples.labels.max())
            if low < 0 or high >= self.num_classes:
                raise UserError(
                    f"{self.name}: {part} labels range from {low} to {high}, expected 0 to {self.num_classes - 1}"
                )
        if len(self.train.labels) < self.num_classes:
            raise UserError(
                f"{self.name}: {len(self.train.labels)} training examples for {self.num_classes} classes, expected at "
                "least one for each; classes are numbered from 0 without gaps"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Rows, columns and channels of every image."""
        return tuple(self.train.images.shape[1:])


def checked_examples(images: np.ndarray, labels: np.ndarray, where: str) -> Examples:
    """Returns `Examples` with the layout every function here relies on.

    Images that look channels-first are refused where they are square, `[N, 3, 32, 32]`; where they are not, they may be
    what they say, and one line on standard error tells how they are read.

    Args:
      images: uint8 `[N, H, W, C]`, or `[N, H, W]` for a single channel.
      labels: integers `[N]`, from 0 to at most `2**31 - 1`.
      where: how messages call these arrays, for example the name of their file.

    Returns:
      The same images with a channel axis, and int32 labels.

    Raises:
      UserError: if a shape, a dtype, the number of labels or a label is something else.
    """
    if images.ndim == 3:
        images = images[..., None]
    _check_layout(images, labels, where)
    _check_channels(images.shape, where)
    if len(labels) and (labels.min() < 0 or labels.max() > LARGEST_LABEL):
        raise UserError(
            f"{where}: labels range from {labels.min()} to {labels.max()}, expected 0 to at most {LARGEST_LABEL}"
        )
    return Examples(np.ascontiguousarray(images), labels.astype(np.int32))


def _check_layout(images: Array, labels: Array, where: str) -> None:
    """Raises unless the arrays are uint8 images `[N, H, W, C]` and integer labels `[N]`."""
    if images.dtype != np.uint8:
        raise UserError(f"{where}: images have dtype {images.dtype}, expected uint8 with values 0 to 255")
    if images.ndim != 4:
        raise UserError(f"{where}: images have shape {images.shape}, expected [N, H, W, C] or [N, H, W]")
    if 0 in images.shape[1:]:
        raise UserError(f"{where}: images have shape {images.shape}, expected at least one pixel and one channel")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{where}: labels are {labels.dtype} {labels.shape}, expected integers of shape [N]{_label_hint(labels)}"
        )
    if len(images) != len(labels):
        raise UserError(f"{where}: {len(images)} images but {len(labels)} labels")


def _label_hint(labels: Array) -> str:
    """Returns what to do about labels of another layout, or nothing."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "; labels[:, 0] has that shape"
    if labels.ndim == 2:
        return "; for one-hot rows give labels.argmax(axis=1)"
    if labels.ndim == 1 and labels.dtype.kind in "OSU":
        return "; np.unique(labels, return_inverse=True)[1] numbers the classes in the order of their names"
    if labels.ndim == 1 and labels.dtype.kind in "bf" and np.array_equal(labels, np.trunc(labels)):
        return "; convert them with labels.astype(np.int32)"
    return ""


def _check_channels(shape: tuple[int, ...], where: str) -> None:
    """Raises, or prints one line, if the axis of the channels seems to come first."""
    first, rows, columns = shape[1:]
    if first > MOST_COLOURS or min(rows, columns) <= MOST_COLOURS:
        return
    hint = "channels-first images must be transposed with images.transpose(0, 2, 3, 1)"
    if rows == columns:
        raise UserError(f"{where}: images have shape {shape}, expected [N, H, W, C]; {hint}")
    note(where, f"images of shape {shape} are read as {first}x{rows} pixels of {columns} channels; {hint}")


def is_whole(value: object) -> bool:
    """Tells whether a size is an integer of Python or numpy; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_whole(what: str, value: object) -> None:
    """Raises `UserError` for a size that is no integer; `what` is its name."""
    if not is_whole(value):
        raise UserError(f"{what} is {value!r}, expected an integer")


def hold_out(examples: Examples, *, every: int = 5) -> tuple[Examples, Examples]:
    """Holds out every fifth example of each class, counted in the order given.

    The rule for sources that define no test part. It draws nothing at random, so the parts are the same on every
    machine, and each class gives the same share. A class with fewer than `every` examples keeps them all for training.

    Args:
      examples: the examples to divide.
      every: one of so many examples of a class is held out, at least 2.

    Returns:
      The rest and the held-out examples, both in their original order.

    Raises:
      UserError: if `every` is below 2, or no class has that many examples.

    Example:
      >>> labels = np.array([0, 0, 1, 0, 1], np.int32)
      >>> rest, held_out = hold_out(Examples(np.zeros([5, 2, 2, 1], np.uint8), labels), every=2)
      >>> rest.labels, held_out.labels
      (array([0, 1, 0], dtype=int32), array([0, 1], dtype=int32))
    """
    check_whole("every", every)
    if every < 2:
        raise UserError(f"every is {every}, expected at least 2")
    chosen = np.zeros(len(examples.labels), bool)
    for label in np.unique(examples.labels):
        chosen[np.flatnonzero(examples.labels == label)[every - 1 :: every]] = True
    if not chosen.any():
        raise UserError(f"no class has {every} examples, so none can be held out: give test examples")
    rest = Examples(examples.images[~chosen], examples.labels[~chosen])
    return rest, Examples(examples.images[chosen], examples.labels[chosen])


def shrink(images: np.ndarray, *, pad_to: int, factor: int) -> np.ndarray:
    """Pads images with black to a square and averages blocks of `factor` by `factor` pixels.

    Meant for `load(..., transform=...)`: Fashion-MNIST's 28x28 images become 16x16 with `pad_to=32, factor=2`. Where
    the padding is odd the extra row or column goes to the end; averages are rounded half up.

    Args:
      images: the images, uint8 `[N, H, W, C]`.
      pad_to: the side of the padded square in pixels, a multiple of `factor`.
      factor: the side of the blocks in pixels, at least 1.

    Returns:
      The smaller images, uint8 `[N, pad_to / factor, pad_to / factor, C]`.

    Raises:
      UserError: if the images have another layout or are larger than `pad_to`, or `factor` does not divide it.

    Example:
      >>> shrink(np.full([1, 2, 2, 1], 100, np.uint8), pad_to=4, factor=2)[0, :, :, 0].tolist()
      [[25, 25], [25, 25]]
    """
    if images.dtype != np.uint8:
        raise UserError(f"images have dtype {images.dtype}, expected uint8")
    if images.ndim != 4:
        raise UserError(f"images have shape {images.shape}, expected [N, H, W, C]")
    num, height, width, channels = images.shape
    check_whole("pad_to", pad_to)
    check_whole("factor", factor)
    if pad_to < max(height, width):
        raise UserError(f"pad_to is {pad_to}, expected at least {max(height, width)} for images of {height}x{width}")
    if factor < 1 or pad_to % factor:
        raise UserError(f"factor is {factor}, expected a divisor of pad_to={pad_to}")
    # Black around the image, half of it on either side.
    rows, columns = ((space // 2, space - space // 2) for space in (pad_to - height, pad_to - width))
    padded = np.pad(images, ((0, 0), rows, columns, (0, 0)))
    # The mean of each block, rounded half up in whole numbers.
    side = pad_to // factor
    blocks = padded.reshape(num, side, factor, side, factor, channels)
    area = factor * factor
    return ((blocks.sum((2, 4), dtype=np.uint32) + area // 2) // area).astype(np.uint8)
