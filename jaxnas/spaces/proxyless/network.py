"""The ProxylessNAS backbone: its plan, its blocks and its stand-alone network.

`jaxnas.spaces.proxyless` builds the supernet from the same plan and the same blocks.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.errors import UserError
from jaxnas.ops import Block, Classifier, ConvNormRelu6, MBConv, Style, Zero
from jaxnas.spaces.parts.checks import at_least_one

__all__ = [
    "Place",
    "ProxylessConfig",
    "ProxylessNetwork",
    "bottleneck",
    "candidates",
    "choices_of",
    "first_block",
    "last_conv",
    "operation",
    "places",
    "stem",
]

ZERO = "zero"


@dataclasses.dataclass(frozen=True)
class ProxylessConfig:
    """Size of a network of stages of inverted bottlenecks; the defaults are the ImageNet network of the paper.

    Attributes:
      widths: output channels of every stage.
      blocks: searchable blocks of every stage.
      strides: of the first block of every stage.
      stem: channels of the first convolution.
      stem_stride: its stride.
      first: channels of the fixed block after it.
      last: channels of the 1x1 convolution before the classifier.
      num_classes: width of the output.
      kernels: sides of the depthwise convolutions to choose from.
      expansions: factors to choose from.
      width_multiplier: of all widths, each then rounded to a multiple of eight; of `last` only if above one.
    """

    widths: tuple[int, ...] = (24, 40, 80, 96, 192, 320)
    blocks: tuple[int, ...] = (4, 4, 4, 4, 4, 1)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2, 1)
    stem: int = 32
    stem_stride: int = 2
    first: int = 16
    last: int = 1280
    num_classes: int = 1000
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 6)
    width_multiplier: float = 1.0

    def __post_init__(self):
        """Checks sizes."""
        stages = len(self.widths)
        if not stages or len(self.blocks) != stages or len(self.strides) != stages:
            counts = stages, len(self.blocks), len(self.strides)
            raise UserError(
                f"widths, blocks and strides need one entry per stage, got {counts[0]}, {counts[1]}, {counts[2]}"
            )
        for name in ("widths", "blocks", "strides", "kernels", "expansions"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        at_least_one(self, ("stem", "stem_stride", "first", "last", "num_classes"))
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise UserError(f"kernels must be odd, got {self.kernels}")
        if len(self.kernels) * len(self.expansions) < 2:
            raise UserError("a choice needs at least two operations: more kernels or expansions")
        if not self.width_multiplier > 0:
            raise UserError(f"width_multiplier must be above 0, got {self.width_multiplier}")

    @property
    def operations(self) -> tuple[str, ...]:
        """Candidates without `zero`, in the order of the released code: `3x3_e3, 3x3_e6, 5x5_e3, ...`."""
        return tuple(f"{kernel}x{kernel}_e{expand}" for kernel in self.kernels for expand in self.expansions)

    def scaled(self, width: int) -> int:
        """A width after the multiplier, a multiple of eight that is not below nine tenths of it."""
        if self.width_multiplier == 1:
            return width
        wanted = width * self.width_multiplier
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    @property
    def head(self) -> int:
        """Channels before the classifier."""
        return self.scaled(self.last) if self.width_multiplier > 1 else self.last


class Place(NamedTuple):
    """One searchable block.

    Attributes:
      kind: `"entry"`, or `"inner"` where input and output have the same shape: there is a shortcut, and `zero` leaves
        the block out.
      row: which decision of that kind it is.
      features_in: channels of the input.
      features: channels of the output.
      stride: of the block.
    """

    kind: str
    row: int
    features_in: int
    features: int
    stride: int


def places(config: ProxylessConfig) -> Iterator[Place]:
    """The searchable blocks from the image to the classifier."""
    width, rows = config.scaled(config.first), {"entry": 0, "inner": 0}
    for features, count, first in zip(map(config.scaled, config.widths), config.blocks, config.strides, strict=True):
        for number in range(count):
            stride = first if number == 0 else 1
            kind = "inner" if stride == 1 and width == features else "entry"
            yield Place(kind, rows[kind], width, features, stride)
            rows[kind] += 1
            width = features


def candidates(config: ProxylessConfig, kind: str) -> tuple[str, ...]:
    """The operations of a kind of block, by name."""
    return (*config.operations, ZERO) if kind == "inner" else config.operations


def choices_of(config: ProxylessConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The decisions: `{"entry": [n, K], "inner": [m, K + 1]}`, without a kind that has no blocks."""
    counted = [place.kind for place in places(config)]
    shapes = {kind: (counted.count(kind), len(candidates(config, kind))) for kind in ("entry", "inner")}
    return {kind: jax.ShapeDtypeStruct(shape, jnp.float32) for kind, shape in shapes.items() if shape[0]}


def bottleneck(name: str, features: int, stride: int, style: Style) -> MBConv:
    """The block of a candidate that is not `zero`."""
    kernel, _, expand = name.partition("_e")
    return MBConv(features, stride, style, kernel=int(kernel.split("x")[0]), expand=int(expand))


def operation(name: str, features: int, stride: int, style: Style) -> Block:
    """The block of one candidate."""
    return Zero(features, stride, style) if name == ZERO else bottleneck(name, features, stride, style)


def stem(config: ProxylessConfig, style: Style) -> ConvNormRelu6:
    """The first convolution."""
    return ConvNormRelu6(config.scaled(config.stem), config.stem_stride, style, kernel=3)


def first_block(config: ProxylessConfig, style: Style) -> MBConv:
    """The fixed block after it, without expansion and without a shortcut."""
    return MBConv(config.scaled(config.first), 1, style, kernel=3, expand=1)


def last_conv(config: ProxylessConfig, style: Style) -> ConvNormRelu6:
    """The 1x1 convolution before the classifier."""
    return ConvNormRelu6(config.head, 1, style, kernel=1)


class ProxylessNetwork(nn.Module):
    """The stand-alone network of one architecture; blocks of `zero` are left out.

    Attributes:
      config: size of the network.
      chosen: operation of every block, in order.
      style: normalisation and lowering; `style.train` is set by the call.
      dropout: rate before the classifier while training.
    """

    config: ProxylessConfig
    chosen: tuple[str, ...]
    style: Style
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: jax.Array | float | None = None) -> jax.Array:
        """Logits of `x[B, H, W, C]`.

        Args:
          x: images.
          train: use the statistics of the batch.
          drop_rate: not None turns dropout on, from the stream `dropout`.
        """
        style = dataclasses.replace(self.style, train=train)
        x = stem(self.config, style).clone(name="stem", parent=self)(x)
        x = first_block(self.config, style).clone(name="first", parent=self)(x)
        for number, (place, name) in enumerate(zip(places(self.config), self.chosen, strict=True)):
            if name == ZERO:
                continue
            block = operation(name, place.features, place.stride, style)
            y = block.clone(name=f"block{number}_{name}", parent=self)(x)
            x = x + y if place.kind == "inner" else y
        x = last_conv(self.config, style).clone(name="last", parent=self)(x)
        if self.dropout and drop_rate is not None and train:
            x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=False)(x)
        return Classifier(self.config.num_classes, name="classifier")(x)
