"""Operations on images with the examples innermost, `[C, H, W, B]`: the layout for training small networks on a CPU.

However few channels an image has, shifts, sums over a channel and element-wise work run along whole vectors here, and a
convolution is one matrix product with shifted copies of its input. Inside a loop its gradient takes a third of the time
of the one in `jaxnas.ops.conv`, whose layout is that of everything else in this library.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.errors import UserError
from jaxnas.ops.pooling import valid_counts

__all__ = [
    "avg_pool",
    "avg_pool_pull",
    "conv",
    "conv_to_input",
    "conv_to_kernel",
    "images_last",
    "norm",
    "norm_pull",
    "pool_shares",
    "standardised",
]


def images_last(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` as `[C, H, W, B]`."""
    return x.transpose(3, 1, 2, 0)


def _taps(x: jax.Array, side: int, stride: int) -> jax.Array:
    """What each tap of a padded square window sees, below each other: `[side * side * C, H' * W' * B]`."""
    channels, height, width, batch = x.shape
    if side == 1:
        return x[:, ::stride, ::stride].reshape(channels, -1)
    # Written into zeros, in place, where padding and joining slices would copy the images twice.
    seen = jnp.zeros((side, side, channels, height // stride, width // stride, batch), x.dtype)
    for i in range(side):
        for j in range(side):
            # The pixels that tap (i, j) sees, and the outputs that they belong to.
            (rows, to_rows), (columns, to_columns) = (
                _reach(size, tap - side // 2, stride) for size, tap in ((height, i), (width, j))
            )
            seen = seen.at[i, j, :, to_rows, to_columns].set(x[:, rows, columns])
    return seen.reshape(side * side * channels, -1)


def _reach(size: int, shift: int, stride: int) -> tuple[slice, slice]:
    """Which places a tap sees along an axis, and at which outputs it sees them; elsewhere it sees the padding."""
    first = max(0, -(shift // stride))
    last = min(size // stride - 1, (size - 1 - shift) // stride)
    return slice(first * stride + shift, last * stride + shift + 1, stride), slice(first, last + 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution, padded by half the side of the kernel.

    Args:
      x: images `[C, H, W, B]`, with even `H` and `W` when `stride` is 2.
      kernel: weights `[k, k, C, D]` with `k` 1 or 3.
      stride: step of the output grid, 1 or 2.

    Returns:
      Images `[D, H / stride, W / stride, B]`.
    """
    side, _, channels, features = kernel.shape
    _, height, width, batch = x.shape
    # The transposed kernel as an array of its own: folded into the product it takes twice as long.
    flat = lax.optimization_barrier(kernel.reshape(side * side * channels, features).T)
    return (flat @ _taps(x, side, stride)).reshape(features, height // stride, width // stride, batch)


def conv_to_kernel(x: jax.Array, g: jax.Array, side: int, stride: int = 1) -> jax.Array:
    """The gradient `[side, side, C, D]` of the kernel from that of the output, `g[D, H', W', B]`."""
    # One product with what every tap sees.
    products = lax.dot_general(_taps(x, side, stride), g.reshape(g.shape[0], -1), (((1,), (1,)), ((), ())))
    return products.reshape(side, side, x.shape[0], g.shape[0])


def conv_to_input(g: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """The gradient `[C, H, W, B]` of the input from that of the output, `g[D, H', W', B]`."""
    if stride == 1:
        return conv(g, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    # Stride 2: what every tap sends back, laid onto the larger grid along the rows and then along the columns.
    side, _, channels, features = kernel.shape
    taps = kernel.reshape(side * side * channels, features) @ g.reshape(features, -1)
    taps = taps.reshape(side, side, channels, *g.shape[1:])
    rows = [_spread([taps[i, j] for i in range(side)], 1) for j in range(side)]
    return _spread(rows, 2)


def _spread(taps: list[jax.Array], axis: int) -> jax.Array:
    """Adds what the taps of a window of stride two put along one axis, onto a grid twice as long."""
    # Output o reads the places 2o - 1, 2o and 2o + 1, or 2o alone.
    if len(taps) == 1:
        even, odd = taps[0], jnp.zeros_like(taps[0])
    else:
        before, even, after = taps
        ends = [(0, 0)] * before.ndim
        ends[axis] = (0, 1)
        odd = after + lax.slice_in_dim(jnp.pad(before, ends), 1, None, axis=axis)
    both = jnp.stack([even, odd], axis + 1)
    return both.reshape(*even.shape[:axis], -1, *even.shape[axis + 1 :])


def _conv_forward(x, kernel, stride):
    return conv(x, kernel, stride), (x, kernel)


def _conv_backward(stride, residuals, g):
    x, kernel = residuals
    return conv_to_input(g, kernel, stride), conv_to_kernel(x, g, kernel.shape[0], stride)


conv.defvjp(_conv_forward, _conv_backward)


def avg_pool(x: jax.Array) -> jax.Array:
    """Mean over 3x3 windows of `[C, H, W, B]`; padding is left out of the divisor."""
    return _sum_of_nine(x) * pool_shares(x)


def avg_pool_pull(g: jax.Array) -> jax.Array:
    """The gradient of `avg_pool`'s input from that of its output."""
    return _sum_of_nine(g * pool_shares(g))


def _sum_of_nine(x: jax.Array) -> jax.Array:
    for axis in (1, 2):
        ends = [(0, 0)] * 4
        ends[axis] = (1, 1)
        padded, size = jnp.pad(x, ends), x.shape[axis]
        before, at, after = (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        x = before + at + after
    return x


def pool_shares(x: jax.Array) -> np.ndarray:
    """One over the number of pixels in the 3x3 window around each: `[1, H, W, 1]`."""
    rows, columns = (valid_counts(size, 3, 1) for size in x.shape[1:3])
    return (1 / np.outer(rows, columns))[None, :, :, None].astype(x.dtype)


def _column(vector: jax.Array) -> jax.Array:
    return vector[:, None, None, None]


def standardised(x: jax.Array, reference: int = 0, eps: float = 1e-5) -> tuple[jax.Array, jax.Array]:
    """`((x - mean) / sqrt(variance + eps), 1 / sqrt(variance + eps))` per channel of `x[C, H, W, B]`.

    The mean and the biased variance are those of the first `reference` examples, of all when it is 0.

    Raises:
      UserError: fewer than four values per channel.
    """
    known = x[..., : reference or None]
    count = known[0].size
    if count < 4:
        raise UserError(f"batch normalisation needs B*H*W >= 4, got {count}")
    # Two passes: the mean, then the squares around it.
    mean = jnp.sum(known, (1, 2, 3)) / count
    variance = jnp.sum(jnp.square(known - _column(mean)), (1, 2, 3)) / count
    scale = lax.rsqrt(variance + eps)
    return (x - _column(mean)) * _column(scale), scale


def norm(x: jax.Array, scale: jax.Array, bias: jax.Array, reference: int = 0) -> jax.Array:
    """Batch normalisation of `x[C, H, W, B]` with a scale and an offset `[C]`; see `standardised`."""
    return standardised(x, reference)[0] * _column(scale) + _column(bias)


def norm_pull(
    x: jax.Array, scale: jax.Array, g: jax.Array, reference: int = 0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `norm`'s input, scale and offset from that of its output, `g[C, H, W, B]`."""
    # dx = s scale (g - mean(g) - n mean(g n)) with s = 1 / sqrt(variance + eps) and the normalised n.
    standard, inverse = standardised(x, reference)
    to_scale, to_bias = jnp.sum(g * standard, (1, 2, 3)), jnp.sum(g, (1, 2, 3))
    count = x[0, ..., : reference or None].size
    shared = (_column(to_bias) + standard * _column(to_scale)) / count
    if reference:
        shared = jnp.where(jnp.arange(x.shape[-1])[None, None, None] < reference, shared, 0)
    return _column(inverse * scale) * (g - shared), to_scale, to_bias
