"""What a gradient search carries from step to step, what it shows, and the loss that it descends on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Batch, Params, Paths, SearchSpace, Tree
from jaxnas.train import cross_entropy, hits

__all__ = ["Objective", "PolicyGradient", "SearchInfo", "SearchLoss", "SearchState", "classification_loss"]

SearchLoss = Callable[[Paths, Params, Any, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]
PolicyGradient = Callable[["SearchState", Batch, jax.Array], tuple[jax.Array, Tree]]
Objective = Callable[[jax.Array, Tree, Paths | None], jax.Array]  # (loss, policy_params, paths) -> scalar


class SearchState(NamedTuple):
    """All that the next step needs.

    Attributes:
      step: steps done, rejected ones included.
      bad: steps that were rejected because something about them was not finite. They left all that follows as it was.
      policy_steps: accepted steps in which the policy descended.
      params: weights of the supernet.
      policy_params: logits, or the parameters of another policy. Never in the weight optimiser.
      weight_opt: state of the weights' optax transformation.
      policy_opt: state of the policy's.
      estimator: state of the estimator.
    """

    step: jax.Array
    bad: jax.Array
    policy_steps: jax.Array
    params: Params
    policy_params: Tree
    weight_opt: optax.OptState
    policy_opt: optax.OptState
    estimator: Tree


class SearchInfo(NamedTuple):
    """What a person wants to see of a step; every field a float32 scalar.

    Attributes:
      loss: on the weights' batch, mean nats per example, without the penalty.
      accuracy: on the weights' batch, with the paths of the step.
      policy_loss: on the policy's batch, without the penalty; the same as `loss` when single-level; 0 in steps in
        which the policy rests.
      penalty: what the objective added to the policy's loss, or the loss itself to its own (`aux["penalty"]`).
      entropy: mean entropy of the decisions, nats.
      temperature: of the relaxation, where there is one.
      weight_norm: global norm of the weights' gradient, before clipping.
      policy_norm: of the policy's gradient.
      nonfinite: 1 if the step was rejected, because a loss, a gradient or the state that came out of it was not finite;
        otherwise 0. A rejected step leaves weights, policy, moments and every count in the optimisers and the estimator
        as they were, so that their schedules lag behind the number of steps by one for each rejected step.
    """

    loss: jax.Array
    accuracy: jax.Array
    policy_loss: jax.Array
    penalty: jax.Array
    entropy: jax.Array
    temperature: jax.Array
    weight_norm: jax.Array
    policy_norm: jax.Array
    nonfinite: jax.Array


def classification_loss(space: SearchSpace, *, label_smoothing: float = 0.0) -> SearchLoss:
    """Mean cross-entropy in nats of a space on `(images, labels)`.

    Returns:
      `loss(paths, params, batch, key) -> (loss, {"accuracy": ...})`; a key turns drop path on. Both are NaN if a label
      lies outside of the classes.
    """

    def loss(paths, params, batch, key=None):
        images, labels = batch
        logits = space.apply(params, paths, images, key=key)
        return cross_entropy(logits, labels, label_smoothing), {"accuracy": jnp.mean(hits(logits, labels))}

    return loss
