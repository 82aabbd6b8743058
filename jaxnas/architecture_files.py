"""Architectures as people and programs write them down: one reader for every form and every registered space.

A source is a file, a work directory, the name of a published cell or network, or the text itself. It holds one of

* an `architecture.json`, or any dictionary with an entry `arch`, `architecture` or `genotype`;
* integers, one per decision: in a dictionary like the space's choices, in one list, or in one list per entry of the
  choices, sorted by name;
* a genotype in the paper's notation, as JSON or as the text that was released, such as
  `Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), ...)` and `|nor_conv_3x3~0|+|...|`.

Text is read as data and never run.
"""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.architectures import arch_like, check_architecture, same
from jaxnas.base import Arch, SearchSpace
from jaxnas.errors import UserError
from jaxnas.spaces import registry
from jaxnas.spaces.darts import PUBLISHED
from jaxnas.spaces.nas_rl import PUBLISHED_NETWORKS
from jaxnas.spaces.parts.literals import read_literal

__all__ = ["Source", "build_space", "decode", "read_architecture", "read_source"]

NAMES = ("arch", "architecture", "genotype")
FILE = "architecture.json"
TYPES = {"space": str, "settings": dict, "network": dict, "image_shape": list}
TEXT = re.compile(r"\s*([\[({|\"']|[A-Za-z_]\w*\s*[(=])")  # how an architecture that is no path begins


class Source(NamedTuple):
    """An architecture as it was written down, not yet compared with a space.

    Attributes:
      name: name of the source in messages.
      content: the architecture as plain data, integers or a genotype.
      record: everything that was written beside the architecture, such as the settings of the space; empty for a bare
        one.
    """

    name: str
    content: Any
    record: dict[str, Any]

    @property
    def space(self) -> str | None:
        """The space's name, if the source says it."""
        return self.record.get("space")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the space, if the source says them."""
        return self.record.get("settings") or {}

    @property
    def network(self) -> dict[str, Any] | None:
        """The form of a network whose weights exist, as changes to `about.network`, if the source says it."""
        return self.record.get("network")

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """`(H, W, C)` of the images that the network was made for, if the source says it."""
        shape = self.record.get("image_shape")
        return None if shape is None else tuple(shape)


def read_source(source: str | Path) -> Source:
    """Reads a file, a work directory, the name of a published cell or network, or the text of an architecture.

    Args:
      source: the first of these that it can be: an existing file or directory, a name of `PUBLISHED` in
        `jaxnas.spaces.darts` or of `PUBLISHED_NETWORKS` in `jaxnas.spaces.nas_rl`, text.

    Returns:
      What it holds.

    Raises:
      UserError: a source that is empty or cannot be read, or text that is neither JSON nor in a released form.
    """
    name = str(source)
    if not name.strip():
        raise UserError("architecture is empty, expected a file, a work directory, a published name or text")
    # A file comes before a published name, and both before text.
    if not _exists(name) and name in PUBLISHED:
        return Source(name, PUBLISHED[name], {"space": name.partition("_")[0]})
    if not _exists(name) and name in PUBLISHED_NETWORKS:
        layers = PUBLISHED_NETWORKS[name].strip("|").split("|")
        return Source(name, PUBLISHED_NETWORKS[name], {"space": "nas-rl", "settings": {"num_layers": len(layers)}})
    is_text = isinstance(source, str) and not _exists(name) and TEXT.match(name) is not None
    name, text = ("architecture", name) if is_text else _file(Path(source))
    try:
        return _source(name, _plain_data(text.strip()))
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def decode(space: SearchSpace, source: Source) -> Arch:
    """The architecture that a source holds, one integer per decision.

    Returns:
      Leaves `[E]`, int32.

    Raises:
      UserError: a source of another space; neither integers that fit the choices nor a genotype of the space;
        integers and a genotype side by side that do not agree.
    """
    try:
        if source.space not in (None, space.about.name):
            raise UserError(f"architecture: of space {source.space!r}, not of {space.about.name!r}")
        arch = _arch(space, source.content)
        # Integers and a genotype in one source must be the same architecture.
        beside = source.record.get("genotype")
        if beside is not None and beside is not source.content and space.about.parse is not None:
            if not same(arch, _parse(space, beside)):
                raise UserError("architecture: its integers and its genotype are two different architectures")
        return arch
    except ValueError as error:
        raise _in_source(source, error) from None


def read_architecture(space: SearchSpace, source: str | Path | Source) -> Arch:
    """Reads an architecture and checks that it is one of those that the space counts.

    Args:
      space: the space of the architecture.
      source: anything that `read_source` reads, or a `Source` that it has read.

    Returns:
      The architecture, leaves `[E]` of int32.

    Raises:
      UserError: a source that cannot be read or understood, of another space, or with an architecture outside of this.
    """
    found = source if isinstance(source, Source) else read_source(source)
    arch = decode(space, found)
    try:
        return check_architecture(space, arch)
    except ValueError as error:
        raise _in_source(found, error) from None


def build_space(source: Source, name: str | None = None, **settings: Any) -> SearchSpace:
    """The space of an architecture.

    Args:
      source: an architecture; the space and the settings that it names are used.
      name: name of the space. Without one here or in the source it is the first space of the registry with a
        stand-alone network that counts the architecture, each with its default settings. DARTS comes before SNAS.
      **settings: settings of the space, which come before those of the source.

    Raises:
      UserError: a source of another space; settings that no space can be built with; no space that fits.
    """
    if name is not None and source.space not in (None, name):
        raise UserError(f"{source.name}: architecture of space {source.space!r}, not of {name!r}")
    known = name or source.space or _guess(source)
    try:
        return registry.build(known, **{**source.settings, **settings})
    except (TypeError, AttributeError, OverflowError) as error:  # values of a type that no factory expects
        raise UserError(f"{source.name}: settings do not build space {known!r}: {error}") from None


def _in_source(source: Source, error: ValueError) -> UserError:
    """The error with the name of the source, which takes the place of the bare word."""
    return UserError(f"{source.name}: {str(error).removeprefix('architecture: ')}")


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a path, or with a null byte in it
        return False


def _file(path: Path) -> tuple[str, str]:
    """The name and the text of a file, or of the record in a work directory."""
    if path.is_dir():
        if not (path / FILE).is_file():
            raise UserError(f"{path}: the directory has no {FILE}: the run is not finished, or of a kind without one")
        path = path / FILE
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        published, networks = ", ".join(PUBLISHED), ", ".join(PUBLISHED_NETWORKS)
        hint = "" if path.exists() else f"; published cells are {published}, and published networks {networks}"
        raise UserError(f"{path}: cannot be read: {reason}{hint}") from None


def _plain_data(text: str) -> Any:
    """The data that a text stands for; a line in no other form stands for itself."""
    if text.startswith("|"):
        return text
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        try:
            return read_literal(text)
        except ValueError:
            if not text or text[0] in "[{":
                raise UserError(f"not valid JSON: {error}") from None
            return text  # a genotype that is a line of text


def _source(name: str, data: Any) -> Source:
    # A record names its architecture by one of NAMES; other data are a bare architecture.
    record = data if isinstance(data, dict) and set(NAMES) & set(data) else {}
    for entry, kind in TYPES.items():
        if record.get(entry) is not None and not isinstance(record[entry], kind):
            raise UserError(f"{entry} must be a {kind.__name__}, got {record[entry]!r}")
    shape = record.get("image_shape")  # may come from anywhere, so it is checked
    if shape is not None and not (len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        raise UserError(f"image_shape must be [height, width, channels], each at least 1, got {shape}")
    content = next((record[entry] for entry in NAMES if record.get(entry) is not None), None) if record else data
    return Source(name, content, record)


def _arch(space: SearchSpace, content: Any) -> Arch:
    # Integers, or else a genotype.
    leaves = jax.tree.leaves(content)
    if not leaves or not all(isinstance(leaf, int) for leaf in leaves):
        return _parse(space, content)
    if isinstance(content, list | tuple):
        content = _with_names(space, list(content))
    return arch_like(space.choices, content)


def _with_names(space: SearchSpace, integers: list[Any]) -> Any:
    """One list of integers, or one per leaf of the choices, in the structure of the choices."""
    leaves, treedef = jax.tree.flatten(space.choices)
    lengths = [leaf.shape[0] for leaf in leaves]
    # One list for all decisions is cut where the entries of the choices end.
    if all(isinstance(entry, int) for entry in integers):
        if len(integers) != sum(lengths):
            raise UserError(f"architecture: expected {sum(lengths)} integers, got {len(integers)}")
        ends = np.cumsum([0, *lengths]).tolist()
        integers = [integers[start:end] for start, end in itertools.pairwise(ends)]
    elif not all(isinstance(entry, list | tuple) for entry in integers) or list(map(len, integers)) != lengths:
        raise UserError(f"architecture: expected lists of {lengths} integers, got {integers}")
    return jax.tree.unflatten(treedef, [list(entry) for entry in integers])


def _parse(space: SearchSpace, genotype: Any) -> Arch:
    if space.about.parse is None:
        raise UserError(f"neither integers nor, for space {space.about.name!r}, a genotype that can be parsed")
    try:
        return space.about.parse(genotype)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise UserError(f"neither integers nor a genotype of space {space.about.name!r}{reason}") from None


def _guess(source: Source) -> str:
    """The first registered space that counts the architecture."""
    for space in _standing_alone():
        try:
            read_architecture(space, source)
        except ValueError:
            continue
        return space.about.name
    names = ", ".join(space.about.name for space in _standing_alone())
    raise UserError(f"{source.name}: of no space with its default settings; name the space and settings of {names}")


def _standing_alone() -> Iterator[SearchSpace]:
    """The registered spaces that have default settings and a stand-alone network."""
    for name in registry.names():
        if registry.needed(name):
            continue
        space = registry.build(name)
        if space.about.network is not None:
            yield space
