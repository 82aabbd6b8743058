"""Dense convolution that stays fast inside a loop.

On CPU the weight gradient of `lax.conv` inside `scan`, `while` or `map` has operands in a layout that misses the fast
kernel, some thirty times slower. Here it is written with explicit transposes into the canonical layout; values are the
same. A convolution with a 1x1 kernel is one matrix product.
"""

import functools

import jax
from jax import lax

from jaxnas.errors import UserError
from jaxnas.ops.lowering import Lowering, by_hand

__all__ = ["conv", "pointwise"]

_NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, lowering: Lowering = "auto"):
    """Convolution with symmetric padding `dilation * (k // 2)`.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[k, k, C, D]` with odd `k`; cast to the dtype of `x`.
      stride: step of the output grid.
      dilation: distance between taps.
      lowering: see `jaxnas.ops.lowering`.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), D]`.
    """
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise UserError(f"kernel must have odd sides, got {kernel.shape}")
    kernel = kernel.astype(x.dtype)
    if not by_hand(lowering):
        return _plain(stride, dilation, x, kernel)
    if kernel.shape[:2] == (1, 1):
        return pointwise(x[:, ::stride, ::stride], kernel[0, 0])
    return _loop_safe(stride, dilation, x, kernel)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution with a 1x1 kernel: `x[B, H, W, C]` times `kernel[C, D]`."""
    # Two axes, so that the products of the gradient need no transposes either.
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)


def _pads(kernel: jax.Array, dilation: int) -> list[tuple[int, int]]:
    return [(dilation * (k // 2),) * 2 for k in kernel.shape[:2]]


def _plain(stride: int, dilation: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        _pads(kernel, dilation),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_NHWC,
    )


_loop_safe = functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))(_plain)


def _forward(stride, dilation, x, kernel):
    return _plain(stride, dilation, x, kernel), (x, kernel)


def _backward(stride, dilation, residuals, g):
    x, kernel = residuals
    (dx,) = jax.linear_transpose(lambda x: _plain(stride, dilation, x, kernel), x)(g)
    # The weight gradient is the convolution of x with g, batch and channels exchanged.
    pads = []
    for size, out, k, (low, _) in zip(x.shape[1:3], g.shape[1:3], kernel.shape, _pads(kernel, dilation), strict=False):
        reach = (out - 1) * stride + 1
        pads.append((low, (k - 1) * dilation + reach - size - low))
    dw = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (dilation, dilation),
        pads,
        rhs_dilation=(stride, stride),
        dimension_numbers=_NHWC,
    )
    return dx, dw.transpose(1, 2, 0, 3)


_loop_safe.defvjp(_forward, _backward)
