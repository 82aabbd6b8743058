"""What a gradient search carries from step to step, what it shows, and the loss that it descends on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Params, Paths, SearchSpace, Tree
from jaxnas.train import cross_entropy, hits

__all__ = ["SearchInfo", "SearchLoss", "SearchState", "classification_loss"]

SearchLoss = Callable[[Paths, Params, Any, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]


class SearchState(NamedTuple):
    """All that the next step of a gradient search needs.

    Attributes:
      step: number of steps done, rejected ones included.
      bad: number of steps that were rejected because something about them was not finite. A rejected step leaves
        the fields below as they were.
      policy_steps: number of accepted steps in which the policy descended.
      params: weights of the supernet.
      policy_params: logits, or the parameters of another policy. The weights' optimiser never sees them.
      weight_opt: state of the weights' optax transformation.
      policy_opt: state of the policy's optax transformation.
      estimator: state of the gradient estimator.
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
    """What a person wants to see of a step; every field is a float32 scalar, NaN where it does not apply.

    Attributes:
      loss: loss on the weights' batch without the penalty, mean nats per example.
      accuracy: accuracy on the weights' batch with the paths of the step; NaN if the loss does not report one.
      policy_loss: loss on the policy's batch without the penalty, equal to `loss` in a joint step; NaN in steps in
        which the policy rests.
      penalty: what the objective added to the policy's loss, and what the loss function charged by itself
        (`aux["penalty"]`), such as SNAS's cost of resources; 0 without either, NaN in steps in which the policy rests.
      entropy: mean entropy of a decision after the step, in nats; NaN if the policy cannot say.
      temperature: temperature of the relaxation; NaN if the estimator has none.
      weight_norm: global norm of the weights' gradient, before clipping.
      policy_norm: global norm of the policy's gradient, before clipping; NaN in steps in which the policy rests.
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
      `loss(paths, params, batch, key) -> (loss, {"accuracy": ..., "logits": ...})`; a key turns drop path on. Loss and
      accuracy are NaN if a label lies outside of the classes. `logits[B, classes]` are the outputs of the network, for
      losses that build on this one, such as a distillation; a compiled step that does not use them does not keep them.

    Example:
      >>> from jaxnas.base import sparse_paths
      >>> from jaxnas.spaces import function_space
      >>> space = function_space(lambda params, gates: jnp.sum(gates), 1, 2)
      >>> space = space._replace(apply=lambda params, paths, x, *, key=None: x)  # the images are the logits
      >>> batch = jnp.zeros((4, 10)), jnp.arange(4)
      >>> loss, aux = classification_loss(space)(sparse_paths({"edges": jnp.array([0])}), {}, batch, None)
      >>> round(float(loss), 4), float(aux["accuracy"]), aux["logits"].shape
      (2.3026, 0.25, (4, 10))
    """

    def loss(paths, params, batch, key=None):
        images, labels = batch
        logits = space.apply(params, paths, images, key=key)
        aux = {"accuracy": jnp.mean(hits(logits, labels)), "logits": logits}
        return cross_entropy(logits, labels, label_smoothing), aux

    return loss
