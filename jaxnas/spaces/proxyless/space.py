"""The ProxylessNAS space: a chain of inverted bottlenecks, kernel and expansion of each to be chosen, and its depth."""

import dataclasses
import functools
from collections.abc import Sequence

from jaxnas.architectures import arch_like
from jaxnas.base import SearchSpace
from jaxnas.ops import Lowering, Style
from jaxnas.spaces.parts.skeleton import assemble
from jaxnas.spaces.proxyless.genotype import genotype, parse
from jaxnas.spaces.proxyless.latency import parts
from jaxnas.spaces.proxyless.network import ProxylessConfig, ProxylessNetwork

__all__ = ["proxyless_space"]


def proxyless_space(
    widths: Sequence[int] = (24, 40, 80, 96, 192, 320),
    blocks: Sequence[int] = (4, 4, 4, 4, 4, 1),
    strides: Sequence[int] = (2, 2, 2, 1, 2, 1),
    *,
    stem_channels: int = 32,
    stem_stride: int = 2,
    first_channels: int = 16,
    last_channels: int = 1280,
    num_classes: int = 1000,
    kernels: Sequence[int] = (3, 5, 7),
    expansions: Sequence[int] = (3, 6),
    width_multiplier: float = 1.0,
    reference: int = 0,
    dtype: str = "float32",
    lowering: Lowering = "auto",
) -> SearchSpace:
    """The space of ProxylessNAS (Cai, Zhu and Han, 2019, arXiv 1812.00332); by default the one for ImageNet.

    A convolution, a fixed block, then stages of searchable blocks. A block is one of the inverted bottlenecks `3x3_e3`,
    `3x3_e6`, `5x5_e3`, ...; where input and output have the same shape it has a shortcut around the choice, and the
    choice has one more operation, `zero`, which leaves the block out. With small strides and widths the same space
    takes images of any size.

    Args:
      widths: output channels of every stage.
      blocks: number of searchable blocks in every stage.
      strides: stride of the first block of every stage.
      stem_channels: channels of the first convolution.
      stem_stride: stride of the first convolution.
      first_channels: channels of the fixed block.
      last_channels: channels of the 1x1 convolution before the classifier.
      num_classes: number of classes.
      kernels: odd sides of the depthwise convolutions to choose from.
      expansions: expansion factors to choose from.
      width_multiplier: factor above 0 for all widths, which are then rounded to multiples of eight.
      reference: number of examples at the head of a batch that give the statistics of normalisation; 0 for all of them.
      dtype: type of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking,
        `"float64"` throughout, which needs 64-bit JAX.
      lowering: how operations are written for the backend, see `jaxnas.ops.lowering`.

    Returns:
      The space, with `choices = {"entry": [n, K], "inner": [m, K + 1]}`: the blocks without and with a shortcut, in
      their order; a kind without blocks has no entry. `derive` takes the greatest score of each.

    Raises:
      UserError: a size below one, an even kernel, fewer than two candidates, stages of different number.

    Example:
      >>> space = proxyless_space((8, 16), (2, 1), (1, 2), first_channels=8, expansions=(3,))
      >>> space.about.genotype({"entry": [2], "inner": [0, 3]})
      ['3x3_e3', 'zero', '7x7_e3']
    """
    settings = dict(locals())
    config = ProxylessConfig(
        tuple(widths),
        tuple(blocks),
        tuple(strides),
        stem_channels,
        stem_stride,
        first_channels,
        last_channels,
        num_classes,
        tuple(kernels),
        tuple(expansions),
        width_multiplier,
    )
    style = Style(affine=True, reference=reference, eps=1e-3, lowering=lowering)
    alone = dataclasses.replace(style, running=True, reference=0)

    def form(*, momentum=0.9, dropout=0.0):
        return ProxylessNetwork(config, dataclasses.replace(alone, momentum=momentum), dropout=dropout)

    space = assemble("proxyless", config, style, form, settings)
    # The notation of the paper, and the blocks as they run in a deployed network.
    about = space.about._replace(
        genotype=lambda arch: genotype(config, arch_like(space.choices, arch)),
        parse=functools.partial(parse, config),
        parts=functools.partial(parts, config, dataclasses.replace(style, running=True, train=False)),
    )
    return space._replace(about=about)
