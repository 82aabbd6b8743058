"""Drop path: a whole branch is left out for single examples."""

import jax
import jax.numpy as jnp

__all__ = ["drop_path"]


def drop_path(key: jax.Array, x: jax.Array, rate: jax.Array | float) -> jax.Array:
    """Zeroes each example of `x[B, ...]` with probability `rate` and divides the others by `1 - rate`."""
    keep = 1.0 - jnp.asarray(rate, jnp.float32)
    mask = jax.random.bernoulli(key, keep, (x.shape[0],) + (1,) * (x.ndim - 1)) / keep
    return x * mask.astype(x.dtype)
