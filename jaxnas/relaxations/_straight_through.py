"""Straight-through relaxations: a one-hot sample forward, the gradient of something smooth backward."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.base import Relaxation
from jaxnas.errors import UserError
from jaxnas.relaxations._softmax import softmax_jacobian, wide
from jaxnas.relaxations.gumbel import conditional_perturbed, exponential, gumbel_softmax

__all__ = ["gumbel_rao", "reinmax", "st_gumbel", "st_softmax", "straight_through"]


def straight_through(relaxation: Relaxation) -> Relaxation:
    """The one-hot argmax of `relaxation` in value, `relaxation` itself in gradient.

    The values are exactly zero and one. Biased for discrete choices.

    Example:
      >>> from jaxnas.relaxations import softmax
      >>> hard = straight_through(softmax)
      >>> hard(None, jnp.array([[0.0, 1.0]])).tolist()
      [[0.0, 1.0]]

    References:
      Bengio et al., 2013, arXiv 1308.3432; Jang et al., 2017, arXiv 1611.01144, section 2.2.
    """

    @functools.wraps(relaxation)
    def relaxed(key, logits, temperature=1.0):
        # The value of `hard`, the gradient of `soft`.
        soft = relaxation(key, logits, temperature)
        hard = jax.nn.one_hot(jnp.argmax(soft, -1), soft.shape[-1], dtype=soft.dtype)
        return hard + (soft - lax.stop_gradient(soft))

    return relaxed


def st_gumbel(key: jax.Array, logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Straight-through Gumbel-softmax: a sample forward, the Gumbel-softmax that it is the argmax of backward.

    Biased for discrete choices; the bias falls and the variance rises as the temperature falls.

    Args:
      key: random key of the sample.
      logits: unnormalised log-probabilities `[E, K]`.
      temperature: temperature of the Gumbel-softmax, above zero.

    Returns:
      One-hot `[E, K]`, in the dtype of `logits`.

    Example:
      >>> sample = st_gumbel(jax.random.key(0), jnp.zeros((2, 3)))
      >>> sorted(sample[0].tolist())
      [0.0, 0.0, 1.0]

    References:
      Jang et al., 2017, arXiv 1611.01144, section 2.2; GDAS, Dong and Yang, 2019, arXiv 1910.04465.
    """
    return straight_through(gumbel_softmax)(key, logits, temperature)


def st_softmax(key: jax.Array, logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Straight-through softmax: a sample of `p = softmax(logits)` forward, `softmax(logits / temperature)` backward.

    The cotangent `g` of the sample becomes `p * (g - <p, g>)`: ProxylessNAS's gradient with all paths at hand. No noise
    enters the backward pass but the sample itself. Unbiased where the loss is linear in every decision.

    Args:
      key: random key of the sample.
      logits: unnormalised log-probabilities `[E, K]`.
      temperature: temperature of the backward pass, above zero; ProxylessNAS has 1.

    Returns:
      One-hot `[E, K]`, in the dtype of `logits`.

    Example:
      >>> sample = st_softmax(jax.random.key(0), jnp.zeros((2, 3)))
      >>> sorted(sample[0].tolist())
      [0.0, 0.0, 1.0]

    References:
      Bengio et al., 2013, arXiv 1308.3432; ProxylessNAS, Cai et al., 2019, arXiv 1812.00332, equation 4.
    """
    logits, dtype = wide(logits), logits.dtype
    hard = _sample(key, logits)
    # In gradient p (g - <p, g>) / temperature.
    p = jax.nn.softmax(logits / temperature, -1)
    return (hard + _slope(p, logits) / temperature).astype(dtype)


def reinmax(key: jax.Array, logits: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """ReinMax: a sample `D` forward, `2 J(m) g - J(p) g / 2` backward.

    `m = (softmax(logits / temperature) + D) / 2`, `p = softmax(logits)`, and `J(q) g = q * (g - <q, g>)` is the
    Jacobian of a softmax. This is Heun's method in place of Euler's: at temperature 1 the gradient is unbiased for a
    quadratic loss of one decision, where straight-through is so for a linear one.

    Args:
      key: random key of the sample.
      logits: unnormalised log-probabilities `[E, K]`.
      temperature: temperature of the backward pass, 1 or more; higher ones trade bias for less variance.

    Returns:
      One-hot `[E, K]`, in the dtype of `logits`.

    Example:
      >>> sample = reinmax(jax.random.key(0), jnp.zeros((2, 3)))
      >>> sorted(sample[0].tolist())
      [0.0, 0.0, 1.0]

    References:
      Liu et al., 2023, arXiv 2304.08612.
    """
    logits, dtype = wide(logits), logits.dtype
    hard = _sample(key, logits)
    # m = (softmax(logits / temperature) + D) / 2, Heun's midpoint.
    between = (jax.nn.softmax(logits / temperature, -1) + hard) / 2
    slope = 2 * _slope(between, logits) - _slope(jax.nn.softmax(logits, -1), logits) / 2
    return (hard + slope).astype(dtype)


def gumbel_rao(num_samples: int = 10) -> Relaxation:
    """Straight-through Gumbel-softmax with its backward pass averaged over the noise that gives the same sample.

    Given the sample, the Gumbel noise is drawn again `num_samples` times and the gradients are averaged; the loss is
    evaluated once. The mean is that of `st_gumbel`, the variance lower, more so at low temperatures. The noise does
    not depend on the logits here: a gradient through it would change the mean.

    Args:
      num_samples: number of draws of the noise; with 1 the distribution is that of `st_gumbel`.

    Returns:
      A relaxation.

    Raises:
      UserError: `num_samples` below one.

    Example:
      >>> sample = gumbel_rao(num_samples=4)(jax.random.key(0), jnp.zeros((2, 3)))
      >>> sorted(sample[0].tolist())
      [0.0, 0.0, 1.0]

    References:
      Paulus, Maddison and Krause, 2021, arXiv 2010.04838.
    """
    if num_samples < 1:
        raise UserError(f"num_samples must be at least 1, got {num_samples}")

    def relaxed(key, logits, temperature=1.0):
        logits, dtype = wide(logits), logits.dtype
        key_sample, key_noise = jax.random.split(key)
        hard = _sample(key_sample, logits)
        index, given = jnp.argmax(hard, -1), lax.stop_gradient(logits)

        # One Jacobian for each draw of the noise that gives the same sample.
        def slope(key):
            z = conditional_perturbed(exponential(key, given), given, index)
            return _slope(jax.nn.softmax(z / temperature, -1), logits) / temperature

        return (hard + jnp.mean(jax.vmap(slope)(jax.random.split(key_noise, num_samples)), 0)).astype(dtype)

    return relaxed


def _slope(q: jax.Array, logits: jax.Array) -> jax.Array:
    """Zero in value; backward the Jacobian of a softmax with the outcome `q`, to `logits`."""
    return softmax_jacobian(lax.stop_gradient(q), logits - lax.stop_gradient(logits))


def _sample(key: jax.Array, logits: jax.Array) -> jax.Array:
    return jax.nn.one_hot(jax.random.categorical(key, logits), logits.shape[-1], dtype=logits.dtype)
