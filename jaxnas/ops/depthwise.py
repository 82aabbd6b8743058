"""Depthwise convolution as a sum of shifted products, with gradients written by hand.

XLA's grouped convolution is slow on CPU; the same sum written as `k * k` shifted multiply-adds fuses into one loop and
is some twenty times faster there. The plain `lax` form stays at hand as the oracle and for other backends.

The convolution is linear in the image and in the kernel, and so are both of its gradients. The gradient of each of the
three is made of the other two, to any order.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.dtypes import wide_dtype
from jaxnas.ops._conv import Pair, odd_sides, pair
from jaxnas.ops.calls import barrier, not_inlined
from jaxnas.ops.lowering import Lowering, by_hand
from jaxnas.ops.sums import partial_sums

__all__ = ["depthwise_conv"]


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair = 1, dilation: int = 1, lowering: Lowering = "auto"
) -> jax.Array:
    """Convolves every channel with a separate kernel, padded with zeros as `jaxnas.ops.conv` pads.

    `y[b, h, w, c] = sum_ij x[b, h * stride + i * dilation - pad, w * stride + j * dilation - pad, c] kernel[i, j, c]`

    Args:
      x: images `[B, H, W, C]`.
      kernel: weights `[h, w, C]` with odd `h` and `w`; cast to the dtype of `x`.
      stride: step of the output grid, one number or a pair for rows and columns.
      dilation: distance between taps.
      lowering: how the convolution is written for the backend, see `jaxnas.ops.lowering`.

    Returns:
      Images `[B, ceil(H / stride), ceil(W / stride), C]`.
    """
    odd_sides(kernel)
    kernel = kernel.astype(x.dtype)
    if by_hand(lowering):
        (_, height, width, _), (rows, columns, _) = x.shape, kernel.shape
        return _conv(_Plan((height, width), (rows, columns), pair(stride), dilation), x, kernel)
    # The plain form: one group of a grouped convolution for each channel.
    pads = [(dilation * (k // 2),) * 2 for k in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        pair(stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


class _Plan(NamedTuple):
    """Sizes of one convolution: the input grid, the sides of the kernel, and how it moves over rows and columns."""

    grid: tuple[int, int]
    sides: tuple[int, int]
    stride: tuple[int, int]
    dilation: int

    @property
    def out(self) -> tuple[int, int]:
        """The output grid."""
        return -(-self.grid[0] // self.stride[0]), -(-self.grid[1] // self.stride[1])

    @property
    def pads(self) -> tuple[int, int]:
        """Rows above and below, columns left and right."""
        return self.dilation * (self.sides[0] // 2), self.dilation * (self.sides[1] // 2)

    @property
    def taps(self) -> tuple[tuple[int, int, int, int], ...]:
        """Per tap the row and column phase it reads, and the first row and column there."""
        # Tap i starts `i * dilation` pixels in: so many whole steps, and a phase within a step.
        places = itertools.product(*(range(side) for side in self.sides))
        steps = [[divmod(i * self.dilation, step) for i, step in zip(place, self.stride)] for place in places]
        return tuple((row, column, top, left) for (top, row), (left, column) in steps)


@functools.partial(not_inlined, static=(0,))
def _phases(plan: _Plan, x: jax.Array) -> jax.Array:
    """`x[B, H, W, C]` padded, as `[down, across, B, H', W' * C]` with the two steps `down` and `across` of the stride.

    Entry `[i, j]` holds rows `i, i + down, ...` and columns `j, j + across, ...`, so that a tap reads neighbouring
    memory however large the step. Columns and channels are one axis, a long innermost loop however few channels.
    """
    batch, _, _, channels = x.shape
    down, across = plan.stride
    # Padded, and filled up to whole steps.
    sizes = zip(plan.grid, plan.pads, plan.stride, strict=True)
    margins = [(pad, pad + -(size + 2 * pad) % step, 0) for size, pad, step in sizes]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    rows, columns = x.shape[1] // down, x.shape[2] // across
    if plan.stride != (1, 1):
        x = x.reshape(batch, rows, down, columns, across, channels).transpose(2, 4, 0, 1, 3, 5)
    return x.reshape(down, across, batch, rows, columns * channels)


@functools.partial(not_inlined, static=(0,))
def _along_rows(columns: int, kernel: jax.Array) -> jax.Array:
    """`kernel[k, k, C]` as `[k * k, 1, 1, columns * C]`, in float32: a bfloat16 sum of 25 taps loses digits."""
    kernel = kernel.astype(wide_dtype(kernel.dtype)).reshape(-1, 1, kernel.shape[-1])
    return jnp.tile(kernel, (1, columns, 1)).reshape(kernel.shape[0], 1, 1, -1)


@functools.partial(not_inlined, static=(0, 1))
def _sum_windows(starts: tuple[tuple[int, ...], ...], rows: int, phases: jax.Array, kernel: jax.Array) -> jax.Array:
    """`sum_t kernel[t] * phases[starts[t]]`, windows of `rows` rows that are as long as the kernel's last axis."""
    length = kernel.shape[-1]
    windows = [phases[i, j, :, top : top + rows, left : left + length] for i, j, top, left in starts]
    terms = [window.astype(kernel.dtype) * tap for window, tap in zip(windows, kernel, strict=True)]
    return sum(terms).astype(phases.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(plan: _Plan, x: jax.Array, kernel: jax.Array) -> jax.Array:
    height, width = plan.out
    # A tap reads one window of one phase of the padded image.
    starts = tuple((i, j, top, left * x.shape[-1]) for i, j, top, left in plan.taps)
    y = _sum_windows(starts, height, _phases(plan, x), _along_rows(width, kernel))
    return y.reshape(x.shape[0], height, width, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(plan: _Plan, g: jax.Array, kernel: jax.Array) -> jax.Array:
    if plan.stride != (1, 1):  # the output grid laid back onto the input grid, zeros between
        sizes = zip(plan.grid, plan.out, plan.stride, strict=True)
        margins = [(0, size - ((out - 1) * step + 1), step - 1) for size, out, step in sizes]
        g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    # A convolution with the kernel turned round.
    return _conv(plan._replace(stride=(1, 1)), g, jnp.flip(kernel, (0, 1)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(plan: _Plan, x: jax.Array, g: jax.Array) -> jax.Array:
    # dL/dk[i, j, c] = sum_bhw x[b, h * stride + i * dilation - pad, ..., c] g[b, h, w, c].
    batch, height, width, channels = g.shape
    sums = _tap_sums(plan, _phases(plan, x), g.reshape(batch, height, width * channels))
    return sums.reshape(*plan.sides, -1, channels).sum(2).astype(g.dtype)


@functools.partial(not_inlined, static=(0,))
def _tap_sums(plan: _Plan, phases: jax.Array, g: jax.Array) -> jax.Array:
    # One tap at a time: all of them written out compile for much longer.
    channels, wide = g.shape[-1] // plan.out[1], wide_dtype(g.dtype)

    def one(tap):
        row, column, top, left = tap
        start = (row, column, np.int32(0), top, left * channels)
        window = lax.dynamic_slice(phases, start, (1, 1, *g.shape))[0, 0]
        return partial_sums(lambda a, b: a.astype(wide) * b.astype(wide), window, g)

    return lax.map(one, jnp.array(plan.taps, jnp.int32))


def _with_arguments(function):
    return lambda plan, a, b: (function(plan, a, b), barrier((a, b)))


# Each of the three is linear in both arguments: its gradient is made of the other two.
_conv.defvjp(
    _with_arguments(_conv),
    lambda plan, args, g: (_input_gradient(plan, g, args[1]), _kernel_gradient(plan, args[0], g)),
)
_input_gradient.defvjp(
    _with_arguments(_input_gradient),
    lambda plan, args, x: (_conv(plan, x, args[1]), _kernel_gradient(plan, x, args[0])),
)
_kernel_gradient.defvjp(
    _with_arguments(_kernel_gradient),
    lambda plan, args, kernel: (_input_gradient(plan, args[1], kernel), _conv(plan, args[0], kernel)),
)
