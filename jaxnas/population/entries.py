"""The members of a population as its caller gives them: checked, and as arrays that a program can take."""

import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.architectures import arch_like
from jaxnas.base import Arch, Tree
from jaxnas.errors import UserError
from jaxnas.population.member import PopulationData, Recipe

__all__ = ["Entry", "fingerprint", "make_entries"]


class Entry(NamedTuple):
    """What a program needs to know of a member; `name` and `seed` make its key."""

    name: Any
    seed: Any
    arch: Arch
    rates: Tree


def make_entries(archs: Arch, rates: Tree, seeds: np.ndarray | None, choices: Tree | None) -> Entry:
    """Checks what `train_population` is given of its members; every leaf of the result has a leading axis `P`.

    Raises:
      UserError: no architecture, one outside of `choices`, or values of another number, type or range.
    """
    size = len(jax.tree.leaves(archs)[0])
    if not size:
        raise UserError("archs: there is no architecture to train")
    if choices is not None:
        for i in range(size):
            arch_like(choices, jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], archs))
    archs = jax.tree.map(lambda leaf: _whole("archs", leaf, size).astype(np.int32), archs)
    rates = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), rates)
    for leaf in jax.tree.leaves(rates):
        if leaf.shape[:1] != (size,):
            raise UserError(f"rates must have leaves with a leading axis of {size}, got shape {leaf.shape}")
    seeds = np.zeros(size, np.uint32) if seeds is None else _whole("seeds", seeds, size)
    if seeds.shape != (size,) or seeds.min() < 0 or seeds.max() >= 2**32:
        raise UserError(f"seeds must be {size} whole numbers from 0 to {2**32 - 1}, got {seeds.tolist()}")
    # The name of an architecture is the checksum of its integers.
    leaves = jax.tree.leaves(archs)
    names = [zlib.crc32(b"".join(leaf[i].tobytes() for leaf in leaves)) for i in range(size)]
    return Entry(np.array(names, np.uint32), seeds.astype(np.uint32), archs, rates)


def _whole(name: str, values: Any, size: int) -> np.ndarray:
    """The values as an array of whole numbers, one row for each member."""
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer) or array.shape[:1] != (size,):
        raise UserError(f"{name} must be whole numbers with a leading axis of {size}, got {array.dtype} {array.shape}")
    return array


def fingerprint(key: jax.Array, entries: Entry, data: PopulationData, recipe: Recipe) -> list[int]:
    """Tells one population from another, as far as arrays and numbers do."""
    crc = zlib.crc32(str(jax.tree.structure(entries)).encode())
    for leaf in jax.tree.leaves((jax.random.key_data(key), entries, data)):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return [crc, recipe.steps, recipe.batch_size, *recipe.moments]
