"""Files that are never half-written, and JSON that says when it has been altered."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnas.errors import FileError, UserError

__all__ = [
    "Damaged",
    "differences",
    "is_full",
    "json_text",
    "make_workdir",
    "plain",
    "read_json",
    "read_sealed",
    "reason",
    "refuse",
    "sealed",
    "unsealed",
    "write_bytes",
    "write_json",
    "write_sealed",
    "write_text",
    "writing",
]


class Damaged(Exception):
    """JSON data whose checksum is missing or wrong."""


def sealed(item: Mapping[str, Any]) -> dict[str, Any]:
    """`item` as JSON reads it back, with its checksum under `crc32`; TypeError or ValueError when it is not JSON."""
    value = json.loads(json.dumps(dict(item)))
    return {**value, "crc32": _crc(value)}


def unsealed(item: Any) -> dict[str, Any]:
    """What `sealed` was given; raises `Damaged` when `item` is anything else."""
    if not isinstance(item, Mapping):
        raise Damaged("the JSON item is no object")
    value = {name: entry for name, entry in item.items() if name != "crc32"}
    if item.get("crc32") != _crc(value):
        raise Damaged("the JSON item fails its checksum")
    return value


def _crc(value: Any) -> int:
    """CRC-32 of JSON data, in whatever order its entries stand."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def make_workdir(path: str | Path) -> Path:
    """Makes the directory if need be and returns its absolute path.

    Raises:
      UserError: the path is a file, or the directory cannot be made.
    """
    try:
        path = Path(path).expanduser().absolute()
        if path.exists() and not path.is_dir():
            raise UserError(f"workdir {path} is a file, expected a directory")
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter where `~` has no meaning
        raise UserError(f"workdir {path} cannot be written to: {getattr(error, 'strerror', error)}") from None
    return path


def write_json(path: Path, value: Any) -> None:
    """Writes `plain(value)`; a reader sees the former file or the new one, never a part."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(plain(value), indent=2) + "\n"


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None when there is no such file or it is not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with its checksum, for `read_sealed`.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_sealed(Path(folder) / "record.json", {"error": float("nan")})
      ...     read_sealed(Path(folder) / "record.json")
      {'error': 'NaN'}
    """
    write_json(path, sealed(plain(value)))


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` was given, or None when the file is missing or holds anything else."""
    try:
        return unsealed(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError, Damaged):
        return None


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one step; folders on the way to it are made.

    Args:
      path: the file.
      content: all that the file is to hold.

    Raises:
      FileError: the disk does not take it, said in one line; the former file is still there.
    """
    # A reader or a kill meets the former file or the new one: the new one gets its name when it is whole.
    temporary = path.with_name(f"{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says against writing a file into one line."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} cannot be written: {reason(error)}") from None


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that there is no room left on the disk."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def reason(error: OSError) -> str:
    """What the system says, and what helps where the disk is full."""
    return f"{error.strerror}{'; with more room the same command goes on' if is_full(error) else ''}"


def plain(value: Any) -> Any:
    """Data that every JSON reader takes: arrays as lists, tuples with names as objects, NaN and infinities as text.

    Example:
      >>> plain({"arch": np.array([1, 2]), 3: (float("inf"), Path("runs"))})
      {'arch': [1, 2], '3': ['Infinity', 'runs']}
    """
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        return plain((array if array.dtype.kind in "biufUO" else array.astype(np.float32)).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
    # Containers, entry by entry; named tuples before other tuples.
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def refuse(place: str, what: str, changed: list[tuple[str, Any, Any]]) -> None:
    """Raises `UserError` if anything has changed.

    Args:
      place: the file or folder that was found, as the message names it.
      what: the noun for what it belongs to, for example `"configuration"`.
      changed: the differences between what is there and what is wanted, from `differences`; empty if they agree.
    """
    if changed:
        fields = ", ".join(f"{name} is {was!r} there and {now!r} here" for name, was, now in changed)
        raise UserError(f"{place} belongs to another {what}: {fields}")


def differences(one: Any, other: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The entries in which two nested mappings differ, as `(dotted name, value, other value)`.

    Example:
      >>> differences({"search": {"steps": 10, "seed": 0}}, {"search": {"steps": 20, "seed": 0}})
      [('search.steps', 10, 20)]
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = [f"{prefix}.{name}" if prefix else name for name in {**one, **other}]
        pairs = [(one.get(name), other.get(name)) for name in {**one, **other}]
        return [found for name, pair in zip(names, pairs, strict=True) for found in differences(*pair, name)]
    return [] if repr(one) == repr(other) else [(prefix or "config", one, other)]
