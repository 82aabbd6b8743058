"""The floating types of the library, named in one place: of computations, of weights, and of sums.

Nothing here depends on JAX's default types, so the same code gives the same types with and without 64-bit JAX
(`JAX_ENABLE_X64=1`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.errors import UserError

__all__ = ["compute_dtype", "in_weight_dtype", "wide_dtype", "wide_dtype_of"]


def wide_dtype(*dtypes: Any) -> np.dtype:
    """The type of sums, probabilities and weights beside values of `dtypes`: float64 beside float64, float32 otherwise.

    For one floating type it is `jnp.promote_types(dtype, jnp.float32)`, but it works with
    `jax_numpy_dtype_promotion="strict"` too.

    Args:
      *dtypes: types, or what numpy takes for one.

    Example:
      >>> wide_dtype(jnp.bfloat16).name, wide_dtype(jnp.float64).name
      ('float32', 'float64')
    """
    return np.dtype(np.float64 if any(jnp.dtype(dtype) == np.float64 for dtype in dtypes) else np.float32)


def wide_dtype_of(tree: Any) -> np.dtype:
    """The `wide_dtype` of all arrays of a pytree, float32 for a tree without arrays.

    Example:
      >>> wide_dtype_of({"w": jnp.ones(2, jnp.bfloat16)}).name
      'float32'
    """
    return wide_dtype(*(leaf.dtype for leaf in jax.tree.leaves(tree)))


def compute_dtype(name: str) -> np.dtype:
    """The type in which a space computes.

    Args:
      name: `"float32"`; `"bfloat16"`, in which operations compute while weights and logits stay float32; or
        `"float64"`, for checking gradients or another implementation, where weights and logits are float64 too.

    Raises:
      UserError: another name, or `"float64"` while JAX is restricted to 32 bits.

    Example:
      >>> compute_dtype("bfloat16").name
      'bfloat16'
    """
    if name not in ("float32", "bfloat16", "float64"):
        raise UserError(f"dtype must be 'float32', 'bfloat16' or 'float64', got {name!r}")
    if name == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise UserError("dtype 'float64' needs 64-bit JAX: set JAX_ENABLE_X64=1 in the environment")
    return jnp.dtype(name)


def in_weight_dtype(init: Callable[..., Any], compute: Any) -> Callable[..., Any]:
    """An `init(key, x) -> params` whose floating weights have the type `wide_dtype(compute)`.

    Weights are drawn in float32 whatever `compute` is and then widened, so that a space in float64 starts from the
    very numbers of the same space in float32.

    Args:
      init: `(key, x) -> params`, which draws its weights in float32.
      compute: the type in which the space computes.

    Example:
      >>> init = in_weight_dtype(lambda key, x: {"w": jax.random.normal(key, (2,))}, jnp.bfloat16)
      >>> init(jax.random.key(0), None)["w"].dtype.name
      'float32'
    """
    dtype = wide_dtype(compute)
    if dtype == np.float32:
        return init

    def widened(key: jax.Array, x: jax.Array) -> Any:
        return jax.tree.map(
            lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, init(key, x)
        )

    return widened
