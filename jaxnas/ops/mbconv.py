"""The blocks of mobile networks: inverted bottlenecks, squeeze-and-excitation, convolutions before an activation."""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.dtypes import wide_dtype
from jaxnas.ops._conv import Pair, conv, pair
from jaxnas.ops.blocks import Activation, Block
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import he_fan_out
from jaxnas.ops.style import Cost

__all__ = ["ConvNormAct", "MBConv", "Squeeze", "SqueezeExcite", "rounded_width"]


def rounded_width(width: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to a width, at least `divisor` and never below nine tenths of the width.

    Example:
      >>> rounded_width(24), rounded_width(11), rounded_width(3.2)
      (24, 16, 8)
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


class ConvNormAct(Block):
    """Convolution, normalisation, activation.

    Attributes:
      kernel: side of the convolution, one odd number or a pair `(h, w)`.
      activation: function that the normalised image passes.
    """

    kernel: Pair = 3
    activation: Activation = jax.nn.relu6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        sides = pair(self.kernel)
        init = he_fan_out(math.prod(sides) * self.features)
        kernel = self.param("kernel", init, (*sides, x.shape[-1], self.features))
        y = conv(x, kernel, stride=self.stride, lowering=self.style.lowering)
        return self.activation(self.style.norm("norm")(y))

    def cost(self, in_features, height, width):
        """`h * w * C * D` weights, each used once per output pixel."""
        weights = math.prod(pair(self.kernel)) * in_features * self.features
        return self._used_once(weights, height, width) + self.style.norm_cost(self.features)


class SqueezeExcite(nn.Module):
    """Channels weighted by what all of them show: `x * gate(W2 act(W1 mean(x) + b1) + b2)`.

    Attributes:
      hidden: width between the two dense layers.
      activation: function between them.
      gate: function from the second layer to the factors of the channels.

    References:
      Hu, Shen and Sun (2018), Squeeze-and-Excitation Networks, arXiv 1709.01507, equations 2 to 4.
    """

    hidden: int
    activation: Activation = jax.nn.relu
    gate: Activation = jax.nn.hard_sigmoid

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Weights the channels of `x[B, H, W, C]`; means and factors are computed in float32 or wider."""
        channels, wide = x.shape[-1], wide_dtype(x.dtype)

        def dense(name, x, features):
            kernel = self.param(f"{name}_kernel", he_fan_out(features), (x.shape[-1], features))
            bias = self.param(f"{name}_bias", nn.initializers.zeros, (features,), jnp.float32)
            return x @ kernel.astype(wide) + bias.astype(wide)[None]

        # Squeeze: the mean over the image, eq. 2. Excite: two dense layers, eq. 3.
        hidden = self.activation(dense("squeeze", jnp.mean(x.astype(wide), (1, 2)), self.hidden))
        factors = self.gate(dense("excite", hidden, channels))
        return x * factors[:, None, None, :].astype(x.dtype)  # eq. 4

    def cost(self, in_features: int, height: int = 1, width: int = 1) -> Cost:
        """Weights and biases of both dense layers; the weights are used once."""
        del height, width
        weights = 2 * in_features * self.hidden
        return Cost(weights + self.hidden + in_features, weights)


@dataclasses.dataclass(frozen=True)
class Squeeze:
    """How the squeeze-and-excitation of an inverted bottleneck is made; the defaults are those of Cream.

    Attributes:
      ratio: hidden width as a share of the channels, above 0.
      of: the channels that `ratio` refers to: `"expanded"` for those in the middle of the block, or `"input"`.
      divisor: the hidden width is rounded to a multiple of it, see `rounded_width`.
      activation: function between the two dense layers.
      gate: function that gives the factors: `jax.nn.hard_sigmoid`, or `jax.nn.sigmoid`.
    """

    ratio: float = 0.25
    of: Literal["expanded", "input"] = "expanded"
    divisor: int = 8
    activation: Activation = jax.nn.relu
    gate: Activation = jax.nn.hard_sigmoid

    def layer(self, in_features: int, middle: int) -> SqueezeExcite:
        """The layer inside a block from `in_features` over `middle` channels."""
        channels = middle if self.of == "expanded" else in_features
        hidden = rounded_width(self.ratio * channels, self.divisor)
        return SqueezeExcite(hidden, self.activation, self.gate, parent=None)


class MBConv(Block):
    """1x1 convolution to `expand` times the channels, depthwise convolution, 1x1 convolution (Sandler et al. 2018).

    Each is normalised, and an activation follows the first two; without expansion the first is left out. The shortcut
    around the block is not part of it (ProxylessNAS, arXiv 1812.00332, adds it outside of the choice).

    Attributes:
      kernel: side of the depthwise convolution, one odd number or a pair `(h, w)`.
      expand: factor from the input's to the middle channels.
      activation: function after the first two normalisations.
      squeeze: squeeze-and-excitation after the depthwise convolution and its activation; None for none.
    """

    kernel: Pair = 3
    expand: int = 6
    activation: Activation = jax.nn.relu6
    squeeze: Squeeze | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        channels, lowering, sides = x.shape[-1], self.style.lowering, pair(self.kernel)
        middle = channels * self.expand
        # Expansion.
        if self.expand != 1:
            kernel = self.param("expand", he_fan_out(middle), (1, 1, channels, middle))
            x = self.activation(self.style.norm("expand_norm")(conv(x, kernel, lowering=lowering)))
        # Depthwise convolution, and the channels weighted.
        kernel = self.param("depthwise", he_fan_out(math.prod(sides) * middle), (*sides, middle))
        x = depthwise_conv(x, kernel, stride=self.stride, lowering=lowering)
        x = self.activation(self.style.norm("depthwise_norm")(x))
        if self.squeeze is not None:
            x = self.squeeze.layer(channels, middle).clone(name="squeeze", parent=self)(x)
        # Linear projection: no activation.
        kernel = self.param("project", he_fan_out(self.features), (1, 1, middle, self.features))
        return self.style.norm("project_norm")(conv(x, kernel, lowering=lowering))

    def cost(self, in_features, height, width):
        """Weights of the convolutions, each used once per pixel of its output grid, and of the other layers."""
        middle = in_features * self.expand
        # Depthwise convolution and projection run on the output grid, the expansion on that of the input.
        last = math.prod(pair(self.kernel)) * middle + middle * self.features
        norms = [middle, self.features]
        total = self._used_once(last, height, width)
        if self.expand != 1:
            total += Cost(in_features * middle, in_features * middle * height * width)
            norms.append(middle)
        if self.squeeze is not None:
            total += self.squeeze.layer(in_features, middle).cost(middle)
        return sum(map(self.style.norm_cost, norms), total)
