"""The data edge: images as uint8 arrays, disjoint splits, and batches that are drawn inside `jit`.

Only scripts import this package. `load` reads a set once, `split` makes from it what a search may see, and `batch`,
`to_float` and the augmentations are pure functions of a key that run on the device.
"""

from jaxnas.data.augment import cutout, random_crop, random_flip
from jaxnas.data.batches import batch, batch_indices, batch_with_replacement, random_indices, to_float
from jaxnas.data.examples import Data, Examples, hold_out, shrink
from jaxnas.data.names import load
from jaxnas.data.originals import prepare
from jaxnas.data.splits import CIFAR10_MEAN, CIFAR10_STD, SearchData, split, split_at, statistics

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "Data",
    "Examples",
    "SearchData",
    "batch",
    "batch_indices",
    "batch_with_replacement",
    "cutout",
    "hold_out",
    "load",
    "prepare",
    "random_crop",
    "random_flip",
    "random_indices",
    "shrink",
    "split",
    "split_at",
    "statistics",
    "to_float",
]
