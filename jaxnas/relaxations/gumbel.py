"""The Gumbel-softmax, also called Concrete, distribution: samples of it, and its density."""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

__all__ = ["concrete_log_prob", "gumbel_softmax"]


def gumbel_softmax(key: jax.Array, logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """`weight = softmax((logits + G) / temperature)` with independent standard Gumbel noise `G`.

    A sample approaches a one-hot vector as the temperature falls, with the probabilities `softmax(logits)`; the
    variance of its gradient grows like the inverse of the temperature. For a function of discrete choices the
    gradient is biased at any temperature above zero.

    Args:
      key: consumed.
      logits: `[E, K]` unnormalised log-probabilities (`log alpha` of SNAS).
      temperature: above zero.

    Returns:
      Weights `[E, K]` that sum to one over the last axis, in the dtype of `logits`.

    References:
      Xie et al., SNAS, 2019, arXiv 1812.09926, equation 4; Maddison et al., 2017, arXiv 1611.00712, equation 10;
      Jang et al., 2017, arXiv 1611.01144, equation 2.
    """
    wide = jnp.promote_types(logits.dtype, jnp.float32)  # noise of eight bits gives rare operations wrong frequencies
    noise = jax.random.gumbel(key, logits.shape, wide)
    weight = jax.nn.softmax((logits.astype(wide) + noise) / jnp.asarray(temperature, wide), -1)
    return weight.astype(logits.dtype)


def concrete_log_prob(logits: jax.Array, temperature: jax.Array | float, log_weight: jax.Array) -> jax.Array:
    """Log-density of a Gumbel-softmax sample, one value per decision.

    `log p(Z) = log (K-1)! + (K-1) log t + sum_k logits_k - (t+1) sum_k log Z_k - K logsumexp(logits - t log Z)`.
    Takes `log Z`, since `Z` itself underflows at small temperatures.

    Args:
      logits: `[E, K]`.
      temperature: `t`, above zero.
      log_weight: `log Z[E, K]`, for example from `jax.nn.log_softmax((logits + G) / t)`.

    Returns:
      `[E]` in nats, the density with respect to the simplex.

    References:
      Maddison et al., 2017, arXiv 1611.00712, equation 11; SNAS, arXiv 1812.09926, appendix.
    """
    k = logits.shape[-1]
    t = jnp.asarray(temperature, logits.dtype)
    constant = gammaln(jnp.asarray(k, logits.dtype)) + (k - 1) * jnp.log(t)
    spread = jnp.sum(logits - (t + 1) * log_weight, -1)
    return constant + spread - k * logsumexp(logits - t * log_weight, -1)
