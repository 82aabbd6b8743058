"""Rewards of NAS-RL: what a child's judgements are worth to the policy that proposed it.

Everywhere else fitness is minimised; a reward is maximised. The functions take numbers or arrays of any shape.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.errors import UserError
from jaxnas.searchers.incumbent import check_at_least

__all__ = ["Reward", "accuracy_cubed", "best_of_last", "inverse_square_perplexity"]

Reward = Callable[[jax.Array], jax.Array]  # `fitness[B] -> reward[B]`, elementwise


def best_of_last(scores: Any, last: int = 5) -> Any:
    """The greatest of the last judgements of a child, which is what Zoph & Le (2017, section 4.1) reward.

    The best of all epochs would reward one lucky early judgement; the last epoch alone would depend on the luck of a
    single one. Scores in nats are to be minimised: take `-best_of_last(-nats)`.

    Args:
      scores: a numpy or JAX array `[..., J]` of `J` judgements in order, one after each epoch, the greater the better.
      last: number of judgements that count, at least 1. All count where there are fewer.

    Returns:
      An array `[...]` of the same library. It is NaN where one of the judgements that count is NaN: a child that has
      diverged is not rewarded for what it was before.

    Raises:
      UserError: a `last` below one, or scores without a judgement.

    Example:
      >>> import numpy as np
      >>> float(best_of_last(np.array([0.9, 0.1, 0.2, 0.6, 0.5, 0.4])))  # the peak of the first epoch does not count
      0.6

    References:
      Zoph & Le, 2017, "Neural architecture search with reinforcement learning", arXiv 1611.01578, section 4.1.
    """
    check_at_least(last=last)
    if not scores.ndim or not scores.shape[-1]:
        raise UserError(f"scores must have at least one judgement in their last axis, got shape {scores.shape}")
    return scores[..., -last:].max(-1)


def accuracy_cubed(error: Any) -> jax.Array:
    """`(1 - error)^3`, the reward of Zoph & Le (2017, section 4.1) for images; 0 where the error is NaN.

    The cube spreads accuracies that lie close together near 1.

    Args:
      error: share of the validation examples that the child gets wrong, from 0 to 1, as `1 - best_of_last(accuracy)`.

    Example:
      >>> accuracy_cubed(jnp.array([0.0, 0.5, jnp.nan])).tolist()
      [1.0, 0.125, 0.0]
    """
    return _zero_if_diverged((1 - jnp.asarray(error)) ** 3)


def inverse_square_perplexity(nats: Any, c: float = 80.0) -> jax.Array:
    """`c / perplexity^2`, the reward of Zoph & Le (2017, section 4.2) for texts; 0 where the loss is NaN.

    Args:
      nats: mean loss of a token on the validation part in nats, so that the perplexity is `exp(nats)`.
      c: factor, 80 in the paper.

    Example:
      >>> import numpy as np
      >>> round(float(inverse_square_perplexity(np.log(20.0))), 3)  # 80 / 20^2
      0.2
    """
    return _zero_if_diverged(c * jnp.exp(-2 * jnp.asarray(nats)))


def _zero_if_diverged(reward: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(reward), jnp.zeros_like(reward), reward)
