"""A convolution that does the work of the part of its kernel that is in use, in shapes of the largest kernel.

On a canvas a kernel is mostly zeros: around a smaller kernel, and in channels that a layer does not have. The shapes
stay, so one program serves all architectures, and here loops and branches leave out what is known to be zero. They pay
most where architectures run one after the other. Under `vmap` every branch runs and a loop runs as often as the largest
kernel of all architectures wants, which on a CPU is still much faster than convolutions with masked kernels.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.dtypes import wide_dtype
from jaxnas.ops.calls import barrier, not_inlined

__all__ = ["InUse", "Widths", "conv_in_use"]

ZERO = np.int32(0)  # in the type of the other indices: a plain 0 is an int64 where JAX has 64 bits

Widths = tuple[tuple[int, ...], tuple[int, ...]]  # numbers of input channels and of output channels that may be in use


class InUse(NamedTuple):
    """The part of a kernel `[h, w, C, D]` that may differ from zero, as int32 scalars.

    Attributes:
      rows: rows around the centre, odd; 0 for a kernel that is zero altogether.
      columns: columns around the centre, odd; 0 for a kernel that is zero altogether.
      inputs: which of the numbers of input channels; channels from this number on are zero in the images.
      outputs: which of the numbers of output channels; only channels below this number are computed.
    """

    rows: Any
    columns: Any
    inputs: Any
    outputs: Any


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def conv_in_use(widths: Widths, x: jax.Array, kernel: jax.Array, use: InUse) -> jax.Array:
    """Convolution at stride 1 that keeps the size of the images, with a kernel that is partly zero.

    Its value and its gradient are those of `jaxnas.ops.conv` where the kernel is zero outside of `use`, except that the
    gradient of the kernel is zero there too. The cost grows with `rows * columns` and the channels in use.

    Args:
      widths: the numbers of input channels, and of output channels, that `use` chooses from; each pair of them is a
        branch of the program.
      x: images `[B, H, W, C]`.
      kernel: weights `[h, w, C, D]` with odd `h` and `w`, in the type of `x`.
      use: the part of the kernel that is in use.

    Returns:
      Images `[B, H, W, D]`, zero in channels that are not in use.

    Example:
      >>> use = InUse(1, 1, 0, 0)
      >>> conv_in_use(((1,), (1,)), jnp.ones((1, 1, 3, 1)), jnp.full((3, 3, 1, 1), 2.0), use).ravel().tolist()
      [2.0, 2.0, 2.0]
    """
    return _value(widths, x, kernel, use)


def _branches(widths: Widths, nothing: Any, branch: Any, use: InUse, *args: jax.Array) -> Any:
    """Runs the branch of the channels in use, or the one for a kernel of zeros."""
    branches = [functools.partial(branch, use, *pair) for pair in itertools.product(*widths)]
    chosen = 1 + use.inputs * len(widths[1]) + use.outputs
    return lax.switch(jnp.where(use.rows * use.columns > 0, chosen, 0), [nothing, *branches], *args)


def _place(use: InUse, kernel: jax.Array, tap: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Row and column of a tap in the kernel, which are those of the padded image where its pixels begin."""
    rows, columns = (side // 2 for side in kernel.shape[:2])
    return rows - use.rows // 2 + tap // use.columns, columns - use.columns // 2 + tap % use.columns


def _padded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    rows, columns = (side // 2 for side in kernel.shape[:2])
    return jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


def _taken(padded: jax.Array, kernel: jax.Array, place: Any, shape: Any, inputs: int, outputs: int) -> Any:
    """What one tap multiplies: pixels `[B H W, inputs]` and weights `[inputs, outputs]`."""
    pixels = lax.dynamic_slice(padded, (ZERO, *place, ZERO), (*shape[:3], inputs)).reshape(-1, inputs)
    return pixels, lax.dynamic_slice(kernel, (*place, ZERO, ZERO), (1, 1, inputs, outputs))[0, 0]


@functools.partial(not_inlined, static=(0,))
def _value(widths: Widths, x: jax.Array, kernel: jax.Array, use: InUse) -> jax.Array:
    shape, wide = (*x.shape[:3], kernel.shape[3]), wide_dtype(x.dtype)

    def nothing(x, kernel):
        return jnp.zeros(shape, x.dtype)

    def branch(use, inputs, outputs, x, kernel):
        padded = _padded(x[..., :inputs], kernel)

        def add(tap, total):
            pixels, weights = _taken(padded, kernel, _place(use, kernel, tap), shape, inputs, outputs)
            return total + jnp.matmul(pixels, weights, preferred_element_type=wide)

        start = jnp.zeros((x.size // x.shape[-1], outputs), wide)
        total = lax.fori_loop(0, use.rows * use.columns, add, start).astype(x.dtype)
        return jnp.pad(total, ((0, 0), (0, shape[3] - outputs))).reshape(shape)

    return _branches(widths, nothing, branch, use, x, kernel)


@functools.partial(not_inlined, static=(0,))
def _gradients(widths: Widths, x: jax.Array, kernel: jax.Array, use: InUse, g: jax.Array):
    """Cotangents of images and kernel."""
    wide = wide_dtype(x.dtype)

    def nothing(x, kernel, g):
        return jnp.zeros_like(x), jnp.zeros_like(kernel)

    def branch(use, inputs, outputs, x, kernel, g):
        padded, g = _padded(x[..., :inputs], kernel), g[..., :outputs].reshape(-1, outputs)

        def add(tap, both):
            to_pixels, to_kernel = both
            place = _place(use, kernel, tap)
            pixels, weights = _taken(padded, kernel, place, x.shape, inputs, outputs)
            # The tap's weights get pixels^T g, and its pixels g weights^T beside what other taps gave them.
            product = jnp.matmul(pixels.T, g, preferred_element_type=wide).astype(kernel.dtype)
            to_kernel = lax.dynamic_update_slice(to_kernel, product[None, None], (*place, ZERO, ZERO))
            back = jnp.matmul(g, weights.T, preferred_element_type=wide).reshape(*x.shape[:3], inputs)
            before = lax.dynamic_slice(to_pixels, (ZERO, *place, ZERO), back.shape)
            return lax.dynamic_update_slice(to_pixels, before + back, (ZERO, *place, ZERO)), to_kernel

        start = jnp.zeros(padded.shape, wide), jnp.zeros_like(kernel)
        to_pixels, to_kernel = lax.fori_loop(0, use.rows * use.columns, add, start)
        rows, columns = (side // 2 for side in kernel.shape[:2])
        inner = to_pixels[:, rows : rows + x.shape[1], columns : columns + x.shape[2]].astype(x.dtype)
        return jnp.pad(inner, ((0, 0), (0, 0), (0, 0), (0, x.shape[3] - inputs))), to_kernel

    return _branches(widths, nothing, branch, use, x, kernel, g)


def _forward(widths, x, kernel, use):
    return _value(widths, x, kernel, use), barrier((x, kernel, use))


def _backward(widths, residuals, g):
    x, kernel, use = residuals
    return (*_gradients(widths, x, kernel, use, g), None)


conv_in_use.defvjp(_forward, _backward)
