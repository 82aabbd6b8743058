"""What black-box searches with REINFORCE share: samples of a policy, moving averages, a step of the optimiser."""

from typing import NamedTuple

import jax
import optax

from jaxnas.base import Arch, Policy, Tree
from jaxnas.errors import UserError

__all__ = ["Average", "average_with", "check_decay", "descend", "sample_archs"]


class Average(NamedTuple):
    """A moving average that starts at zero, with what corrects it for that start.

    Attributes:
      total: sum of the values, each with a weight that decays with its age.
      weight: sum of those weights, from 0 before the first value up to 1.
    """

    total: jax.Array
    weight: jax.Array


def check_decay(baseline_decay: float) -> None:
    """Raises `UserError` for a decay outside of [0, 1)."""
    if not 0 <= baseline_decay < 1:
        raise UserError(f"baseline_decay must be at least 0 and below 1, got {baseline_decay}")


def average_with(average: Average, value: jax.Array, decay: float) -> Average:
    """The moving average after one more value; `total / weight` is what it says."""
    rest = 1 - decay
    return Average(decay * average.total + rest * value, decay * average.weight + rest)


def sample_archs(policy: Policy, key: jax.Array, policy_params: Tree, batch_size: int) -> Arch:
    """Independent architectures of a policy, leaves `[batch_size, E]`."""
    return jax.vmap(policy.sample, (0, None))(jax.random.split(key, batch_size), policy_params)


def descend(
    tx: optax.GradientTransformation, grads: Tree, policy_params: Tree, opt: optax.OptState
) -> tuple[Tree, optax.OptState]:
    """Parameters and state of the optimiser after one step down the gradient."""
    updates, opt = tx.update(grads, opt, policy_params)
    return optax.apply_updates(policy_params, updates), opt
