"""Straight-through: discrete forward, relaxed backward, for any relaxation."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.base import Relaxation

__all__ = ["straight_through"]


def straight_through(relaxation: Relaxation) -> Relaxation:
    """The one-hot argmax of `relaxation` in value, `relaxation` itself in gradient.

    `straight_through(gumbel_softmax)` is the straight-through Gumbel-softmax estimator. The values are exactly zero
    and one. Biased for discrete choices.

    References:
      Bengio et al., 2013, arXiv 1308.3432; Jang et al., 2017, arXiv 1611.01144, section 2.2.
    """

    @functools.wraps(relaxation)
    def relaxed(key, logits, temperature=1.0):
        soft = relaxation(key, logits, temperature)
        hard = jax.nn.one_hot(jnp.argmax(soft, -1), soft.shape[-1], dtype=soft.dtype)
        return hard + (soft - lax.stop_gradient(soft))

    return relaxed
