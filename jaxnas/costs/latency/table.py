"""Latency tables: milliseconds of every distinct block of a space on one device, as files and as costs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.base import CostTable, Part, SearchSpace
from jaxnas.errors import UserError

__all__ = ["LatencyTable", "latency_cost", "read_latency", "space_parts", "write_latency"]

FORMAT = "jaxnas latency 1"


class LatencyTable(NamedTuple):
    """The latencies of blocks on one device.

    Attributes:
      entries: milliseconds above 0 for each block, under its `Part.key`.
      about: how the table was made: device, jax version, batch, dtype and the like.
    """

    entries: Mapping[str, float]
    about: Mapping[str, Any]


def read_latency(path: str | Path) -> LatencyTable:
    """Reads a table: the JSON of `write_latency`, or the published tables of ProxylessNAS, JSON or YAML.

    The published form is `{key: {"mean": milliseconds, ...}}`.

    Raises:
      UserError: a missing or damaged file, an entry that is not a positive number, the same entry twice.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"there is no latency table {file}")
    # The text as JSON or YAML, in which every entry may stand once.
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_each_once) if text.lstrip().startswith("{") else _yaml(text)
    except _Twice as error:
        raise UserError(f"{file} {error}") from None
    except Exception as error:
        raise UserError(f"{file} is neither JSON nor YAML: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds {type(content).__name__}, expected a table of entries")
    if content.get("format", FORMAT) != FORMAT:
        raise UserError(f"{file}: format is {content['format']!r}, expected {FORMAT!r}")
    # Our form has the entries below a heading; the published one is the entries alone.
    ours = "format" in content
    entries = content.get("entries", {}) if ours else content
    if not isinstance(entries, dict):
        raise UserError(f"{file}: entries is {type(entries).__name__}, expected one entry by key")
    found = {key: _milliseconds(file, key, entry) for key, entry in entries.items()}
    if not found:
        raise UserError(f"{file} has no entries")
    return LatencyTable(found, content.get("about", {}) if ours else {"source": file.name})


def write_latency(path: str | Path, table: LatencyTable) -> None:
    """Writes a table as JSON, entries in the order of their keys.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_latency(f"{folder}/table.json", LatencyTable({"Conv": 1.5}, {"device": "cpu"}))
      ...     read_latency(f"{folder}/table.json")
      LatencyTable(entries={'Conv': 1.5}, about={'device': 'cpu'})
    """
    entries = {key: {"mean": table.entries[key]} for key in sorted(table.entries)}
    content = {"format": FORMAT, "about": dict(table.about), "entries": entries}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def space_parts(space: SearchSpace, image_shape: tuple[int, int, int]) -> tuple[tuple[Part, ...], Any]:
    """The fixed blocks of a space, and those of every candidate, in the form of `About.parts`.

    Raises:
      UserError: a space that does not name its blocks.
    """
    if space.about.parts is None:
        raise UserError(f"space {space.about.name!r} does not name its blocks: its about.parts is None")
    return space.about.parts(tuple(image_shape))


def latency_cost(table: LatencyTable, space: SearchSpace, image_shape: tuple[int, int, int]) -> CostTable:
    """The latency of a space's architectures as the sum of their blocks, in milliseconds.

    Args:
      table: the latencies, with an entry for every block of the space.
      space: a space that names its blocks.
      image_shape: the shape of one image, `(H, W, C)`.

    Raises:
      UserError: a block without an entry, by name, or a space that does not name its blocks.
    """
    fixed, choices = space_parts(space, image_shape)

    def milliseconds(part: Part | None) -> float:
        if part is None:
            return 0.0
        if part.key not in table.entries:
            device = table.about.get("device", table.about.get("source", "the table"))
            raise UserError(f"the latency table of {device} has no entry {part.key!r}")
        return table.entries[part.key]

    # Milliseconds of every candidate, 0 for one that leaves the block out.
    tables = {
        name: np.array([[milliseconds(part) for part in row] for row in rows], np.float64)
        for name, rows in choices.items()
    }
    return CostTable(sum(milliseconds(part) for part in fixed), tables)


class _Twice(Exception):
    """One key occurs more than once: which of its values is meant cannot be known."""


def _each_once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dictionary of the pairs, each of whose keys occurs once."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Twice(f"has the entry {twice!r} {keys.count(twice)} times")
    return entries


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            pairs = [(self.construct_object(key, deep=True), value) for key, value in node.value]
            _each_once(pairs)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)


def _milliseconds(file: Path, key: Any, entry: Any) -> float:
    value = entry.get("mean") if isinstance(entry, dict) else entry
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise UserError(f"{file}: entry {key!r} is {entry!r}, expected milliseconds above 0 as its mean")
    return float(value)
