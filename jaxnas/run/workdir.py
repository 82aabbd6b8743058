"""The work directory: made once, tied to one configuration, its JSON files never half-written."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = ["differences", "open_workdir", "plain", "read_json", "write_json", "write_text"]


def open_workdir(path: str | Path, config: Any = None) -> Path:
    """Makes the directory if need be and writes or checks its `config.yaml`.

    Args:
      path: the work directory.
      config: dataclass instance, or None for a run without a configuration.

    Returns:
      The absolute path.

    Raises:
      ValueError: the path is a file or cannot be written to, or the directory belongs to another configuration.
    """
    path = Path(path).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(f"workdir {path} is a file, expected a directory")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"workdir {path} cannot be written to: {error.strerror}") from None
    if config is not None:
        _keep_config(path / "config.yaml", config)
    return path


def _keep_config(path: Path, config: Any) -> None:
    import tyro

    if not path.exists():
        write_text(path, tyro.extras.to_yaml(config))
        return
    try:
        former = tyro.extras.from_yaml(type(config), path.read_text())
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path} is not a configuration of {type(config).__qualname__}: {reason}") from None
    changed = differences(former, config)
    if changed:
        what = ", ".join(f"{name} is {was!r} there and {now!r} here" for name, was, now in changed)
        raise ValueError(f"workdir {path.parent} belongs to another configuration: {what}")


def differences(one: Any, other: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The fields in which two configurations differ, as `(dotted name, value, other value)`."""
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        names = [field.name for field in dataclasses.fields(one)]
        pairs = [(f"{prefix}.{name}" if prefix else name, getattr(one, name), getattr(other, name)) for name in names]
        return [difference for name, was, now in pairs for difference in differences(was, now, name)]
    return [] if repr(one) == repr(other) else [(prefix, one, other)]


def write_json(path: Path, value: Any) -> None:
    """Writes `plain(value)`; a reader sees the former file or the new one, never a part."""
    write_text(path, json.dumps(plain(value), indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None when there is no such file or it is not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_text(path: Path, text: str) -> None:
    """Replaces the file in one step, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def plain(value: Any) -> Any:
    """Data that every JSON reader takes: arrays as lists, tuples with names as objects, NaN and infinities as text."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        return plain((array if array.dtype.kind in "biufUO" else array.astype(np.float32)).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
