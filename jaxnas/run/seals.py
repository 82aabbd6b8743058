"""The seal of a finished run: what its files were when it ended.

No seal covers `timing.jsonl`, since times are for people and cannot be made again; the total stands in `result.json`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxnas.errors import UserError
from jaxnas.files import json_text, read_json, read_sealed, write_sealed, write_text
from jaxnas.run.identity import IDENTITY
from jaxnas.standard_error import say

__all__ = ["Outcome", "checked_outcome", "close_run", "outcome", "sealed_identity"]

SEAL, RESULT = "seal.json", "result.json"
_OUTSIDE = (".lock", "timing.jsonl", RESULT, SEAL)


class Outcome(NamedTuple):
    """What a work directory says of the end of its run.

    Attributes:
      result: the content of `result.json`, or None while the run is not finished or where something is damaged.
      damage: words for what is damaged, or None where nothing is.
      phases: names of the phases in the seal, from whose checkpoints what is damaged can be made again.
    """

    result: dict[str, Any] | None
    damage: str | None
    phases: list[str]


def close_run(path: Path, result: Mapping[str, Any], phases: Iterable[str]) -> None:
    """Seals the files of the run and writes `result.json`, which ends it, as the last one.

    Sealed are the files of the directory itself, of `results/` and of `history/`, without those that lay there before
    the run.

    Args:
      path: the work directory.
      result: the content of `result.json`.
      phases: names of the phases that the run went through.
    """
    # `result.json` is sealed before it is written: its presence says that the run has ended.
    record, text = read_sealed(path / IDENTITY), json_text(result)
    outside = {*_OUTSIDE, *(record or {}).get("others", [])}
    known = [entry for entry in path.iterdir() if entry.name not in outside and entry.suffix != ".tmp"]
    known += [*(path / "results").rglob("*.json"), *(path / "history").rglob("*.jsonl")]
    files = {str(file.relative_to(path)): _checksum(file) for file in sorted(known) if file.is_file()}
    files[RESULT] = [len(text.encode()), zlib.crc32(text.encode())]
    write_sealed(path / SEAL, {"run": record, "phases": list(phases), "files": files})
    write_text(path / RESULT, text)


def outcome(path: Path) -> Outcome:
    """Whether the run in a directory has ended, and whether all is there that was sealed then."""
    if not (path / RESULT).exists():
        return Outcome(None, None, [])
    seal = read_sealed(path / SEAL)
    if seal is None:
        return Outcome(None, f"{SEAL} is missing or damaged", [])
    # Each sealed file has the size and the checksum that it had then.
    for name, expected in seal["files"].items():
        try:
            if _checksum(path / name) != expected:
                return Outcome(None, f"{name} is not what was written", seal["phases"])
        except OSError:
            return Outcome(None, f"{name} is missing", seal["phases"])
    return Outcome(read_json(path / RESULT), None, seal["phases"])


def checked_outcome(path: Path) -> dict[str, Any] | None:
    """The result of a run that has ended, or None; a line on stderr says what is damaged and will be made again.

    Raises:
      UserError: something is damaged and the checkpoints are gone from which it could be made.
    """
    result, damage, phases = outcome(path)
    if damage is not None:
        # The steps are not done again where every phase still has a checkpoint: only the files are.
        text = f"workdir {path} is finished, but {damage}"
        if any(not any((path / "checkpoints" / phase).glob("step_*")) for phase in phases):
            raise UserError(f"{text}, and checkpoints to mend it are gone; without result.json all is done again")
        say(f"{text}; it is finished again from its checkpoints")
    return result


def sealed_identity(path: Path) -> dict[str, Any] | None:
    """The content of `run.json` when the run ended, or None without a seal."""
    return (read_sealed(path / SEAL) or {}).get("run")


def _checksum(path: Path) -> list[int]:
    """The size of a file in bytes, and its CRC-32."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]
