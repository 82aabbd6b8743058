"""The softmax mixture: no noise, every operation weighted by its probability."""

import jax
import jax.numpy as jnp

__all__ = ["softmax"]


def softmax(key: jax.Array | None, logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """The mixture of DARTS: `weight_k = exp(logits_k / temperature) / sum_l exp(logits_l / temperature)`.

    Deterministic: `key` is ignored. It optimises the loss of the mixture, not of its samples.

    Args:
      key: not used.
      logits: `[E, K]` unnormalised log-probabilities.
      temperature: above zero.

    Returns:
      Weights `[E, K]` that sum to one over the last axis, in the dtype of `logits`.

    References:
      Liu et al., DARTS, 2019, arXiv 1806.09055, equation 2.
    """
    del key
    return jax.nn.softmax(logits / jnp.asarray(temperature, logits.dtype), -1)
