"""What a space holds and what an architecture costs: `python -m jaxnas.describe SPACE [--arch FILE]`.

    python -m jaxnas.describe snas --set channels=36 --set cells=20 --arch runs/snas-cifar10-0/architecture.json

prints JSON. Nothing is trained or even allocated: supernets are only traced for their shapes.
"""

import argparse
import inspect
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, SearchSpace, arch_like
from jaxnas.costs import cost, count_parameters, space_tables
from jaxnas.spaces import registry

__all__ = ["IMAGE_SHAPE", "architecture_summary", "check_architecture", "main", "read_architecture", "space_summary"]

IMAGE_SHAPE = (32, 32, 3)  # CIFAR's, which most spaces were published for


def space_summary(space: SearchSpace, image_shape: Sequence[int] = IMAGE_SHAPE) -> dict[str, Any]:
    """What a space holds, as plain data.

    Args:
      space: the space.
      image_shape: `(H, W, C)`, on which the sizes of weights may depend.

    Returns:
      `space`, `settings`, `decisions` (per leaf of `choices` their number and the operations), `architectures` (exact,
      or None where the space does not know) and `architectures_log10`, `supernet_parameters`, `image_shape`.
    """
    about, size = space.about, space.about.size
    return {
        "space": about.name,
        "settings": about.config,
        "decisions": _decisions(space),
        "architectures": size,
        "architectures_log10": None if size is None else round(math.log10(size), 3),
        "supernet_parameters": count_parameters(jax.eval_shape(space.init, jax.random.key(0), _batch(image_shape))),
        "image_shape": list(image_shape),
    }


def architecture_summary(space: SearchSpace, arch: Arch, image_shape: Sequence[int] = IMAGE_SHAPE) -> dict[str, Any]:
    """What an architecture is and costs, as plain data: the content of an `architecture.json`.

    Args:
      space: the space.
      arch: leaves `[E]` of integers.
      image_shape: `(H, W, C)`.

    Returns:
      `space`, `arch` (one integer per decision), `genotype` in the paper's notation, `parameters` and `macs`
      (multiply-adds of one image) of the stand-alone network, each None where the space does not know, and every
      other cost of which the space has a table.

    Raises:
      ValueError: an architecture outside of the space.
    """
    arch, about = arch_like(space.choices, arch), space.about
    costs: dict[str, Any] = {"parameters": None, "macs": None}
    if about.costs is not None:
        costs |= {name: cost(table, arch).item() for name, table in space_tables(space, image_shape).items()}
    elif about.network is not None:
        shapes = jax.eval_shape(about.network(arch).init, jax.random.key(0), _batch(image_shape))
        costs["parameters"] = count_parameters(shapes.get("params", shapes))
    genotype = None if about.genotype is None else about.genotype(arch)
    return {"space": about.name, "arch": jax.tree.map(np.ndarray.tolist, arch), "genotype": genotype, **costs}


def check_architecture(space: SearchSpace, arch: Any) -> Arch:
    """Returns `arch` as int32 arrays if it is one of those that the space counts: one that `derive` can return.

    Raises:
      ValueError: another structure, an operation that does not exist, or decisions that `derive` never takes, as of
        three edges into one node in the space of DARTS.
    """
    arch = arch_like(space.choices, arch)
    # One-hot scores ask for this architecture as clearly as scores can.
    scores = jax.tree.map(lambda c, leaf: 20.0 * jax.nn.one_hot(leaf, c.shape[-1]), space.choices, arch)
    derived = jax.tree.map(np.asarray, jax.jit(space.derive)(scores))
    if not all(jax.tree.leaves(jax.tree.map(np.array_equal, arch, derived))):
        raise ValueError(
            f"architecture: outside of space {space.about.name}, whose rule would derive {_plain(derived)}"
        )
    return arch


def read_architecture(space: SearchSpace, path: str | Path) -> Arch:
    """Reads an architecture from a file.

    Args:
      space: the space it is of.
      path: an `architecture.json`, bare JSON of one integer per decision, or a genotype in the paper's notation, as
        JSON or as text.

    Returns:
      The architecture, leaves `[E]`.

    Raises:
      ValueError: a file that cannot be read or understood, of another space, or with an architecture outside of this.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"{path}: cannot be read: {reason}") from None
    try:
        return check_architecture(space, _decode(space, text))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _decode(space: SearchSpace, text: str) -> Any:
    """The integers that a file's text stands for, not yet checked."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if not text or text[0] in "[{":
            raise ValueError(f"not valid JSON: {error}") from None
        content = text  # a genotype that is a line of text
    if isinstance(content, dict) and {"arch", "architecture"} & set(content):
        _check_name(space, content.get("space"))
        content = content.get("arch", content.get("architecture"))
    leaves = jax.tree.leaves(content)
    if not leaves or not all(isinstance(leaf, int) for leaf in leaves):
        return _parse(space, content)
    try:
        return arch_like(space.choices, content)
    except ValueError:
        if space.about.parse is None or isinstance(content, dict):
            raise
        return _parse(space, content)  # a genotype may be made of integers too


def _check_name(space: SearchSpace, name: Any) -> None:
    if name is not None and name != space.about.name:
        raise ValueError(f"architecture: of space {name!r}, not of {space.about.name!r}")


def _parse(space: SearchSpace, genotype: Any) -> Any:
    if space.about.parse is None:
        raise ValueError(f"neither integers nor, for space {space.about.name!r}, a genotype that can be parsed")
    try:
        return space.about.parse(genotype)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise ValueError(f"neither integers nor a genotype of space {space.about.name!r}{reason}") from None


def _decisions(space: SearchSpace) -> dict[str, Any]:
    found = {}

    def leaf_summary(path, leaf, names):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "all"
        operations = list(range(leaf.shape[-1])) if names is None else list(names)
        found[name] = {"count": math.prod(leaf.shape[:-1]), "operations": operations}

    names = space.about.operations
    names = jax.tree.map(lambda leaf: None, space.choices) if names is None else names
    jax.tree_util.tree_map_with_path(leaf_summary, space.choices, names)
    return found


def _batch(image_shape: Sequence[int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((4, *image_shape), jnp.float32)


def _plain(arch: Arch) -> str:
    return json.dumps(jax.tree.map(np.ndarray.tolist, arch))


def _value(name: str, text: str, default: Any) -> Any:
    """Reads the value of one setting: of the type of its default, or JSON where there is none."""
    kind = "a whole number" if type(default) is int else "a number"
    try:
        if default is None or default is inspect.Parameter.empty:
            kind = "JSON"
            return json.loads(text)
        if isinstance(default, bool):
            kind = "true or false"
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int | float):
            return type(default)(text)
    except (KeyError, ValueError):
        raise ValueError(f"--set {name}: expected {kind}, got {text!r}") from None
    return tuple(part.strip() for part in text.split(",")) if isinstance(default, tuple | list) else text


def _settings(space: str, pairs: Sequence[str]) -> dict[str, Any]:
    known, settings = registry.defaults(space), {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair}: expected name=value")
        settings[name] = _value(name, text, known.get(name, text))
    return settings


def _image_shape(text: str) -> tuple[int, ...]:
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"--image {text}: expected HEIGHTxWIDTHxCHANNELS, as 32x32x3")
    return tuple(int(side) for side in sides)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the description of a space, and of an architecture; returns 0, or 2 after one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m jaxnas.describe", description="Describe a search space.")
    parser.add_argument("space", metavar="SPACE", help=", ".join(registry.names()))
    parser.add_argument("--arch", metavar="FILE", help="architecture.json, bare integers as JSON, or a genotype")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a setting of the space")
    parser.add_argument(
        "--image", metavar="HxWxC", default="x".join(map(str, IMAGE_SHAPE)), help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    try:
        shape = _image_shape(options.image)
        space = registry.build(options.space, **_settings(options.space, options.set))
        summary = space_summary(space, shape)
        if options.arch is not None:
            arch = read_architecture(space, options.arch)
            summary["architecture"] = architecture_summary(space, arch, shape)
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
