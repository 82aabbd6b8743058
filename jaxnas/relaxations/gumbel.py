"""The Gumbel-softmax, also called Concrete, distribution: its noise, samples of it, and its density."""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

from jaxnas.relaxations._softmax import wide

__all__ = [
    "concrete_log_prob",
    "conditional_noise",
    "conditional_perturbed",
    "exponential",
    "gumbel_softmax",
    "perturbed",
]


def perturbed(key: jax.Array, logits: jax.Array) -> jax.Array:
    """`logits + G` with independent standard Gumbel noise; its argmax is a sample of `softmax(logits)`.

    Args:
      key: random key of the noise.
      logits: unnormalised log-probabilities `[E, K]`.

    Returns:
      Perturbed logits `[E, K]`, float32 or wider: noise of eight bits gives rare operations wrong frequencies.

    Example:
      >>> z = perturbed(jax.random.key(0), jnp.array([[0.0, -jnp.inf]]))
      >>> int(z.argmax())  # an operation of probability zero is never drawn
      0
    """
    logits = wide(logits)
    return logits + jax.random.gumbel(key, logits.shape, logits.dtype)


def conditional_perturbed(noise: jax.Array, logits: jax.Array, index: jax.Array) -> jax.Array:
    """Perturbed logits given which of them is the greatest, differentiable in `logits`.

    With the noise `E_i ~ Exp(1)` and `Z = sum_i exp(logits_i)`, the greatest is `-log E_b + log Z` and another one
    `-log(E_i / exp(logits_i) + E_b / Z)`. Averaged over `index` the distribution is that of `perturbed`.

    Args:
      noise: positive noise `[E, K]`, from `exponential` or `conditional_noise`.
      logits: unnormalised log-probabilities `[E, K]`.
      index: place `[E]` of the greatest perturbed logit of every row, int32.

    Returns:
      Perturbed logits `[E, K]`, float32 or wider.

    Example:
      >>> logits, index = jnp.zeros((1, 3)), jnp.array([2])
      >>> int(conditional_perturbed(exponential(jax.random.key(0), logits), logits, index).argmax())
      2

    References:
      Maddison et al., 2014, arXiv 1411.0030; Paulus et al., 2021, arXiv 2010.04838; Grathwohl et al., 2018, arXiv
      1711.00123.
    """
    logits = wide(logits)
    log_noise = jnp.log(noise)
    chosen = jax.nn.one_hot(index, logits.shape[-1], dtype=bool)
    log_total = logsumexp(logits, -1, keepdims=True)
    # -log E_b + log Z for the greatest, -log(E_i / exp(logits_i) + E_b / Z) for the others.
    greatest = log_total - jnp.sum(jnp.where(chosen, log_noise, 0.0), -1, keepdims=True)
    return jnp.where(chosen, greatest, -jnp.logaddexp(log_noise - logits, -greatest))


def conditional_noise(z: jax.Array, logits: jax.Array, index: jax.Array) -> jax.Array:
    """The noise with which `conditional_perturbed` gives just `z`, a constant.

    For `z` from `perturbed` it is distributed as `exponential`, and independent of `index = argmax z`.

    Args:
      z: perturbed logits `[E, K]`.
      logits: the logits `[E, K]` that were perturbed.
      index: argmax `[E]` of `z`, int32.

    Example:
      >>> logits = jnp.zeros((1, 3))
      >>> z = perturbed(jax.random.key(0), logits)
      >>> noise = conditional_noise(z, logits, z.argmax(-1))
      >>> bool(jnp.allclose(conditional_perturbed(noise, logits, z.argmax(-1)), z, atol=1e-4))
      True

    References:
      Tucker et al., 2017, arXiv 1703.07370, where it couples the two samples of REBAR.
    """
    chosen = jax.nn.one_hot(index, z.shape[-1], dtype=bool)
    greatest = jnp.max(z, -1, keepdims=True)
    # Solved for the noise: E_b from the greatest, then E_i from each of the others.
    least = jnp.exp(logsumexp(logits, -1, keepdims=True) - greatest)
    others = -jnp.expm1(jnp.where(chosen, -jnp.inf, z - greatest)) * jnp.exp(logits - z)
    noise = jnp.where(chosen, least, others)
    return jax.lax.stop_gradient(jnp.maximum(noise, jnp.finfo(noise.dtype).tiny))


def exponential(key: jax.Array, like: jax.Array) -> jax.Array:
    """Standard exponential noise in the shape and dtype of `like`, never zero, so that its logarithm is finite."""
    return -jnp.log(jax.random.uniform(key, like.shape, like.dtype, minval=jnp.finfo(like.dtype).tiny))


def gumbel_softmax(key: jax.Array, logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """`weight = softmax((logits + G) / temperature)` with independent standard Gumbel noise `G`.

    A sample approaches a one-hot vector as the temperature falls, with the probabilities `softmax(logits)`; the
    variance of its gradient grows like the inverse of the temperature. For a function of discrete choices the
    gradient is biased at any temperature above zero.

    Args:
      key: random key of the noise.
      logits: `[E, K]` unnormalised log-probabilities (`log alpha` of SNAS).
      temperature: temperature of the softmax, above zero.

    Returns:
      Weights `[E, K]` that sum to one over the last axis, in the dtype of `logits`.

    Example:
      >>> weight = gumbel_softmax(jax.random.key(0), jnp.zeros((2, 3)), 0.5)
      >>> weight.shape, [round(total, 4) for total in weight.sum(-1).tolist()]
      ((2, 3), [1.0, 1.0])

    References:
      Xie et al., SNAS, 2019, arXiv 1812.09926, equation 4; Maddison et al., 2017, arXiv 1611.00712, equation 10;
      Jang et al., 2017, arXiv 1611.01144, equation 2.
    """
    z = perturbed(key, logits)
    return jax.nn.softmax(z / jnp.asarray(temperature, z.dtype), -1).astype(logits.dtype)


def concrete_log_prob(logits: jax.Array, temperature: jax.Array | float, log_weight: jax.Array) -> jax.Array:
    """Log-density of a Gumbel-softmax sample, one value per decision.

    `log p(Z) = log (K-1)! + (K-1) log t + sum_k logits_k - (t+1) sum_k log Z_k - K logsumexp(logits - t log Z)`.
    Takes `log Z`, since `Z` itself underflows at small temperatures.

    Args:
      logits: unnormalised log-probabilities `[E, K]`.
      temperature: temperature `t`, above zero.
      log_weight: logarithm `log Z[E, K]` of the sample, for example from `jax.nn.log_softmax((logits + G) / t)`.

    Returns:
      Log-density `[E]` in nats, the density with respect to the simplex.

    Example:
      >>> log_weight = jnp.log(jnp.array([[0.5, 0.5]]))
      >>> round(float(concrete_log_prob(jnp.zeros((1, 2)), 1.0, log_weight)[0]), 4)  # uniform on the simplex
      0.0

    References:
      Maddison et al., 2017, arXiv 1611.00712, equation 11; SNAS, arXiv 1812.09926, appendix.
    """
    # Equation 11, term by term.
    k = logits.shape[-1]
    t = jnp.asarray(temperature, logits.dtype)
    constant = gammaln(jnp.asarray(k, logits.dtype)) + (k - 1) * jnp.log(t)
    spread = jnp.sum(logits - (t + 1) * log_weight, -1)
    return constant + spread - k * logsumexp(logits - t * log_weight, -1)
