"""The candidate operations of cell spaces, each once, as small Linen modules over the plain functions beside this file.

In a supernet a block is used through its pure pair, `from_linen(block)`; a stand-alone network calls it as a module, so
weights are inherited by name. `block.cost(features, height, width)` counts parameters and multiply-adds as the papers
do: convolutions and dense layers, padding included, no normalisation in the multiply-adds.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.base import Op
from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops._conv import conv
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import torch_uniform
from jaxnas.ops.lowering import Lowering
from jaxnas.ops.normalisation import Norm
from jaxnas.ops.pooling import avg_pool, max_pool

__all__ = [
    "BatchNorm",
    "Block",
    "Classifier",
    "ConvNorm",
    "Cost",
    "DilConv",
    "FactorizedReduce",
    "Identity",
    "NormalisedBlock",
    "Pool",
    "SepConv",
    "Style",
    "Zero",
    "from_linen",
]


class Cost(NamedTuple):
    """Parameters and multiply-adds of one example."""

    parameters: int
    macs: int

    def __add__(self, other: Any) -> "Cost":
        return Cost(self.parameters + other.parameters, self.macs + other.macs)


@dataclasses.dataclass(frozen=True)
class Style:
    """How all blocks of one network normalise and are lowered.

    Attributes:
      affine: normalisation learns a scale and an offset.
      running: normalisation keeps running averages (stand-alone networks only).
      train: use the statistics of the batch.
      reference: take them from the first `reference` examples of the batch alone; 0 for all of them.
      momentum: of the running averages.
      eps: of the normalisation.
      lowering: see `jaxnas.ops.lowering`.
    """

    affine: bool = False
    running: bool = False
    train: bool = True
    reference: int = 0
    momentum: float = 0.9
    eps: float = 1e-5
    lowering: Lowering = "auto"

    def norm(self, name: str | None = None) -> Norm:
        """A normalisation layer in this style."""
        return Norm(self.affine, self.running, self.train, self.reference, self.momentum, self.eps, name=name)

    def norm_cost(self, features: int) -> Cost:
        """Parameters of one normalisation layer."""
        return Cost(2 * features if self.affine else 0, 0)


def from_linen(module: nn.Module) -> Op:
    """The pure pair of a Linen module that has parameters only; `key` becomes the `dropout` stream."""

    def init(key, x):
        return module.init(key, x).get("params", {})

    def apply(params, x, *, key=None):
        return module.apply({"params": params}, x, rngs=None if key is None else {"dropout": key})

    return Op(init, apply)


class Block(nn.Module):
    """One operation from `[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`.

    Attributes:
      features: output channels.
      stride: step of the output grid.
      style: normalisation and lowering.
    """

    features: int
    stride: int = 1
    style: Style = Style()

    def cost(self, in_features: int, height: int, width: int) -> Cost:
        """Parameters and multiply-adds for one input of the given size."""
        raise NotImplementedError

    def _pixels(self, height: int, width: int) -> int:
        return -(-height // self.stride) * -(-width // self.stride)

    def _kernel(self, name: str, side: int, in_features: int, features: int) -> jax.Array:
        shape = (side, side, in_features, features)
        return self.param(name, torch_uniform(side * side * in_features), shape)

    def _depthwise_kernel(self, name: str, side: int, features: int) -> jax.Array:
        return self.param(name, torch_uniform(side * side), (side, side, features))


class NormalisedBlock(Block):
    """A block that ends in a normalisation, unless `normalised` is false.

    Attributes:
      normalised: whether it does.
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
        return jnp.zeros_like(x[:, :: self.stride, :: self.stride])

    def cost(self, in_features, height, width):
        """Nothing."""
        return Cost(0, 0)


class Identity(Block):
    """`skip_connect` where input and output have the same shape."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x`."""
        return x

    def cost(self, in_features, height, width):
        """Nothing."""
        return Cost(0, 0)


class BatchNorm(Block):
    """A normalisation layer on its own, as a block."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `x`."""
        return self.style.norm("norm")(x)

    def cost(self, in_features, height, width):
        """Scale and offset, if learned."""
        return self.style.norm_cost(in_features)


class Pool(NormalisedBlock):
    """3x3 maximum or average pooling, followed by normalisation when `normalised`."""

    kind: str = "max"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools `x`."""
        pool = {"max": max_pool, "avg": avg_pool}[self.kind]
        y = pool(x, stride=self.stride, lowering=self.style.lowering)
        return self._normalise(y)

    def cost(self, in_features, height, width):
        """Scale and offset of the normalisation, if learned."""
        return self._norm_cost(in_features)


class ConvNorm(NormalisedBlock):
    """Convolution and, unless told otherwise, normalisation, with a ReLU before when `relu`."""

    kernel: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies ReLU (optional), convolution, normalisation."""
        kernel = self._kernel("kernel", self.kernel, x.shape[-1], self.features)
        x = jax.nn.relu(x) if self.relu else x
        return self._normalise(conv(x, kernel, stride=self.stride, lowering=self.style.lowering))

    def cost(self, in_features, height, width):
        """`k * k * C * D` weights, each used once per output pixel."""
        weights = self.kernel**2 * in_features * self.features
        return Cost(weights, weights * self._pixels(height, width)) + self._norm_cost(self.features)


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
        halves = [conv(x, even, stride=2, lowering=lowering), conv(x[:, 1:, 1:], odd, stride=2, lowering=lowering)]
        return self._normalise(jnp.concatenate(halves, -1))

    def cost(self, in_features, height, width):
        """Both halves together hold `C * features` weights."""
        weights = in_features * self.features
        return Cost(weights, weights * self._pixels(height, width)) + self._norm_cost(self.features)


class DilConv(NormalisedBlock):
    """ReLU, depthwise convolution with dilation two, 1x1 convolution, normalisation."""

    kernel: int = 3
    dilation: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x`."""
        channels = x.shape[-1]
        depthwise = self._depthwise_kernel("depthwise", self.kernel, channels)
        pointwise = self._kernel("pointwise", 1, channels, self.features)
        lowering = self.style.lowering
        y = depthwise_conv(jax.nn.relu(x), depthwise, stride=self.stride, dilation=self.dilation, lowering=lowering)
        return self._normalise(conv(y, pointwise, lowering=lowering))

    def cost(self, in_features, height, width):
        """`k * k * C + C * D` weights, each used once per output pixel."""
        weights = self.kernel**2 * in_features + in_features * self.features
        return Cost(weights, weights * self._pixels(height, width)) + self._norm_cost(self.features)


class SepConv(NormalisedBlock):
    """Twice: ReLU, depthwise convolution, 1x1 convolution, normalisation; the first has the stride."""

    kernel: int = 3

    def _halves(self, in_features: int) -> tuple[DilConv, DilConv]:
        first = DilConv(in_features, self.stride, self.style, kernel=self.kernel, dilation=1, parent=None)
        return first, first.clone(features=self.features, stride=1, normalised=self.normalised)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies both halves to `x`."""
        first, second = self._halves(x.shape[-1])
        return second.clone(name="second", parent=self)(first.clone(name="first", parent=self)(x))

    def cost(self, in_features, height, width):
        """The sum of both halves."""
        first, second = self._halves(in_features)
        return first.cost(in_features, height, width) + second.cost(
            in_features, -(-height // self.stride), -(-width // self.stride)
        )


class Classifier(nn.Module):
    """Global average pooling and a dense layer with a bias.

    Attributes:
      num_classes: width of the output.
      bias: first value of the biases; None draws them as PyTorch does.
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
        x = jnp.mean(x.astype(wide_dtype(x.dtype)), (1, 2))
        return x @ kernel + bias[None]

    def cost(self, in_features: int) -> Cost:
        """Weights and bias; the bias is no multiply-add."""
        weights = in_features * self.num_classes
        return Cost(weights + self.num_classes, weights)
