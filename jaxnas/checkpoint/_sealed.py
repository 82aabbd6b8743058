"""JSON data with a checksum of its own, and the checksum of a tree of arrays."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checkpoint.leaves import checksum

__all__ = ["Damaged", "digest", "json_crc", "sealed", "unsealed"]


class Damaged(Exception):
    """JSON data whose checksum is missing or wrong."""


def json_crc(value: Any) -> int:
    """CRC-32 of JSON data, in whatever order its entries stand."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def sealed(item: Mapping[str, Any]) -> dict[str, Any]:
    """`item` as JSON reads it back, with its checksum under `crc32`; TypeError or ValueError when it is not JSON."""
    plain = json.loads(json.dumps(dict(item)))
    return {**plain, "crc32": json_crc(plain)}


def unsealed(item: Any) -> dict[str, Any]:
    """What `sealed` was given; raises `Damaged` when `item` is anything else."""
    if not isinstance(item, Mapping):
        raise Damaged("the JSON item is no object")
    plain = {name: value for name, value in item.items() if name != "crc32"}
    if item.get("crc32") != json_crc(plain):
        raise Damaged("the JSON item fails its checksum")
    return plain


def digest(tree: Any) -> int:
    """CRC-32 over the leaves of a tree: their paths, types, shapes and bytes.

    Typed keys count with their data, Python numbers and text with their value. Of other objects, and of arrays that
    are spread over several processes, only the type and the shape count.
    """
    lines = (
        f"{jax.tree_util.keystr(path)} {_described(leaf)}" for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    )
    return zlib.crc32("\n".join(lines).encode())


def _described(leaf: Any) -> str:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return f"{leaf.dtype} {_described(jax.random.key_data(leaf))}"
    if isinstance(leaf, np.ndarray | np.generic | jax.Array):
        here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        known = here and leaf.dtype.kind != "O"
        return f"{leaf.dtype} {leaf.shape} {checksum(np.asarray(leaf)) if known else None}"
    return repr(leaf) if isinstance(leaf, bool | int | float | complex | str | bytes) else type(leaf).__name__
