"""What a space holds and what an architecture costs: `python -m jaxnas.describe SPACE [--arch SOURCE]`.

    python -m jaxnas.describe snas --set channels=36 --set cells=20 --arch runs/snas-cifar10-0

prints JSON. SOURCE takes every form of `jaxnas.architecture_files`; the settings, the image shape and the form of the
network that it says are used where the command line says nothing else. Nothing is trained or even allocated: supernets
are only traced for their shapes.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architecture_files import build_space, read_architecture, read_source
from jaxnas.architectures import arch_like
from jaxnas.base import Arch, SearchSpace
from jaxnas.command import Parser, answer
from jaxnas.costs import cost, count_parameters, space_tables
from jaxnas.derive import known_form
from jaxnas.errors import UserError
from jaxnas.spaces import registry

__all__ = ["IMAGE_SHAPE", "architecture_summary", "main", "network_costs", "space_summary"]

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


def network_costs(
    space: SearchSpace, arch: Arch, image_shape: Sequence[int] = IMAGE_SHAPE, **changes: Any
) -> dict[str, int | float | None]:
    """What one network of an architecture costs: the only place where `parameters` and `macs` come from.

    Args:
      space: the space.
      arch: leaves `[E]` of integers.
      image_shape: `(H, W, C)`.
      **changes: the form of the network, as for `space.about.network`. Without any it is the form that is trained from
        scratch; with those of `space.about.supernet` it is the form that inherits the weights of a supernet.

    Returns:
      `parameters`, the exact number of entries of `variables["params"]`; `macs`, the exact multiply-adds of one image,
      None where the space cannot count them; and every other cost that the space knows. For a space
      without stand-alone networks, `parameters` are those of the supernet, which takes their place.

    Raises:
      UserError: an architecture outside of the space, or a form that the space does not have.
    """
    arch, about = arch_like(space.choices, arch), space.about
    costs: dict[str, Any] = {"parameters": None, "macs": None}
    with known_form(space, changes):
        # Counted network by network, from tables over decisions, or parameters alone from the shapes of weights.
        if about.counts is not None:
            return costs | about.counts(arch, tuple(image_shape), **changes)
        if about.costs is not None:
            tables = space_tables(space, image_shape, **changes)
            return costs | {name: cost(table, arch).item() for name, table in tables.items()}
        init = space.init if about.network is None else about.network(arch, **changes).init
    shapes = jax.eval_shape(init, jax.random.key(0), _batch(image_shape))
    if about.network is not None:
        shapes = shapes.get("params", shapes)
    return costs | {"parameters": count_parameters(shapes)}


def architecture_summary(
    space: SearchSpace,
    arch: Arch,
    image_shape: Sequence[int] = IMAGE_SHAPE,
    *,
    network: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What an architecture is and what its network costs, as plain data.

    Args:
      space: the space.
      arch: leaves `[E]` of integers.
      image_shape: `(H, W, C)`.
      network: the form of a network that exists, as changes to `space.about.network`; None for one that is yet to be
        trained from scratch.

    Returns:
      `space`, `arch` (one integer per decision), `genotype` in the paper's notation, and the costs of the network in
      that form, see `network_costs`. With `network` also `parameters_retrained` and `macs_retrained`: the costs of the
      form that is trained from scratch.

    Raises:
      UserError: an architecture outside of the space, or a form that the space does not have.
    """
    arch, about = arch_like(space.choices, arch), space.about
    costs = network_costs(space, arch, image_shape, **(network or {}))
    if network is not None:
        scratch = network_costs(space, arch, image_shape)
        costs |= {f"{name}_retrained": scratch[name] for name in ("parameters", "macs")}
    genotype = None if about.genotype is None else about.genotype(arch)
    return {"space": about.name, "arch": jax.tree.map(np.ndarray.tolist, arch), "genotype": genotype, **costs}


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


def _image_shape(text: str) -> tuple[int, ...]:
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UserError(f"--image {text}: expected HEIGHTxWIDTHxCHANNELS, as 32x32x3")
    return tuple(int(side) for side in sides)


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    settings = registry.settings_from_text(options.space, options.set)
    shape = None if options.image is None else _image_shape(options.image)
    if options.arch is None:
        return space_summary(registry.build(options.space, **settings), shape or IMAGE_SHAPE)
    # What the command line does not say, the source does.
    source = read_source(options.arch)
    space = build_space(source, options.space, **settings)
    shape = shape or source.image_shape or IMAGE_SHAPE
    arch = read_architecture(space, source)
    summary = architecture_summary(space, arch, shape, network=source.network)
    return {**space_summary(space, shape), "architecture": summary}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the description of a space, and of an architecture; returns 0, or 2 after one line on standard error."""
    parser = Parser(prog="python -m jaxnas.describe", description="Describe a search space.")
    parser.add_argument("space", metavar="SPACE", help=", ".join(registry.names()))
    parser.add_argument(
        "--arch",
        metavar="SOURCE",
        help="file, work directory, name of a published cell or network, or text: an architecture.json, integers "
        "(nested or in one list), a genotype as JSON or as released",
    )
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a setting of the space")
    parser.add_argument("--image", metavar="HxWxC", help="default: that of the source, or 32x32x3")
    options = parser.parse_args(arguments)
    return answer(lambda: print(json.dumps(_describe(options), indent=2)))


if __name__ == "__main__":
    sys.exit(main())
