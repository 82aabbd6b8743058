"""The plan of the ProxylessNAS backbone: its size, its searchable blocks, and the way through them.

`jaxnas.spaces.parts.skeleton` makes the supernet and the stand-alone network of it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxnas.errors import UserError
from jaxnas.ops import Block, Classifier, ConvNormAct, MBConv, Style, Zero, rounded_width
from jaxnas.spaces.parts.checks import at_least_one
from jaxnas.spaces.parts.pieces import Fixed, Place, runs
from jaxnas.spaces.parts.skeleton import StandAlone

__all__ = ["ZERO", "BackbonePlace", "ProxylessConfig", "ProxylessNetwork", "candidates", "places"]

ZERO = "zero"


@dataclasses.dataclass(frozen=True)
class ProxylessConfig:
    """Size of a network of stages of inverted bottlenecks; the defaults are the ImageNet network of the paper.

    Attributes:
      widths: output channels of every stage.
      blocks: number of searchable blocks in every stage.
      strides: stride of the first block of every stage.
      stem: channels of the first convolution.
      stem_stride: stride of the first convolution.
      first: channels of the fixed block after it.
      last: channels of the 1x1 convolution before the classifier.
      num_classes: number of logits.
      kernels: sides of the depthwise convolutions to choose from.
      expansions: expansion factors to choose from.
      width_multiplier: factor above 0 for all widths, each then rounded to a multiple of eight; for `last` only if it
        is above one.
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
        # Stages: one entry each in all three lists, of at least 1.
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
        # Candidates: odd kernels, and at least two of them.
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
        return width if self.width_multiplier == 1 else rounded_width(width * self.width_multiplier)

    @property
    def head(self) -> int:
        """Channels before the classifier."""
        return self.scaled(self.last) if self.width_multiplier > 1 else self.last

    def pieces(self, style: Style) -> dict[str, Any]:
        """Stem, a fixed block without expansion and without a shortcut, searchable blocks, and the head.

        Biases of the classifier start at zero in the supernet; in a stand-alone network they are drawn.
        """
        bias = None if style.running else 0.0
        return {
            "stem": Fixed("stem", ConvNormAct(self.scaled(self.stem), self.stem_stride, style, kernel=3)),
            "first": Fixed("first", MBConv(self.scaled(self.first), 1, style, kernel=3, expand=1)),
            "runs": runs(self._choice(place, style) for place in places(self)),
            "last": Fixed("last", ConvNormAct(self.head, 1, style, kernel=1)),
            "classifier": Fixed("classifier", Classifier(self.num_classes, bias)),
        }

    def _choice(self, place: "BackbonePlace", style: Style) -> Place:
        blocks = {name: operation(name, place.features, place.stride, style) for name in candidates(self, place.kind)}
        return Place(place.kind, blocks, shortcut=place.kind == "inner")

    def forward(self, net: Any, x: jax.Array) -> jax.Array:
        """Logits of `x[B, H, W, C]`."""
        for piece in (net["stem"], net["first"], *net["runs"], net["last"], net["classifier"]):
            x = piece(x)
        return x


class BackbonePlace(NamedTuple):
    """One searchable block.

    Attributes:
      kind: `"entry"`, or `"inner"` where input and output have the same shape: there is a shortcut, and `zero` leaves
        the block out.
      row: place of the block's decision among those of its kind.
      features_in: channels of the input.
      features: channels of the output.
      stride: step of the output grid.
    """

    kind: str
    row: int
    features_in: int
    features: int
    stride: int


def places(config: ProxylessConfig) -> Iterator[BackbonePlace]:
    """The searchable blocks from the image to the classifier."""
    width, rows = config.scaled(config.first), {"entry": 0, "inner": 0}
    for features, count, first in zip(map(config.scaled, config.widths), config.blocks, config.strides, strict=True):
        for number in range(count):
            stride = first if number == 0 else 1
            # A block may be left out where its shortcut can stand for it.
            kind = "inner" if stride == 1 and width == features else "entry"
            yield BackbonePlace(kind, rows[kind], width, features, stride)
            rows[kind] += 1
            width = features


def candidates(config: ProxylessConfig, kind: str) -> tuple[str, ...]:
    """The operations of a kind of block, by name."""
    return (*config.operations, ZERO) if kind == "inner" else config.operations


def operation(name: str, features: int, stride: int, style: Style) -> Block:
    """The block of one candidate."""
    if name == ZERO:
        return Zero(features, stride, style)
    kernel, _, expand = name.partition("_e")
    return MBConv(features, stride, style, kernel=int(kernel.split("x")[0]), expand=int(expand))


class ProxylessNetwork(StandAlone):
    """The stand-alone network of one architecture; blocks of `zero` are left out.

    Attributes:
      dropout: probability of dropping a feature before the classifier while training.
    """

    dropout: float = 0.0

    def adapted(self, net, train, drop_rate):
        """Puts dropout before the classifier."""
        if not self.dropout or drop_rate is None or not train:
            return net
        classify, dropout = net["classifier"], nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=False)
        return {**net, "classifier": lambda x: classify(dropout(x))}
