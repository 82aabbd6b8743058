"""Sums over the pixels of a batch, in the form that is fast on CPU.

XLA:CPU does not vectorise a sum inside a fused loop. What does: a few terms written out, which fuse with whatever
computes them, and then the product of what is left, four times smaller, with rows of ones.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.dtypes import wide_dtype
from jaxnas.ops.lowering import by_hand

__all__ = ["channel_sum", "partial_sums"]

_TERMS = 4  # with sixteen the compiler writes every term to memory first, three times slower


def channel_sum(function: Callable[..., jax.Array], channels: int, *arrays: jax.Array) -> jax.Array:
    """Sum of the elementwise `function(*arrays)` per channel, for arrays `[B, H, W * C]`: `[C]`, float32 or wider."""
    return partial_sums(function, *arrays).reshape(-1, channels).sum(0)


def partial_sums(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Sums of the elementwise `function(*arrays)` over parts of the first two axes, still to be added up.

    Args:
      function: elementwise function of arrays `[..., M]` of rank three.
      *arrays: arguments of the function, all of one shape `[B, H, M]`.

    Returns:
      Partial sums `[n, M]` with a small `n`, in float32 or wider.
    """
    if not by_hand("auto"):
        y = function(*arrays)
        return jnp.sum(y, (0, 1), dtype=wide_dtype(y.dtype))[None]
    batch, height, length = arrays[0].shape
    size = max(n for n in range(1, min(batch, _TERMS) + 1) if batch % n == 0)
    split = [array.reshape(batch // size, size, height, length) for array in arrays]
    # A few terms written out, which fuse with the function.
    terms = [function(*(array[:, i] for array in split)) for i in range(size)]
    terms = [term.astype(wide_dtype(term.dtype)) for term in terms]
    # What is left, as a product with rows of ones.
    rows = functools.reduce(jnp.add, terms).reshape(-1, length)
    first = np.arange(rows.shape[0]) < rows.shape[0] // 2  # two parts: a product with one row is compiled every time
    return jnp.asarray([first, ~first], rows.dtype) @ rows
