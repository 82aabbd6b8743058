"""Depthwise convolution as a sum of shifted products, with its own gradient.

XLA's grouped convolution is slow on CPU; the same sum written as `k * k` shifted multiply-adds fuses into one loop and
is some twenty times faster there. The plain `lax` form stays at hand as the oracle and for other backends.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.ops.island import island, kept
from jaxnas.ops.lowering import Lowering, by_hand

__all__ = ["depthwise_conv"]


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, lowering: Lowering = "auto"
) -> jax.Array:
    """Convolves every channel with its own kernel, padded by `dilation * (k // 2)` on all sides.

    `y[b, h, w, c] = sum_ij x[b, h * stride + i * dilation - pad, w * stride + j * dilation - pad, c] kernel[i, j, c]`

    Args:
      x: `[B, H, W, C]`.
      kernel: `[k, k, C]` with odd `k`; cast to the dtype of `x`.
      stride: step of the output grid.
      dilation: distance between taps.
      lowering: see `jaxnas.ops.lowering`.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), C]`.
    """
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ValueError(f"kernel must have odd sides, got {kernel.shape}")
    kernel = kernel.astype(x.dtype)
    if by_hand(lowering):
        return _shifts(stride, dilation, x, kernel)
    pads = [(dilation * (k // 2),) * 2 for k in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _taps(x: jax.Array, shape: tuple[int, ...], stride: int, dilation: int):
    """Yields `(i, j, window)`: the padded input seen by tap `(i, j)` at every output pixel."""
    kh, kw = shape[:2]
    pad_h, pad_w = dilation * (kh // 2), dilation * (kw // 2)
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    padded = jnp.pad(x, ((0, 0), (pad_h, pad_h), (pad_w, pad_w), (0, 0)))
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation, j * dilation
            rows = slice(top, top + (height - 1) * stride + 1, stride)
            columns = slice(left, left + (width - 1) * stride + 1, stride)
            yield i, j, padded[:, rows, columns, :]


@functools.partial(island, static=(0, 1))
def _sum_taps(stride: int, dilation: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Sums in float32: a bfloat16 sum of 25 taps loses digits.
    wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    total = sum(window * wide[i, j][None, None, None] for i, j, window in _taps(x, kernel.shape, stride, dilation))
    return jnp.asarray(total, x.dtype)


_shifts = functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))(_sum_taps)


@functools.partial(island, static=(0, 1, 2))
def _kernel_gradient(stride: int, dilation: int, shape: tuple[int, ...], x: jax.Array, g: jax.Array) -> jax.Array:
    # A loop over the rows of the kernel compiles in half the time of all taps written out. A sum over pixels inside a
    # fused loop does not vectorise on CPU; the product of a row of ones with what is to be summed does.
    kh, kw = shape[:2]
    pad_h, pad_w = dilation * (kh // 2), dilation * (kw // 2)
    padded = jnp.pad(x, ((0, 0), (pad_h, pad_h), (pad_w, pad_w), (0, 0)))
    wide = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    batch, height, width, channels = g.shape
    high, across = ((size - 1) * stride + 1 for size in (height, width))
    ones = jnp.ones((1, batch * height), wide.dtype)

    def row(i):
        rows = lax.dynamic_slice_in_dim(padded, i * dilation, high, 1)[:, ::stride]
        windows = [rows[:, :, j * dilation :][:, :, :across:stride] for j in range(kw)]
        sums = [ones @ (window * wide).reshape(batch * height, width * channels) for window in windows]
        return jnp.stack(sums).reshape(kw, width, channels).sum(1)

    return lax.map(row, jnp.arange(kh)).astype(g.dtype)


def _forward(stride, dilation, x, kernel):
    return _sum_taps(stride, dilation, x, kernel), kept((x, kernel))


def _backward(stride, dilation, residuals, g):
    x, kernel = residuals
    spread = g
    if stride > 1:  # the output grid laid back onto the input grid, zeros between
        extra = [size - ((out - 1) * stride + 1) for size, out in zip(x.shape[1:3], g.shape[1:3], strict=True)]
        config = [(0, 0, 0), (0, extra[0], stride - 1), (0, extra[1], stride - 1), (0, 0, 0)]
        spread = lax.pad(g, jnp.zeros((), g.dtype), config)
    dx = _shifts(1, dilation, spread, jnp.flip(kernel, (0, 1)))
    return dx, _kernel_gradient(stride, dilation, kernel.shape, x, g)


_shifts.defvjp(_forward, _backward)
