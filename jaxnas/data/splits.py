"""What a search may see: two disjoint parts of the training examples, and no way to the test examples."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxnas.data.classes import lacking, share_out
from jaxnas.data.examples import Data, Examples, check_whole, is_whole
from jaxnas.data.notes import note
from jaxnas.errors import UserError

__all__ = ["CIFAR10_MEAN", "CIFAR10_STD", "SearchData", "split", "split_at", "statistics"]

# Per-channel constants of the published search scripts, for `mean` and `std`; units of pixel / 255.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SearchData:
    """The data of a search, as arrays on the device; a pytree, to be passed to jitted functions as an argument.

    Attributes:
      weights: the examples that train the weights, uint8 images and int32 labels.
      policy: the examples that judge architectures, none of which is in `weights`.
      mean: the mean that `to_float` subtracts, float32 `[C]`, in units of pixel / 255.
      std: the standard deviation that `to_float` divides by, float32 `[C]`, in units of pixel / 255.
      num_classes: the number of classes; all labels are below it.
      image_shape: the rows, columns and channels of an image.
    """

    weights: Examples
    policy: Examples
    mean: jax.Array
    std: jax.Array
    num_classes: int = dataclasses.field(metadata={"static": True})
    image_shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})


def split(
    data: Data,
    *,
    sizes: tuple[int, int] | tuple[float, float] = (0.5, 0.5),
    seed: int = 0,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> SearchData:
    """Divides the training examples at random into those for the weights and those for the policy.

    The parts are cut from one permutation. Where a part would lack a class, `jaxnas.data.classes.share_out` exchanges
    as few examples as that takes; parts that have every class stay as they were drawn. A class that cannot be in both
    parts, since it has a single training example or a part is smaller than the number of classes, is named in one line
    on standard error.

    Args:
      data: a set as `load` returns it; its test part is not looked at.
      sizes: two counts, or two fractions of the training examples that add up to at most one. Counts of fractions are
        rounded down; what is left over is used by neither part.
      seed: an integer of at least 0; the same seed gives the same parts.
      mean: per-channel mean of pixel / 255, `[C]`; by default computed from `data.train`.
      std: per-channel standard deviation of pixel / 255, `[C]`; by default computed from `data.train`.

    Returns:
      The two parts.

    Raises:
      UserError: if the sizes do not fit, `seed` is not an integer of at least 0, or `mean` or `std` does not fit.

    Example:
      >>> from jaxnas.data import load
      >>> search = split(load("digits"), sizes=(1000, 400))
      >>> search.weights.images.shape, search.policy.labels.shape
      ((1000, 8, 8, 1), (400,))
    """
    counts = _counts(sizes, len(data.train.labels))
    check_whole("seed", seed)
    if seed < 0:
        raise UserError(f"seed is {seed}, expected at least 0")
    order = np.random.default_rng(seed).permutation(len(data.train.labels))
    return split_at(data, *share_out(np.asarray(data.train.labels), order, counts), mean=mean, std=std)


def split_at(
    data: Data,
    weights: ArrayLike,
    policy: ArrayLike,
    *,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> SearchData:
    """Divides the training examples at given positions, for example those of a published split.

    One line on standard error names the classes of `data.train` of which a part has no example.

    Args:
      data: a set as `load` returns it; its test part is not looked at.
      weights: the positions in `data.train` of the examples for the weights.
      policy: the positions in `data.train` of the examples for the policy.
      mean: per-channel mean of pixel / 255, `[C]`; by default computed from `data.train`.
      std: per-channel standard deviation of pixel / 255, `[C]`; by default computed from `data.train`.

    Returns:
      The two parts, in the order of the positions.

    Raises:
      UserError: if a position is out of range or occurs twice, a part is empty, only one of `mean` and `std` is given,
        or one is out of range.

    Example:
      >>> from jaxnas.data import load
      >>> search = split_at(load("synthetic:n=64"), range(40), range(40, 64))
      >>> len(search.weights.labels), len(search.policy.labels)
      (40, 24)
    """
    chosen = [np.asarray(weights), np.asarray(policy)]
    num = len(data.train.labels)
    for part, positions in zip(("weights", "policy"), chosen):
        if positions.ndim != 1 or not len(positions) or not np.issubdtype(positions.dtype, np.integer):
            raise UserError(f"{part} is {positions.dtype} {positions.shape}, expected integers, at least one")
        if positions.min() < 0 or positions.max() >= num:
            raise UserError(f"{part} has positions {positions.min()} to {positions.max()}, expected 0 to {num - 1}")
    joined = np.concatenate(chosen)
    if len(np.unique(joined)) < len(joined):
        raise UserError(f"weights and policy repeat {len(joined) - len(np.unique(joined))} of {len(joined)} positions")
    images, labels = data.train.images, np.asarray(data.train.labels, np.int32)
    lost = [
        lacking(f"examples for the {part}", labels[positions], np.unique(labels))
        for part, positions in zip(("weights", "policy"), chosen)
    ]
    if any(lost):
        note(data.name, "; ".join(filter(None, lost)))
    parts = [Examples(jnp.array(images[positions]), jnp.array(labels[positions])) for positions in chosen]
    mean, std = _normalisation(data.train, mean, std)
    return SearchData(parts[0], parts[1], mean, std, num_classes=data.num_classes, image_shape=data.image_shape)


def statistics(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Returns per-channel mean and standard deviation of pixel / 255, over all examples, rows and columns.

    A channel that hardly varies gets a standard deviation of 1/255, one step of grey.

    Args:
      examples: uint8 images `[N, H, W, C]` with their labels.

    Returns:
      The pair of mean and standard deviation, float32 `[C]` each.

    Example:
      >>> mean, std = statistics(Examples(np.uint8([0, 255]).reshape(2, 1, 1, 1), np.arange(2)))
      >>> mean.tolist(), std.tolist()
      ([0.5], [0.5])
    """
    images = np.asarray(examples.images)
    # Exact, whatever the size: how often each of the 256 values occurs.
    counts = np.zeros([images.shape[-1], 256], np.int64)
    for start in range(0, len(images), 4096):
        for channel in range(images.shape[-1]):
            counts[channel] += np.bincount(images[start : start + 4096, ..., channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    variance = (share * (values[None, :] - mean[:, None]) ** 2).sum(axis=1)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1 / 255).astype(np.float32)


def _counts(sizes: Sequence[int] | Sequence[float], num: int) -> tuple[int, int]:
    """Returns how many of `num` examples go to each part."""
    fit, pair = False, tuple(sizes) if isinstance(sizes, Iterable) else ()
    if len(pair) == 2 and all(is_whole(size) and size >= 1 for size in pair):
        counts = (int(pair[0]), int(pair[1]))
        fit = sum(counts) <= num
    elif len(pair) == 2 and all(isinstance(size, float) and 0 < size < 1 for size in pair):
        # 0.7 + 0.3 is above one, and 0.29 * 100 below 29, by a rounding error
        counts = (int(pair[0] * num + 1e-6), int(pair[1] * num + 1e-6))
        fit = sum(pair) <= 1 + 1e-9 and min(counts) >= 1
    if not fit:
        raise UserError(
            f"sizes is {sizes}, expected two counts of at least 1 that add up to at most {num}, "
            "or two fractions that add up to at most 1.0 and leave neither part empty"
        )
    return counts


def _normalisation(train: Examples, mean: ArrayLike | None, std: ArrayLike | None) -> tuple[jax.Array, jax.Array]:
    """Returns the constants given, or the statistics of the training examples."""
    if (mean is None) != (std is None):
        raise UserError(f"mean is {mean} and std is {std}, expected both or neither")
    pair = statistics(train) if mean is None or std is None else (np.asarray(mean), np.asarray(std))
    channels = train.images.shape[-1]
    for name, values in zip(("mean", "std"), pair):
        if values.shape != (channels,):
            raise UserError(f"{name} has shape {values.shape}, expected ({channels},), one value for each channel")
    if not np.all((pair[0] >= 0) & (pair[0] <= 1)):
        raise UserError(f"mean is {pair[0]}, expected values of pixel / 255 between 0 and 1")
    if not np.all((pair[1] > 0) & np.isfinite(pair[1])):
        raise UserError(f"std is {pair[1]}, expected values above 0, all finite")
    return jnp.asarray(pair[0], jnp.float32), jnp.asarray(pair[1], jnp.float32)
