"""Convolutions in the order normalisation, ReLU, weight (He et al., 2016, "Identity mappings", arXiv 1603.05027)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.ops._conv import Pair, conv, pair
from jaxnas.ops.blocks import Activation, Block
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import he_fan_out

__all__ = ["PreActConv", "PreActSepConv", "channel_shuffle"]


class PreActConv(Block):
    """Normalisation, activation, convolution in groups of channels.

    Attributes:
      kernel: side of the convolution, one odd number or a pair `(h, w)`.
      activation: function between normalisation and convolution; None for none.
      groups: number of parts into which the channels are cut, each with a separate kernel.
    """

    kernel: Pair = 1
    activation: Activation | None = jax.nn.relu
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        sides = pair(self.kernel)
        init = he_fan_out(math.prod(sides) * self.features)
        kernel = self.param("kernel", init, (*sides, x.shape[-1] // self.groups, self.features))
        x = self.style.norm("norm")(x)
        x = x if self.activation is None else self.activation(x)
        parts = zip(jnp.split(x, self.groups, -1), jnp.split(kernel, self.groups, -1), strict=True)
        ys = [conv(channels, part, stride=self.stride, lowering=self.style.lowering) for channels, part in parts]
        return ys[0] if self.groups == 1 else jnp.concatenate(ys, -1)

    def cost(self, in_features, height, width):
        """`h * w * C * D / groups` weights, each used once per output pixel."""
        weights = math.prod(pair(self.kernel)) * in_features // self.groups * self.features
        return self._used_once(weights, height, width) + self.style.norm_cost(in_features)


class PreActSepConv(Block):
    """Normalisation, activation, depthwise convolution, 1x1 convolution.

    Attributes:
      kernel: side of the depthwise convolution, one odd number or a pair `(h, w)`.
      activation: function between normalisation and convolution.
      dilation: distance between the taps of the depthwise convolution.
    """

    kernel: Pair = 3
    activation: Activation = jax.nn.relu
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        sides, channels, lowering = pair(self.kernel), x.shape[-1], self.style.lowering
        depthwise = self.param("depthwise", he_fan_out(math.prod(sides) * channels), (*sides, channels))
        pointwise = self.param("pointwise", he_fan_out(self.features), (1, 1, channels, self.features))
        x = self.activation(self.style.norm("norm")(x))
        y = depthwise_conv(x, depthwise, stride=self.stride, dilation=self.dilation, lowering=lowering)
        return conv(y, pointwise, lowering=lowering)

    def cost(self, in_features, height, width):
        """`h * w * C + C * D` weights, each used once per output pixel."""
        weights = math.prod(pair(self.kernel)) * in_features + in_features * self.features
        return self._used_once(weights, height, width) + self.style.norm_cost(in_features)


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel `c` of group `g` of `x[..., C]` becomes `c * groups + g` (Zhang et al., 2018, arXiv 1707.01083)."""
    cut = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.swapaxes(cut, -1, -2).reshape(x.shape)
