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

__all__ = ["Pair", "conv", "odd_sides", "pair", "pointwise"]

Pair = int | tuple[int, int]  # one number for both axes, or one for the rows and one for the columns

_NHWC = ("NHWC", "HWIO", "NHWC")


def pair(value: Pair) -> tuple[int, int]:
    """The numbers for the rows and for the columns of an image.

    Example:
      >>> pair(3), pair((1, 7))
      ((3, 3), (1, 7))
    """
    return (value, value) if isinstance(value, int) else value


def odd_sides(kernel: jax.Array) -> None:
    """Raises `UserError` unless both sides of a kernel `[h, w, ...]` are odd, so that it has a centre."""
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise UserError(f"kernel must have odd sides, got {kernel.shape}")


def conv(x: jax.Array, kernel: jax.Array, *, stride: Pair = 1, dilation: int = 1, lowering: Lowering = "auto"):
    """Convolution, padded with zeros by `dilation * (h // 2)` rows and `dilation * (w // 2)` columns on each side.

    Args:
      x: images `[B, H, W, C]`.
      kernel: weights `[h, w, C, D]` with odd `h` and `w`; cast to the dtype of `x`.
      stride: step of the output grid, one number or a pair for rows and columns.
      dilation: distance between taps.
      lowering: how the convolution is written for the backend, see `jaxnas.ops.lowering`.

    Returns:
      Images `[B, ceil(H / stride), ceil(W / stride), D]`.
    """
    odd_sides(kernel)
    kernel, (down, across) = kernel.astype(x.dtype), pair(stride)
    if not by_hand(lowering):
        return _plain((down, across), dilation, x, kernel)
    if kernel.shape[:2] == (1, 1):
        return pointwise(x[:, ::down, ::across], kernel[0, 0])
    return _loop_safe((down, across), dilation, x, kernel)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution with a 1x1 kernel: `x[B, H, W, C]` times `kernel[C, D]`."""
    # Two axes, so that the products of the gradient need no transposes either.
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)


def _pads(kernel: jax.Array, dilation: int) -> list[tuple[int, int]]:
    return [(dilation * (k // 2),) * 2 for k in kernel.shape[:2]]


def _plain(stride: tuple[int, int], dilation: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        _pads(kernel, dilation),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_NHWC,
    )


_loop_safe = functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))(_plain)


def _forward(stride, dilation, x, kernel):
    return _plain(stride, dilation, x, kernel), (x, kernel)


def _backward(stride, dilation, residuals, g):
    x, kernel = residuals
    # The input gradient, in a layout that is canonical already.
    (dx,) = jax.linear_transpose(lambda x: _plain(stride, dilation, x, kernel), x)(g)
    # The weight gradient is the convolution of x with g, batch and channels exchanged.
    sizes = x.shape[1:3], g.shape[1:3], kernel.shape[:2], stride, _pads(kernel, dilation)
    # Padded behind by as much as gives one output per tap of the kernel.
    pads = []
    for size, out, k, step, (low, _) in zip(*sizes, strict=True):
        reach = (out - 1) * step + 1
        pads.append((low, (k - 1) * dilation + reach - size - low))
    dw = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (dilation, dilation),
        pads,
        rhs_dilation=stride,
        dimension_numbers=_NHWC,
    )
    return dx, dw.transpose(1, 2, 0, 3)


_loop_safe.defvjp(_forward, _backward)
