"""What a work directory is tied to: one configuration, one seed, and what a saved state means."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxnas.checkpoint import digest
from jaxnas.errors import UserError
from jaxnas.files import differences, read_sealed, refuse, write_sealed, write_text
from jaxnas.run.settings import read_settings, settings_of, settings_text
from jaxnas.standard_error import say

__all__ = ["IDENTITY", "STATE", "Identity", "named_key", "tie"]

# The version of what a saved state means. It goes up when a step starts to make something else of a state of the same
# form; checkpoints that were written before are then refused.
STATE = 1

IDENTITY = "run.json"


def named_key(seed: int, name: str) -> jax.Array:
    """The key of that name in a run with that seed, as `Run.key` gives it; for processes that have no run.

    Example:
      >>> named_key(0, "search") == jax.random.fold_in(jax.random.key(0), zlib.crc32(b"search"))
      Array(True, dtype=bool)
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


class Identity(NamedTuple):
    """The seed and the configuration that make one run.

    Attributes:
      seed: the seed of the run's key.
      config: the configuration, a dataclass instance, or None for a run without one.
    """

    seed: int
    config: Any

    def record(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return {"seed": int(self.seed), "state": STATE, "config": settings_of(self.config)}

    def mark(self) -> dict[str, Any]:
        """The record with a checksum for the configuration, which every checkpoint and result of the run carries."""
        record = self.record()
        return {**record, "config": None if self.config is None else digest(record["config"])}


def tie(path: Path, identity: Identity, *, sealed: Mapping[str, Any] | None = None, write: bool = True) -> None:
    """Ties the directory to the run, or checks that it belongs to it.

    `config.yaml` and `run.json` say the same: one that is lost or damaged is written anew from the other. `run.json`
    also names the files that lay in the directory before, which are no part of the run.

    Args:
      path: the directory.
      identity: the identity of the run that wants to go on there.
      sealed: the content of `run.json` that the seal of a finished run holds; used where the file is lost.
      write: whether the files may be written, which is for the owner of the directory alone.

    Raises:
      UserError: the directory belongs to another run.
    """
    record, on_disk = identity.record(), read_sealed(path / IDENTITY)
    former = on_disk or sealed
    # A `config.yaml` that cannot be read may be written anew where `run.json` vouches for the configuration.
    same = former is not None and former.get("config") == record["config"]
    _check_config(path, identity.config, rebuild=write and same)
    if former is not None:
        # The configuration comes first, since its fields mean the most to a reader.
        refuse(f"workdir {path}", "configuration", differences(former.get("config"), record["config"]))
        names = ("seed", "state")
        refuse(f"workdir {path}", "run", [found for found in differences(former, record) if found[0] in names])
    if not write:
        return
    strangers = _strangers(path) if former is None else former.get("others", [])
    if identity.config is not None:
        _write_if_changed(path / "config.yaml", settings_text(identity.config))
    if on_disk is None:
        write_sealed(path / IDENTITY, {**record, "others": strangers})


def _write_if_changed(file: Path, text: str) -> None:
    """Writes the text, unless the file holds it already."""
    with contextlib.suppress(OSError, ValueError):
        if file.read_text() == text:
            return
    write_text(file, text)


def _strangers(path: Path) -> list[str]:
    """The files in a directory that no run has used yet."""
    used = any((path / name).exists() for name in ("config.yaml", "metrics.jsonl", "checkpoints"))
    return [] if used else sorted(entry.name for entry in path.iterdir() if entry.name != ".lock" and entry.is_file())


def _check_config(path: Path, config: Any, *, rebuild: bool) -> None:
    """Compares `config.yaml`; one that cannot be read is removed, to be written anew, or refused."""
    file = path / "config.yaml"
    if config is None or not file.exists():
        return
    # A file that cannot be read is made anew where the configuration is known from elsewhere.
    try:
        former = read_settings(file.read_text(), config)
    except Exception as error:
        if rebuild:
            say(f"{file} cannot be read and is written anew")
            file.unlink()
            return
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file} is not a configuration of {type(config).__qualname__}: {reason}") from None
    refuse(f"workdir {path}", "configuration", differences(former, settings_of(config)))
