"""Genotypes of the ProxylessNAS backbone: from integers to one name per block, and back from what was released."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxnas.base import Arch
from jaxnas.errors import UserError
from jaxnas.spaces.proxyless.network import ZERO, BackbonePlace, ProxylessConfig, candidates, places

__all__ = ["genotype", "parse"]


def genotype(config: ProxylessConfig, arch: Arch) -> list[str]:
    """The operation of every searchable block, from the image to the classifier."""
    return [candidates(config, place.kind)[arch[place.kind][place.row]] for place in places(config)]


def parse(config: ProxylessConfig, genotype: Any) -> Arch:
    """The architecture of a genotype.

    Args:
      config: size of the network.
      genotype: one operation per searchable block, or the description of a whole network that the released code writes
        to `net.config`, in which blocks of `zero` may be missing.

    Returns:
      Leaves `[E]`, int32.

    Raises:
      UserError: another form, another number of blocks, an operation that a block does not have.
    """
    planned = list(places(config))
    if isinstance(genotype, dict):
        genotype = list(_names(planned, _convolutions(genotype)))
    if not isinstance(genotype, list | tuple) or len(genotype) != len(planned):
        got = len(genotype) if isinstance(genotype, list | tuple) else repr(genotype)
        raise UserError(f"genotype: expected {len(planned)} blocks, got {got}")
    # One name per place, in the order of the network; rows of a kind in that order, too.
    arch: dict[str, list[int]] = {}
    for number, (place, name) in enumerate(zip(planned, genotype, strict=True)):
        names = candidates(config, place.kind)
        if name not in names:
            raise UserError(f"genotype: block {number} is {name!r}, accepted are {', '.join(names)}")
        arch.setdefault(place.kind, []).append(names.index(name))
    return {kind: np.array(rows, np.int32) for kind, rows in arch.items()}


def _convolutions(network: dict[str, Any]) -> list[dict[str, Any]]:
    """The inverted bottlenecks of a released network, without the fixed first block and without those of `zero`."""
    found = [block["mobile_inverted_conv"] for block in network["blocks"]]
    return [one for one in found if one is not None and one["name"] != "ZeroLayer"][1:]


def _names(planned: Sequence[BackbonePlace], convolutions: list[dict[str, Any]]) -> Iterator[str]:
    """The operation of every place; a place with a shortcut that the network has no block for is `zero`."""
    rest = list(convolutions)
    for number, place in enumerate(planned):
        wanted = (place.features_in, place.features, place.stride)
        first = rest[0] if rest else None
        sizes = None if first is None else (first["in_channels"], first["out_channels"], first["stride"])
        # The next block of the network, if it fits; otherwise this place was left out.
        if first is not None and sizes == wanted:
            yield f"{first['kernel_size']}x{first['kernel_size']}_e{first['expand_ratio']}"
            rest.pop(0)
        elif place.kind == "inner":
            yield ZERO
        else:
            raise UserError(f"genotype: block {number} has channels and stride {sizes}, the space has {wanted}")
    if rest:
        raise UserError(f"genotype: {len(rest)} more blocks than the space has")
