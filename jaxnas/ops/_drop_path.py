"""Drop path: a whole branch is left out for single examples."""

import jax
import jax.numpy as jnp

from jaxnas.dtypes import wide_dtype

__all__ = ["drop_path"]


def drop_path(key: jax.Array, x: jax.Array, rate: jax.Array | float) -> jax.Array:
    """Zeroes each example of `x[B, ...]` with probability `rate` and divides the others by `1 - rate`."""
    keep = 1.0 - jnp.asarray(rate, wide_dtype(x.dtype))
    # Drawn in float32 for every dtype, so that the same key drops the same examples.
    mask = jax.random.bernoulli(key, keep.astype(jnp.float32), (x.shape[0],) + (1,) * (x.ndim - 1))
    return x * (mask.astype(keep.dtype) / keep).astype(x.dtype)
