"""Batch normalisation: stateless inside a supernet, with running averages in a stand-alone network.

The variance takes two passes in float32; the one-pass formula `E[x^2] - E[x]^2` cancels at large offsets.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.ops.island import island

__all__ = ["Norm", "batch_statistics", "normalise", "standardise"]


def batch_statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance `[C]` of `x[B, H, W, C]` per channel, in float32.

    Raises:
      ValueError: fewer than four values per channel, where the statistics of a batch mean nothing.
    """
    count = x.size // x.shape[-1]
    if count < 4:
        raise ValueError(f"batch normalisation needs B*H*W >= 4, got shape {x.shape}")
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axes)
    return mean.reshape(-1), variance


def normalise(x: jax.Array, mean: jax.Array, variance: jax.Array, eps: float = 1e-5) -> jax.Array:
    """`(x - mean) / sqrt(variance + eps)` over the last axis, computed in float32, in the dtype of `x`."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    lead = (1,) * (x.ndim - 1)
    mean, scale = mean.reshape(*lead, -1), lax.rsqrt(variance + eps).reshape(*lead, -1)
    return ((x.astype(wide) - mean) * scale).astype(x.dtype)


def _standardise(x: jax.Array, eps: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    mean, variance = batch_statistics(x)
    return normalise(x, mean, variance, eps), mean, variance


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def standardise(x: jax.Array, eps: float = 1e-5) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`x[B, H, W, C]` normalised by its own statistics, with the mean and the biased variance `[C]`.

    The gradient is written in terms of the result, so that the input need not be kept:
    `dx = s (g - mean(g) - y mean(g y))` with `s = 1 / sqrt(variance + eps)` (Ioffe and Szegedy, 2015,
    arXiv 1502.03167, section 3), and the terms of the two statistics.
    """
    return _standardise(x, eps)


@functools.partial(island, static=(0,))
def _standardise_gradient(eps, y, variance, g, to_mean, to_variance):
    wide = jnp.promote_types(y.dtype, jnp.float32)
    scale = lax.rsqrt(variance + eps)
    axes, count = tuple(range(y.ndim - 1)), y.size // y.shape[-1]
    z, h = y.astype(wide), g.astype(wide)
    slope = jnp.mean(h * z, axes) - 2 * to_variance / (count * jnp.square(scale))
    offset = jnp.mean(h, axes) - to_mean / (count * scale)
    lead = (1,) * (y.ndim - 1)
    scale, slope, offset = (leaf.reshape(*lead, -1) for leaf in (scale, slope, offset))
    return (scale * (h - offset - z * slope)).astype(y.dtype)


def _standardise_forward(x, eps):
    y, mean, variance = _standardise(x, eps)
    return (y, mean, variance), (y, variance)


def _standardise_backward(eps, residuals, g):
    return (_standardise_gradient(eps, *residuals, *g),)


standardise.defvjp(_standardise_forward, _standardise_backward)


class Norm(nn.Module):
    """Batch normalisation over all axes but the last.

    Attributes:
      affine: learn a scale and an offset.
      running: keep running averages and, unless `train`, use them. Without them the statistics are always those of
        the batch.
      train: use the statistics of the batch.
      reference: take those statistics from the first `reference` examples of the batch alone; 0 for all of them.
      momentum: of the running averages, `new = momentum * old + (1 - momentum) * batch`, the variance biased.
      eps: added to the variance.

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
            old_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
            old_variance = self.variable("batch_stats", "var", jnp.ones, (features,))
        if self.running and not self.train:
            mean, variance = old_mean.value, old_variance.value
            y = normalise(x, mean, variance, self.eps)
        else:
            if self.reference:
                mean, variance = batch_statistics(x[: self.reference])
                y = normalise(x, mean, variance, self.eps)
            else:
                y, mean, variance = standardise(x, self.eps)
            if self.running and not self.is_initializing():
                self.sow("batch_moments", "mean", mean)
                self.sow("batch_moments", "var", variance)
                if self.is_mutable_collection("batch_stats"):
                    old_mean.value = self.momentum * old_mean.value + (1 - self.momentum) * mean
                    old_variance.value = self.momentum * old_variance.value + (1 - self.momentum) * variance
        if self.affine:
            lead = (1,) * (x.ndim - 1)
            scale = self.param("scale", nn.initializers.ones, (features,))
            bias = self.param("bias", nn.initializers.zeros, (features,))
            y = y * scale.astype(y.dtype).reshape(*lead, -1) + bias.astype(y.dtype).reshape(*lead, -1)
        return y
