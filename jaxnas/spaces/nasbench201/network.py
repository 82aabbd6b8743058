"""The plan of the NAS-Bench-201 network: its size, the blocks of its edges, and the way through its cells.

`jaxnas.spaces.parts.skeleton` makes the supernet and the stand-alone network of it.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.errors import UserError
from jaxnas.ops import Block, Classifier, ConvNorm, Cost, Identity, Pool, Style, Zero, conv
from jaxnas.spaces.parts.cells import Cell, Stack
from jaxnas.spaces.parts.checks import at_least_one, known_operations
from jaxnas.spaces.parts.graph import CellGraph, group_of
from jaxnas.spaces.parts.pieces import Fixed

__all__ = [
    "EDGES",
    "OPERATIONS",
    "BenchmarkClassifier",
    "NasBench201Config",
    "ResidualReduce",
    "cell_of",
    "check_even",
    "operation",
]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target); node 0 is the input, node 3 the output
STAGES = 3


@dataclasses.dataclass(frozen=True)
class NasBench201Config:
    """Size of a network of three stages.

    Attributes:
      channels: width of the first stage; each further stage doubles it and halves the grid.
      cells: number of cells in every stage.
      num_classes: number of logits.
      operations: the candidates of every edge, in order.
    """

    channels: int = 16
    cells: int = 5
    num_classes: int = 10
    operations: tuple[str, ...] = OPERATIONS

    def __post_init__(self):
        """Checks sizes and operation names."""
        at_least_one(self, ("channels", "cells", "num_classes"))
        known_operations(self.operations, OPERATIONS)

    def pieces(self, style: Style) -> dict[str, Any]:
        """Stem, stages, the blocks between them, and the head.

        Outside of the cells normalisation has a scale and an offset, in the search too.
        """
        affine = dataclasses.replace(style, affine=True)
        widths = [self.channels * 2**stage for stage in range(STAGES)]
        cells = [cell_of(self.operations, width, style, i * self.cells) for i, width in enumerate(widths)]
        # The first stage has no block before it.
        halving = [Fixed(f"reduce{i}", ResidualReduce(width, 2, affine)) for i, width in enumerate(widths) if i]
        return {
            "stem": Fixed("stem", ConvNorm(self.channels, 1, affine, kernel=3, activation=None)),
            "stages": [Stack(cell, self.cells) for cell in cells],
            "reductions": halving,
            "head": {
                "norm": Fixed("norm", affine.norm()),
                "classifier": Fixed("classifier", BenchmarkClassifier(self.num_classes)),
            },
        }

    def forward(self, net: Any, x: jax.Array) -> jax.Array:
        """Logits of `x[B, H, W, C]`."""
        x = net["stages"][0](net["stem"](x))
        for halve, stage in zip(net["reductions"], net["stages"][1:], strict=True):
            x = stage(halve(x))
        return net["head"]["classifier"](jax.nn.relu(net["head"]["norm"](x)))


class ResidualReduce(Block):
    """Halves the grid between two stages: two 3x3 convolutions, and beside them a pooled 1x1 convolution.

    `ReLU-Conv3x3(stride 2)-BN-ReLU-Conv3x3-BN + Conv1x1(AvgPool2x2)`; the shortcut is not normalised.

    Raises:
      UserError: odd height or width.
    """

    stride: int = 2

    def _halves(self) -> tuple[ConvNorm, ConvNorm]:
        first = ConvNorm(self.features, 2, self.style, kernel=3, parent=None)
        return first, ConvNorm(self.features, 1, self.style, kernel=3, parent=None)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Halves `x` in height and width."""
        batch, height, width, channels = x.shape
        check_even(height, width)
        first, second = self._halves()
        # The residual branch, and the shortcut: 2x2 pixels averaged, then a 1x1 convolution.
        y = second.clone(name="second", parent=self)(first.clone(name="first", parent=self)(x))
        pooled = jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), (2, 4))
        kernel = self._kernel("shortcut", 1, channels, self.features)
        return conv(pooled, kernel, lowering=self.style.lowering) + y

    def cost(self, in_features, height, width):
        """The sum of both convolutions, and `C * D` weights of the shortcut used once per output pixel."""
        check_even(height, width)
        first, second = self._halves()
        shortcut = self._used_once(in_features * self.features, height, width)
        return shortcut + first.cost(in_features, height, width) + second.cost(self.features, height // 2, width // 2)


def check_even(height: int, width: int) -> None:
    """Raises `UserError` for a grid that cannot be halved."""
    if height % 2 or width % 2:
        raise UserError(f"image size: halving the grid needs an even height and width, got {height}x{width}")


def operation(name: str, features: int, style: Style) -> Block:
    """The block of one of the `OPERATIONS`; average pooling is not normalised."""
    if name == "none":
        return Zero(features)
    if name == "skip_connect":
        return Identity(features)
    if name == "avg_pool_3x3":
        return Pool(features, 1, style, kind="avg", normalised=False)
    return ConvNorm(features, 1, style, kernel=int(name[-1]))


def cell_of(operations: tuple[str, ...], features: int, style: Style, number: int) -> Cell:
    """One cell of the given width, the `number`-th of its network."""
    blocks = {name: operation(name, features, style) for name in operations}
    groups = {"edges": group_of(blocks, tuple(range(len(EDGES))))}
    return Cell("cell", CellGraph(EDGES, 1, groups, scanned=style.lowering != "lax"), number, spared=(Identity,))


class BenchmarkClassifier(Classifier):
    """The classifier, whose bias the benchmark counts as multiply-adds."""

    def cost(self, in_features, height=1, width=1):
        """One more multiply-add per class than the product takes."""
        return super().cost(in_features, height, width) + Cost(0, self.num_classes)
