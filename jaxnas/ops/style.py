"""How the blocks of one network normalise and are lowered, what they cost, and how a supernet uses them.

`Norm` is stateless inside a supernet and keeps running averages in a stand-alone network; a `Style` makes all the
normalisation layers of one network.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.base import Op
from jaxnas.ops.lowering import Lowering
from jaxnas.ops.normalisation import batch_statistics, normalise, standardise

__all__ = ["Cost", "Norm", "Style", "from_linen"]


class Cost(NamedTuple):
    """What a block costs.

    Attributes:
      parameters: number of weights of the block.
      macs: number of multiply-adds for one example.
    """

    parameters: int
    macs: int

    def __add__(self, other: Any) -> "Cost":
        return Cost(self.parameters + other.parameters, self.macs + other.macs)


class Norm(nn.Module):
    """Batch normalisation over all axes but the last.

    Attributes:
      affine: whether it learns a scale and an offset per channel.
      running: whether it keeps running averages and, unless `train`, uses them. Without them the statistics are always
        those of the batch.
      train: whether it uses the statistics of the batch.
      reference: number of examples at the head of the batch that give those statistics; 0 for all of them.
      momentum: share that a running average keeps in a step, `new = momentum * old + (1 - momentum) * batch`; the
        variance is the biased one.
      eps: number above zero that is added to the variance.

    While training with running averages the layer also sows the batch's mean and variance into the collection
    `batch_moments`, from which `jaxnas.derive.recalibrate` pools them.
    """

    affine: bool = False
    running: bool = False
    train: bool = True
    reference: int = 0
    momentum: float = 0.9
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `x[B, ..., C]`."""
        features = x.shape[-1]
        if self.running:
            old_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
            old_variance = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        # Statistics: running averages, those of the reference examples, or those of the whole batch.
        if self.running and not self.train:
            mean, variance = old_mean.value, old_variance.value
            y = normalise(x, mean, variance, self.eps)
        else:
            if self.reference:
                mean, variance = batch_statistics(x[: self.reference])
                y = normalise(x, mean, variance, self.eps)
            else:
                y, mean, variance = standardise(x, self.eps)
            # Running averages move, and the moments of the batch are sown for `recalibrate` to pool.
            if self.running and not self.is_initializing():
                self.sow("batch_moments", "mean", mean)
                self.sow("batch_moments", "var", variance)
                if self.is_mutable_collection("batch_stats"):
                    for average, now in ((old_mean, mean), (old_variance, variance)):
                        moved = self.momentum * average.value + (1 - self.momentum) * now
                        average.value = moved.astype(average.value.dtype)  # images may be wider than the averages
        if self.affine:
            # The learned scale and offset, in the dtype of the images.
            lead = (1,) * (x.ndim - 1)
            scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)
            y = y * scale.astype(y.dtype).reshape(*lead, -1) + bias.astype(y.dtype).reshape(*lead, -1)
        return y

    def output(self, x: jax.Array) -> jax.Array:
        """`x` itself stands for the output, which has its shape."""
        return x

    def cost(self, in_features: int, height: int = 1, width: int = 1) -> Cost:
        """A scale and an offset per channel, if they are learned; no multiply-adds."""
        del height, width
        return Style(affine=self.affine).norm_cost(in_features)


@dataclasses.dataclass(frozen=True)
class Style:
    """How all blocks of one network normalise and are lowered.

    All attributes but the last are those of `Norm`.

    Attributes:
      affine: whether normalisation learns a scale and an offset.
      running: whether it keeps running averages, as stand-alone networks do.
      train: whether it uses the statistics of the batch.
      reference: number of examples at the head of the batch that give the statistics; 0 for all.
      momentum: share that a running average keeps in a step.
      eps: number above zero that is added to the variance.
      lowering: how operations are written for the backend, see `jaxnas.ops.lowering`.
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
        """What one normalisation layer over `features` channels costs."""
        return Cost(2 * features if self.affine else 0, 0)


def from_linen(module: nn.Module) -> Op:
    """The pure pair of a Linen module that has parameters only; `key` becomes the `dropout` stream."""

    def init(key, x):
        return module.init(key, x).get("params", {})

    def apply(params, x, *, key=None):
        return module.apply({"params": params}, x, rngs=None if key is None else {"dropout": key})

    return Op(init, apply)
