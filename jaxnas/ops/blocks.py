"""The candidate operations of cell spaces, each once, as small Linen modules over the plain functions beside this file.

In a supernet a block is used through its pure pair, `from_linen(block)`; a stand-alone network calls it as a module, so
weights are inherited by name. `block.cost(features, height, width)` counts parameters and multiply-adds as the papers
do: convolutions and dense layers, padding included, no normalisation in the multiply-adds.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops._conv import Pair, conv, pair
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import torch_uniform
from jaxnas.ops.pooling import avg_pool, max_pool
from jaxnas.ops.style import Cost, Style

__all__ = [
    "Activation",
    "BatchNorm",
    "Block",
    "Classifier",
    "ConvNorm",
    "DilConv",
    "FactorizedReduce",
    "Identity",
    "NormalisedBlock",
    "Pool",
    "SepConv",
    "Zero",
]

Activation = Callable[[jax.Array], jax.Array]


class Block(nn.Module):
    """One operation from `[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`.

    Attributes:
      features: number of output channels.
      stride: step of the output grid, one number or a pair for rows and columns.
      style: how the block normalises and is lowered.
    """

    features: int
    stride: Pair = 1
    style: Style = Style()

    def cost(self, in_features: int, height: int, width: int) -> Cost:
        """Parameters and multiply-adds for one image of `in_features` channels, `height` rows and `width` columns."""
        raise NotImplementedError

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output for an image of `height` rows and `width` columns."""
        down, across = pair(self.stride)
        return -(-height // down), -(-width // across)

    def output(self, x: Any) -> Any:
        """Zeros with the shape of the output for `x[B, H, W, C]`, found without running the block."""
        return jnp.zeros((x.shape[0], *self.grid(*x.shape[1:3]), self.features), x.dtype)

    def _kernel(self, name: str, sides: Pair, in_features: int, features: int) -> jax.Array:
        rows, columns = pair(sides)
        return self.param(name, torch_uniform(rows * columns * in_features), (rows, columns, in_features, features))

    def _used_once(self, weights: int, height: int, width: int) -> Cost:
        """Convolution weights, each of which takes part once per pixel of the output."""
        return Cost(weights, weights * math.prod(self.grid(height, width)))


class NormalisedBlock(Block):
    """A block that ends in a normalisation.

    Attributes:
      normalised: whether the block has that normalisation.
    """

    normalised: bool = True

    def _normalise(self, y: jax.Array) -> jax.Array:
        return self.style.norm("norm")(y) if self.normalised else y

    def _norm_cost(self, features: int) -> Cost:
        return self.style.norm_cost(features) if self.normalised else Cost(0, 0)


class Zero(Block):
    """`none`: zeros on the output grid."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns zeros."""
        down, across = pair(self.stride)
        return jnp.zeros_like(x[:, ::down, ::across])

    def cost(self, in_features, height, width):
        """No parameters and no multiply-adds."""
        return Cost(0, 0)


class Identity(Block):
    """`skip_connect` where input and output have the same shape."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x`."""
        return x

    def cost(self, in_features, height, width):
        """No parameters and no multiply-adds."""
        return Cost(0, 0)


class BatchNorm(Block):
    """A normalisation layer alone, as a block."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `x`."""
        return self.style.norm("norm")(x)

    def cost(self, in_features, height, width):
        """Scale and offset, if learned."""
        return self.style.norm_cost(in_features)


class Pool(NormalisedBlock):
    """3x3 maximum or average pooling, followed by normalisation when `normalised`.

    Attributes:
      kind: `"max"` or `"avg"`.
    """

    kind: str = "max"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools `x`."""
        pool = {"max": max_pool, "avg": avg_pool}[self.kind]
        return self._normalise(pool(x, stride=self.stride, lowering=self.style.lowering))

    def cost(self, in_features, height, width):
        """Scale and offset of the normalisation, if learned."""
        return self._norm_cost(in_features)


class ConvNorm(NormalisedBlock):
    """Activation, convolution, normalisation.

    Attributes:
      kernel: side of the convolution, one odd number or a pair `(h, w)`.
      activation: function that the image passes before the convolution; None for none.
    """

    kernel: Pair = 1
    activation: Activation | None = jax.nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        kernel = self._kernel("kernel", self.kernel, x.shape[-1], self.features)
        x = x if self.activation is None else self.activation(x)
        return self._normalise(conv(x, kernel, stride=self.stride, lowering=self.style.lowering))

    def cost(self, in_features, height, width):
        """`h * w * C * D` weights, each used once per output pixel."""
        weights = math.prod(pair(self.kernel)) * in_features * self.features
        return self._used_once(weights, height, width) + self._norm_cost(self.features)


class FactorizedReduce(NormalisedBlock):
    """Halves the grid: ReLU, two strided 1x1 convolutions one pixel apart, concatenated, normalised.

    Raises:
      UserError: odd `features`, height or width.
    """

    stride: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Halves `x` in height and width."""
        _, height, width, channels = x.shape
        if self.features % 2:
            raise UserError(f"channels: halving the grid needs an even number of channels, got {self.features}")
        if height % 2 or width % 2:
            raise UserError(f"image size: halving the grid needs an even height and width, got {height}x{width}")
        even, odd = (self._kernel(name, 1, channels, self.features // 2) for name in ("even", "odd"))
        x = jax.nn.relu(x)
        lowering = self.style.lowering
        # The second convolution sees the pixels one row and one column further.
        halves = [conv(x, even, stride=2, lowering=lowering), conv(x[:, 1:, 1:], odd, stride=2, lowering=lowering)]
        return self._normalise(jnp.concatenate(halves, -1))

    def cost(self, in_features, height, width):
        """The two convolutions together hold `C * features` weights, each used once per output pixel."""
        return self._used_once(in_features * self.features, height, width) + self._norm_cost(self.features)


class DilConv(NormalisedBlock):
    """Activation, depthwise convolution, 1x1 convolution, normalisation.

    Attributes:
      kernel: side of the depthwise convolution, one odd number or a pair `(h, w)`.
      activation: function that the image passes first.
      dilation: distance between the taps of the depthwise convolution.
    """

    kernel: Pair = 3
    activation: Activation = jax.nn.relu
    dilation: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        sides, channels, lowering = pair(self.kernel), x.shape[-1], self.style.lowering
        depthwise = self.param("depthwise", torch_uniform(math.prod(sides)), (*sides, channels))
        pointwise = self._kernel("pointwise", 1, channels, self.features)
        x = self.activation(x)
        y = depthwise_conv(x, depthwise, stride=self.stride, dilation=self.dilation, lowering=lowering)
        return self._normalise(conv(y, pointwise, lowering=lowering))

    def cost(self, in_features, height, width):
        """`h * w * C + C * D` weights, each used once per output pixel."""
        weights = math.prod(pair(self.kernel)) * in_features + in_features * self.features
        return self._used_once(weights, height, width) + self._norm_cost(self.features)


class SepConv(NormalisedBlock):
    """Twice: activation, depthwise convolution, 1x1 convolution, normalisation; the first round has the stride.

    Attributes:
      kernel: side of the depthwise convolutions, one odd number or a pair `(h, w)`.
      activation: function with which each round starts.
    """

    kernel: Pair = 3
    activation: Activation = jax.nn.relu

    def _halves(self, in_features: int) -> tuple[DilConv, DilConv]:
        first = DilConv(
            in_features, self.stride, self.style, True, self.kernel, self.activation, dilation=1, parent=None
        )
        return first, first.clone(features=self.features, stride=1, normalised=self.normalised)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies both rounds to `x`."""
        first, second = self._halves(x.shape[-1])
        return second.clone(name="second", parent=self)(first.clone(name="first", parent=self)(x))

    def cost(self, in_features, height, width):
        """The sum of both rounds."""
        first, second = self._halves(in_features)
        return first.cost(in_features, height, width) + second.cost(in_features, *self.grid(height, width))


class Classifier(nn.Module):
    """Global average pooling and a dense layer with a bias.

    Attributes:
      num_classes: number of logits.
      bias: value with which every bias starts; None draws them as PyTorch does.
    """

    num_classes: int
    bias: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns float32 logits `[B, num_classes]`."""
        features = x.shape[-1]
        init = torch_uniform(features)
        kernel = self.param("kernel", init, (features, self.num_classes))
        first = init if self.bias is None else nn.initializers.constant(self.bias)
        bias = self.param("bias", first, (self.num_classes,), jnp.float32)
        # Pooled and classified in float32 or wider.
        x = jnp.mean(x.astype(wide_dtype(x.dtype)), (1, 2))
        return x @ kernel + bias[None]

    def output(self, x: jax.Array) -> jax.Array:
        """Zeros with the shape of the logits."""
        return jnp.zeros((x.shape[0], self.num_classes), wide_dtype(x.dtype))

    def cost(self, in_features: int, height: int = 1, width: int = 1) -> Cost:
        """Weights and biases; a bias is no multiply-add."""
        del height, width
        weights = in_features * self.num_classes
        return Cost(weights + self.num_classes, weights)
