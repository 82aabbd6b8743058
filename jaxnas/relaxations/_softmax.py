"""The softmax mixture, no noise and every operation weighted by its probability; and the Jacobian of a softmax."""

import jax
import jax.numpy as jnp

from jaxnas.dtypes import wide_dtype

__all__ = ["softmax", "softmax_jacobian", "wide"]


def softmax(key: jax.Array | None, logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """The mixture of DARTS: `weight_k = exp(logits_k / temperature) / sum_l exp(logits_l / temperature)`.

    Deterministic: `key` is ignored. It optimises the loss of the mixture, not of its samples.

    Args:
      key: not used.
      logits: unnormalised log-probabilities `[E, K]`.
      temperature: temperature, above zero.

    Returns:
      Weights `[E, K]` that sum to one over the last axis, in the dtype of `logits`.

    Example:
      >>> softmax(None, jnp.array([[0.0, 0.0]])).tolist()
      [[0.5, 0.5]]

    References:
      Liu et al., DARTS, 2019, arXiv 1806.09055, equation 2.
    """
    del key
    return jax.nn.softmax(logits / jnp.asarray(temperature, logits.dtype), -1)


def softmax_jacobian(q: jax.Array, v: jax.Array) -> jax.Array:
    """`q * (v - <q, v>)`: the Jacobian of a softmax with the outcome `q`, which is symmetric, times `v`.

    Args:
      q: probabilities `[..., K]`.
      v: tangent of the logits, or cotangent of the outcome, `[..., K]`.

    Example:
      >>> softmax_jacobian(jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])).tolist()
      [-0.25, 0.25]
    """
    return q * (v - jnp.sum(q * v, -1, keepdims=True))


def wide(logits: jax.Array) -> jax.Array:
    """The logits in float32 or wider: probabilities of eight bits are wrong probabilities."""
    return logits.astype(wide_dtype(logits.dtype))
