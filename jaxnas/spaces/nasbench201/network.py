"""The NAS-Bench-201 macro structure: its plan and its stand-alone network as a Linen module.

`jaxnas.spaces.nasbench201` builds the supernet from the same plan and the same blocks.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.errors import UserError
from jaxnas.ops import Block, Classifier, ConvNorm, Cost, Identity, Norm, Pool, Style, Zero, conv, drop_path
from jaxnas.spaces.parts.checks import at_least_one, known_operations

__all__ = [
    "EDGES",
    "OPERATIONS",
    "NasBench201Config",
    "NasBench201Network",
    "ResidualReduce",
    "check_even",
    "last_norm",
    "operation",
    "reduction",
    "stem",
]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target); node 0 is the input, node 3 the output
STAGES = 3


@dataclasses.dataclass(frozen=True)
class NasBench201Config:
    """Size of a network of three stages.

    Attributes:
      channels: of the first stage; each further stage doubles them and halves the grid.
      cells: per stage.
      num_classes: width of the output.
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

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the three stages."""
        return tuple(self.channels * 2**stage for stage in range(STAGES))


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
        y = second.clone(name="second", parent=self)(first.clone(name="first", parent=self)(x))
        pooled = jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), (2, 4))
        kernel = self._kernel("shortcut", 1, channels, self.features)
        return conv(pooled, kernel, lowering=self.style.lowering) + y

    def cost(self, in_features, height, width):
        """Both convolutions, and `C * D` weights of the shortcut used once per output pixel."""
        check_even(height, width)
        first, second = self._halves()
        weights = in_features * self.features
        total = Cost(weights, weights * self._pixels(height, width)) + first.cost(in_features, height, width)
        return total + second.cost(self.features, height // 2, width // 2)


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


def stem(config: NasBench201Config, style: Style) -> ConvNorm:
    """3x3 convolution and normalisation; no ReLU."""
    return ConvNorm(config.channels, 1, _affine(style), kernel=3, relu=False)


def reduction(features: int, style: Style) -> ResidualReduce:
    """What leads into a stage of width `features`."""
    return ResidualReduce(features, 2, _affine(style))


def last_norm(style: Style) -> Norm:
    """The normalisation after the last cell."""
    return _affine(style).norm()


def _affine(style: Style) -> Style:
    """Outside cells normalisation has a scale and an offset, in the search too."""
    return dataclasses.replace(style, affine=True)


class NasBench201Network(nn.Module):
    """The stand-alone network of one architecture.

    Attributes:
      config: size of the network.
      cell: operation of every edge, as an index into `config.operations`.
      style: normalisation and lowering; `style.train` is set by the call.
    """

    config: NasBench201Config
    cell: tuple[int, ...]
    style: Style = Style(affine=True, running=True)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: jax.Array | float | None = None) -> jax.Array:
        """Logits of `x[B, H, W, C]`.

        Args:
          x: images.
          train: use the statistics of the batch.
          drop_rate: probability of drop path, from the stream `dropout`; `None` turns it off, as the benchmark does.
            Identities are exempt.
        """
        style = dataclasses.replace(self.style, train=train)
        x = stem(self.config, style).clone(name="stem", parent=self)(x)
        for stage, features in enumerate(self.config.widths):
            if stage:
                x = reduction(features, style).clone(name=f"reduce{stage}", parent=self)(x)
            for i in range(self.config.cells):
                x = self._cell(f"cell{stage * self.config.cells + i}", features, style, x, drop_rate)
        x = jax.nn.relu(last_norm(style).clone(name="norm", parent=self)(x))
        return Classifier(self.config.num_classes, name="classifier")(x)

    def _cell(self, prefix, features, style, x, drop_rate):
        nodes = {0: x}
        for edge, (source, target) in enumerate(EDGES):
            name = self.config.operations[self.cell[edge]]
            block = operation(name, features, style)
            y = block.clone(name=f"{prefix}_edge{edge}_{name}", parent=self)(nodes[source])
            if drop_rate is not None and not isinstance(block, Identity):
                y = drop_path(self.make_rng("dropout"), y, drop_rate)
            nodes[target] = nodes[target] + y if target in nodes else y
        return nodes[3]
