"""The inverted bottleneck of mobile networks."""

import flax.linen as nn
import jax

from jaxnas.ops._conv import conv
from jaxnas.ops.blocks import Block, Cost
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import he_fan_out

__all__ = ["ConvNormRelu6", "MBConv"]


class ConvNormRelu6(Block):
    """Convolution, normalisation, ReLU6.

    Attributes:
      kernel: side of the convolution.
    """

    kernel: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", he_fan_out(self.kernel**2 * self.features), shape)
        y = conv(x, kernel, stride=self.stride, lowering=self.style.lowering)
        return jax.nn.relu6(self.style.norm("norm")(y))

    def cost(self, in_features, height, width):
        """`k * k * C * D` weights, each used once per output pixel."""
        weights = self.kernel**2 * in_features * self.features
        return Cost(weights, weights * self._pixels(height, width)) + self.style.norm_cost(self.features)


class MBConv(Block):
    """1x1 convolution to `expand` times the channels, depthwise convolution, 1x1 convolution (Sandler et al. 2018).

    Each is normalised, the first two end in ReLU6; without expansion the first is left out. The shortcut around the
    block is not part of it (ProxylessNAS, arXiv 1812.00332, adds it outside of the choice).

    Attributes:
      kernel: side of the depthwise convolution.
      expand: factor of the channels in between.
    """

    kernel: int = 3
    expand: int = 6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        channels, lowering = x.shape[-1], self.style.lowering
        middle = channels * self.expand
        if self.expand != 1:
            kernel = self.param("expand", he_fan_out(middle), (1, 1, channels, middle))
            x = jax.nn.relu6(self.style.norm("expand_norm")(conv(x, kernel, lowering=lowering)))
        kernel = self.param("depthwise", he_fan_out(self.kernel**2 * middle), (self.kernel, self.kernel, middle))
        x = depthwise_conv(x, kernel, stride=self.stride, lowering=lowering)
        x = jax.nn.relu6(self.style.norm("depthwise_norm")(x))
        kernel = self.param("project", he_fan_out(self.features), (1, 1, middle, self.features))
        return self.style.norm("project_norm")(conv(x, kernel, lowering=lowering))

    def cost(self, in_features, height, width):
        """Weights of the three convolutions, each used once per pixel of its own output grid."""
        middle = in_features * self.expand
        first = in_features * middle if self.expand != 1 else 0
        last = self.kernel**2 * middle + middle * self.features
        total = Cost(first + last, first * height * width + last * self._pixels(height, width))
        norms = [middle] * (2 if self.expand != 1 else 1) + [self.features]
        return sum((self.style.norm_cost(features) for features in norms), total)
