"""Batch normalisation as plain functions: the statistics of a batch, and images normalised with them.

The variance takes two passes in float32; the one-pass formula `E[x^2] - E[x]^2` cancels at large offsets.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops.calls import barrier, not_inlined
from jaxnas.ops.sums import channel_sum

__all__ = ["batch_statistics", "normalise", "standardise"]


def batch_statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance `[C]` of `x[B, H, W, C]` per channel, in float32.

    Raises:
      UserError: fewer than four values per channel, where the statistics of a batch mean nothing.
    """
    mean, variance = row_statistics(x.shape[-1], merged(x))
    return mean[0, 0, : x.shape[-1]], variance[0, 0, : x.shape[-1]]


def normalise(x: jax.Array, mean: jax.Array, variance: jax.Array, eps: float = 1e-5) -> jax.Array:
    """`(x - mean) / sqrt(variance + eps)` over the last axis, computed in float32, in the dtype of `x`."""
    wide = wide_dtype(x.dtype)
    lead = (1,) * (x.ndim - 1)
    mean, scale = mean.reshape(*lead, -1), lax.rsqrt(variance + eps).reshape(*lead, -1)
    return ((x.astype(wide) - mean) * scale).astype(x.dtype)


def merged(x: jax.Array) -> jax.Array:
    """`x[B, ..., W, C]` as `[B, H, W * C]`: columns and channels are one axis, a long innermost loop."""
    width = x.shape[-2] if x.ndim > 2 else 1
    return x.reshape(x.shape[0], -1, width * x.shape[-1])


def _row(channels: int, x: jax.Array, vector: jax.Array) -> jax.Array:
    """A vector `[C]`, repeated for every column of `x[B, H, W * C]`: `[1, 1, W * C]`."""
    return jnp.tile(vector, x.shape[-1] // channels)[None, None]


# Calls of one shape are compiled once, however many normalisations there are.


@functools.partial(not_inlined, static=(0,))
def row_mean(channels: int, x: jax.Array) -> jax.Array:
    """Mean per channel of `x[B, H, W * C]`, repeated for every column: `[1, 1, W * C]`."""
    return _row(channels, x, channel_sum(lambda x: x, channels, x) * (channels / x.size))


@functools.partial(not_inlined, static=(0,))
def row_statistics(channels: int, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance per channel of `x[B, H, W * C]`, repeated for every column."""
    if x.size < 4 * channels:
        raise UserError(f"batch normalisation needs B*H*W >= 4, got {x.size // channels}")
    # Two passes: the mean, then the squares around it.
    mean = row_mean(channels, x)
    sums = channel_sum(lambda x: jnp.square(x.astype(mean.dtype) - mean), channels, x)
    return mean, _row(channels, x, sums * (channels / x.size))


@functools.partial(not_inlined, static=(0,))
def row_slope(channels: int, x: jax.Array, mean: jax.Array, g: jax.Array) -> jax.Array:
    """Mean of `g (x - mean)` per channel, repeated for every column."""
    wide = mean.dtype
    sums = channel_sum(lambda x, g: (x.astype(wide) - mean) * g.astype(wide), channels, x, g)
    return _row(channels, x, sums * (channels / x.size))


@not_inlined
def pull(x: jax.Array, g: jax.Array, mean: jax.Array, factor: jax.Array, offset: jax.Array, lean: jax.Array):
    """`factor (g - offset - lean (x - mean))`: the gradient of a normalisation, all but `x` and `g` rows."""
    wide = mean.dtype
    return (factor * (g.astype(wide) - offset - lean * (x.astype(wide) - mean))).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def standardise(x: jax.Array, eps: float = 1e-5) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`x[B, H, W, C]` normalised with the statistics of the batch, with the mean and the biased variance `[C]`.

    The gradient is `dx = s (g - mean(g) - n mean(g n))` with `s = 1 / sqrt(variance + eps)` and the normalised `n`
    (Ioffe and Szegedy, 2015, arXiv 1502.03167, section 3), and the terms of the two statistics.
    """
    return _standardise_forward(x, eps)[0]


@not_inlined
def _scaled(x, mean, scale):
    return ((x.astype(mean.dtype) - mean) * scale).astype(x.dtype)


def _standardise_forward(x, eps):
    channels, rows = x.shape[-1], merged(x)
    mean, variance = row_statistics(channels, rows)
    y = _scaled(rows, mean, lax.rsqrt(variance + eps)).reshape(x.shape)
    return (y, mean[0, 0, :channels], variance[0, 0, :channels]), barrier((rows, mean, variance))


def _standardise_backward(eps, residuals, cotangents):
    x, mean, variance = residuals
    g, to_mean, to_variance = cotangents
    shape, channels = g.shape, g.shape[-1]
    g = merged(g)
    # s = 1 / sqrt(variance + eps); the offset and the slope take up the cotangents of the statistics, too.
    scale, count = lax.rsqrt(variance + eps), x.size // channels
    offset = row_mean(channels, g) - _row(channels, x, to_mean) / (count * scale)
    lean = jnp.square(scale) * row_slope(channels, x, mean, g) - _row(channels, x, to_variance) * 2 / (count * scale)
    return (pull(x, g, mean, scale, offset, lean).reshape(shape),)


standardise.defvjp(_standardise_forward, _standardise_backward)
