"""Convolutions in the order normalisation, ReLU, weight (He et al., 2016, "Identity mappings", arXiv 1603.05027)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.ops._conv import conv
from jaxnas.ops.blocks import Block, Cost
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import he_fan_out

__all__ = ["PreActConv", "PreActSepConv", "channel_shuffle"]


class PreActConv(Block):
    """Normalisation, ReLU (optional), convolution in groups of channels.

    Attributes:
      kernel: side of the convolution.
      relu: whether there is a ReLU.
      groups: into how many parts the channels are cut, each with its own kernel.
    """

    kernel: int = 1
    relu: bool = True
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", he_fan_out(self.kernel**2 * self.features), shape)
        x = self.style.norm("norm")(x)
        x = jax.nn.relu(x) if self.relu else x
        parts = zip(jnp.split(x, self.groups, -1), jnp.split(kernel, self.groups, -1), strict=True)
        ys = [conv(part, own, stride=self.stride, lowering=self.style.lowering) for part, own in parts]
        return ys[0] if self.groups == 1 else jnp.concatenate(ys, -1)

    def cost(self, in_features, height, width):
        """`k * k * C * D / groups` weights, each used once per output pixel."""
        weights = self.kernel**2 * in_features // self.groups * self.features
        return Cost(weights, weights * self._pixels(height, width)) + self.style.norm_cost(in_features)


class PreActSepConv(Block):
    """Normalisation, ReLU, depthwise convolution, 1x1 convolution.

    Attributes:
      kernel: side of the depthwise convolution.
      dilation: distance between its taps.
    """

    kernel: int = 3
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        channels, lowering = x.shape[-1], self.style.lowering
        depthwise = self.param("depthwise", he_fan_out(self.kernel**2 * channels), (self.kernel, self.kernel, channels))
        pointwise = self.param("pointwise", he_fan_out(self.features), (1, 1, channels, self.features))
        x = jax.nn.relu(self.style.norm("norm")(x))
        y = depthwise_conv(x, depthwise, stride=self.stride, dilation=self.dilation, lowering=lowering)
        return conv(y, pointwise, lowering=lowering)

    def cost(self, in_features, height, width):
        """`k * k * C + C * D` weights, each used once per output pixel."""
        weights = self.kernel**2 * in_features + in_features * self.features
        return Cost(weights, weights * self._pixels(height, width)) + self.style.norm_cost(in_features)


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel `c` of group `g` of `x[..., C]` becomes `c * groups + g` (Zhang et al., 2018, arXiv 1707.01083)."""
    cut = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.swapaxes(cut, -1, -2).reshape(x.shape)
