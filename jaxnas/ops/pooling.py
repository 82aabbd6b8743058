"""Pooling over 3x3 windows in two separable passes, much faster on CPU than a window reduction."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.ops._conv import Pair, pair
from jaxnas.ops.calls import barrier, not_inlined
from jaxnas.ops.lowering import Lowering, by_hand

__all__ = ["avg_pool", "max_pool", "valid_counts"]


def max_pool(x: jax.Array, *, window: int = 3, stride: Pair = 1, lowering: Lowering = "auto") -> jax.Array:
    """Maximum over a square window, padded by `window // 2`; the gradient goes to the first maximum in row order.

    Args:
      x: images `[B, H, W, C]`.
      window: side of the window, odd.
      stride: step of the output grid, one number or a pair for rows and columns.
      lowering: how the pooling is written for the backend, see `jaxnas.ops.lowering`.

    Returns:
      Images `[B, ceil(H / stride), ceil(W / stride), C]`.
    """
    if not by_hand(lowering):
        return _reduce_window(x, -jnp.inf, lax.max, window, stride)
    # Every position, then a step: on CPU faster, with the gradient, than strided windows.
    for axis, apart in _merged_axes(x):
        along = _max_of_three if window == 3 else functools.partial(_max_along, window=window)
        x = _on_merged(functools.partial(along, axis, apart), x, axis, pair(stride)[axis - 1])
    return x


def avg_pool(x: jax.Array, *, window: int = 3, stride: Pair = 1, lowering: Lowering = "auto") -> jax.Array:
    """Mean over a square window, padded by `window // 2`; the padding is left out of the divisor.

    Arguments and result as in `max_pool`.
    """
    if by_hand(lowering):
        total = x
        for axis, apart in _merged_axes(x):
            step = pair(stride)[axis - 1]
            total = _on_merged(functools.partial(_sum_along, axis, apart, window), total, axis, step)
    else:
        total = _reduce_window(x, 0.0, lax.add, window, stride)
    # Divided by the places of the window that lie inside of the image.
    rows, columns = (valid_counts(size, window, step) for size, step in zip(x.shape[1:3], pair(stride), strict=True))
    scale = 1.0 / (rows[None, :, None, None] * columns[None, None, :, None])
    return total * jnp.asarray(scale, x.dtype)


def _reduce_window(x: jax.Array, start: float, combine: Callable[..., jax.Array], window: int, stride: Pair):
    pads = ((0, 0), (window // 2,) * 2, (window // 2,) * 2, (0, 0))
    return lax.reduce_window(x, start, combine, (1, window, window, 1), (1, *pair(stride), 1), pads)


def _merged_axes(x: jax.Array) -> tuple[tuple[int, int], ...]:
    """`(axis, distance of two neighbours along it)`, columns first, for `x[B, H, W * C]`."""
    return (2, x.shape[-1]), (1, 1)


def _on_merged(function: Callable[[jax.Array], jax.Array], x: jax.Array, axis: int, stride: int) -> jax.Array:
    """`function` of `x` with columns and channels as one axis, a long innermost loop however few channels there are."""
    y = function(x.reshape(*x.shape[:2], -1)).reshape(x.shape)
    return lax.slice_in_dim(y, 0, None, stride, axis)


def _windows(x: jax.Array, axis: int, apart: int, window: int, fill: float) -> list[jax.Array]:
    """What each place of the window sees at every position of `x[B, H, W * C]`."""
    pads = [(0, 0)] * 3
    pads[axis] = (window // 2 * apart,) * 2
    padded = jnp.pad(x, pads, constant_values=fill)
    return [lax.slice_in_dim(padded, i * apart, i * apart + x.shape[axis], 1, axis) for i in range(window)]


@functools.partial(not_inlined, static=(0, 1, 2))
def _plain_sum(axis: int, apart: int, window: int, x: jax.Array) -> jax.Array:
    first, *rest = _windows(x, axis, apart, window, 0.0)
    return sum(rest, first)


# The window is odd and the step one, so the sum is its own transpose.
_sum_along = functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))(_plain_sum)
_sum_along.defvjp(lambda *args: (_plain_sum(*args), None), lambda *args: (_sum_along(*args[:3], args[-1]),))


def _max_along(axis: int, apart: int, x: jax.Array, *, window: int = 3) -> jax.Array:
    first, *rest = _windows(x, axis, apart, window, -jnp.inf)
    for tap in rest:  # NaN wins, as in lax.max
        first = jnp.where((tap > first) | (tap != tap), tap, first)
    return first


_plain_max_of_three = not_inlined(_max_along, static=(0, 1))


@functools.partial(not_inlined, static=(0, 1))
def _max_of_three_gradient(axis: int, apart: int, x: jax.Array, g: jax.Array) -> jax.Array:
    # Gathered from the three windows that see a pixel; the transposed forward pass scatters, which does not vectorise.
    before, centre, after = _windows(x, axis, apart, 3, -jnp.inf)
    # A pixel gets the cotangent of each window whose first maximum it is.
    first = (before >= centre) & (before >= after)
    last = (after > before) & (after > centre)
    zero = jnp.zeros_like(g)
    to_before, _, _ = _windows(jnp.where(last, g, zero), axis, apart, 3, 0.0)
    _, _, to_after = _windows(jnp.where(first, g, zero), axis, apart, 3, 0.0)
    return to_before + jnp.where(first | last, zero, g) + to_after


_max_of_three = functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))(_plain_max_of_three)
_max_of_three.defvjp(
    lambda axis, apart, x: (_plain_max_of_three(axis, apart, x), barrier(x)),
    lambda axis, apart, x, g: (_max_of_three_gradient(axis, apart, x, g),),
)


def valid_counts(size: int, window: int, stride: int) -> np.ndarray:
    """How many of the window's positions lie inside, at every output position along one axis."""
    centre = np.arange(0, size, stride)
    return (np.minimum(centre + window // 2, size - 1) - np.maximum(centre - window // 2, 0) + 1).astype(np.float64)
