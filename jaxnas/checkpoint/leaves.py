"""The leaves of a state as arrays that Orbax takes and records that JSON takes, and back.

Orbax refuses zero-size arrays, casts dtypes without a word and hangs at exit after some leaves it does not know, so it
only ever sees plain NumPy arrays; everything else about a leaf stands in its record.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.errors import UserError

__all__ = ["NOTHING", "checksum", "decode", "digest", "encode", "is_stored", "named_leaves", "type_name"]

NOTHING = {"nothing": np.zeros(1, np.uint8)}  # Orbax refuses an item without leaves

_SCALARS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: text == "True",
    "int": int,
    "float": float,
    "complex": complex,
}


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves with their paths, `state.params['kernel']`."""
    return [(f"state{jax.tree_util.keystr(path)}", leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def type_name(path: str, leaf: Any) -> str:
    """What a leaf is, in the words of an error message: `float32[3,4]`, `key<fry>[]`, `int`.

    Raises:
      UserError: a state cannot hold it.
    """
    if type(leaf) in (bool, int, float, complex):
        return type(leaf).__name__
    if not _is_key(leaf) and not _is_numeric(leaf):
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise UserError(f"leaf {path} is a {kind}: a state holds numeric arrays and Python numbers, text goes to meta")
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_numeric(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biufcV" or not dtype.isnative:
        return False
    return dtype.kind == "b" or jnp.issubdtype(dtype, np.number)


def encode(state: Any) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The arrays of a state for Orbax and, for JSON, one record per leaf."""
    # One transfer from the devices for all leaves; keys travel as the numbers they are made of.
    leaves = named_leaves(state)
    types = [type_name(path, leaf) for path, leaf in leaves]
    bits = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for _, leaf in leaves]
    # A record of every leaf; arrays that are not empty go to Orbax as well.
    arrays, records = {}, []
    for (path, leaf), kind, value in zip(leaves, types, jax.device_get(bits), strict=True):
        record: dict[str, Any] = {"path": path, "type": kind}
        if kind in _SCALARS:
            record["value"] = repr(leaf)
        else:
            value = np.asarray(value)
            record |= {"dtype": value.dtype.name, "shape": list(value.shape)}
        if _is_key(leaf):
            record["impl"] = str(jax.random.key_impl(leaf))
        if is_stored(record):
            arrays[path] = value
            record["crc32"] = checksum(value)
        records.append(record)
    return arrays or NOTHING, records


def decode(record: dict[str, Any], array: np.ndarray | None, leaf: Any) -> Any:
    """The saved leaf, as an object like `leaf`: its type, its sharding, committed to a device or not."""
    if record["type"] in _SCALARS:
        return _SCALARS[record["type"]](record["value"])
    if array is None:
        array = np.zeros(record["shape"], jnp.dtype(record["dtype"]))
    # NumPy leaves stay on the host; the others go where the wanted leaf lies.
    if isinstance(leaf, np.ndarray | np.generic):
        return array[()] if isinstance(leaf, np.generic) else array
    # Keys are made again from their numbers; the sharding is that of the wanted leaf.
    value: Any = array
    if "impl" in record:
        value = jax.random.wrap_key_data(jnp.asarray(array), impl=record["impl"])
    sharding = leaf.sharding if getattr(leaf, "committed", True) else None
    return jax.device_put(value, sharding, may_alias=False)


def is_stored(record: dict[str, Any]) -> bool:
    """Whether Orbax holds the leaf: an array that is not empty."""
    return "shape" in record and 0 not in record["shape"]


def checksum(array: np.ndarray) -> int:
    """CRC-32 of the bytes of an array, in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def digest(tree: Any) -> int:
    """CRC-32 over the leaves of a tree: their paths, types, shapes and bytes.

    Typed keys count with their data, Python numbers and text with their value. Of other objects, and of arrays that
    are spread over several processes, only the type and the shape count.

    Example:
      >>> digest({"steps": 10}) == digest({"steps": 10}), digest({"steps": 10}) == digest({"steps": 20})
      (True, False)
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
