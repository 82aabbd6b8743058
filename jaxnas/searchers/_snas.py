"""SNAS: Gumbel-softmax samples, and the resources that a network takes, in one backward pass."""

from collections.abc import Callable
from typing import Literal

import jax

from jaxnas.base import Searcher, SearchSpace, Tree
from jaxnas.errors import UserError
from jaxnas.estimators import pathwise, with_objective
from jaxnas.policies import categorical
from jaxnas.relaxations import Temperature, gumbel_softmax
from jaxnas.searchers.gradient import gradient_search, joint
from jaxnas.searchers.optimisers import Schedule, adam_l2, sgd_l2
from jaxnas.searchers.state import SearchLoss, classification_loss

__all__ = ["snas"]


def snas(
    space: SearchSpace,
    *,
    learning_rate: float | Schedule = 0.025,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    clip: float = 5.0,
    policy_learning_rate: float | Schedule = 3e-4,
    policy_weight_decay: float = 1e-3,
    policy_clip: float = 10.0,
    temperature: Temperature = 1.0,
    resource: Callable[[Tree], jax.Array] | None = None,
    resource_weight: float = 0.0,
    resource_mode: Literal["reparametrization", "discrete"] = "reparametrization",
    loss: SearchLoss | None = None,
) -> Searcher:
    """SNAS: Gumbel-softmax samples, weights and architecture from one backward pass on the same batch.

    Args:
      space: the supernet, usually `jaxnas.spaces.snas_space`.
      learning_rate: learning rate of the weights, a float or a schedule of the step.
      momentum: momentum of the weights' SGD.
      weight_decay: L2 coefficient for the weights, added to the gradient before momentum.
      clip: global norm to which the weights' gradient is clipped.
      policy_learning_rate: learning rate of Adam, betas `(0.5, 0.999)`, on the logits.
      policy_weight_decay: L2 coefficient for the logits, added to their gradient before the moments.
      policy_clip: global norm to which the logits' gradient is clipped; samples at low temperature spike.
      temperature: temperature of the Gumbel-softmax, above zero, usually `jaxnas.relaxations.annealed(...)`.
      resource: `(weights) -> scalar` for weights `[E, K]` per kind of cell, as `jaxnas.spaces.darts.resource_penalty`
        makes it.
      resource_weight: factor of the resource in the loss.
      resource_mode: `"reparametrization"` takes the cost of the sampled weights, `"discrete"` its expectation under
        `softmax(logits)`.
      loss: `(paths, params, batch, key) -> (loss, aux)`, by default `classification_loss(space)`.

    Returns:
      The searcher. Logits start from `N(1, 0.01^2)`.

    Raises:
      UserError: an unknown resource mode, a weight without a resource, or a temperature not above zero.

    Example:
      >>> from jaxnas.base import Batch
      >>> from jaxnas.spaces import table_space
      >>> space = table_space([3.0, 1.0, 2.0])  # one decision; the losses of its three options
      >>> search = snas(space, loss=lambda paths, params, batch, key: (space.apply(params, paths), {}))
      >>> batch = Batch((None,), (None,))
      >>> state = jax.jit(search.init)(jax.random.key(0), batch)
      >>> state, info = jax.jit(search.step)(jax.random.key(1), state, batch)
      >>> 1.0 < float(info.loss) < 3.0, float(info.temperature)  # the loss of a relaxed sample
      (True, 1.0)

    References:
      Xie et al., SNAS: Stochastic Neural Architecture Search, 2019, arXiv 1812.09926, equations 4, 6 and 11.
    """
    if resource_mode not in ("reparametrization", "discrete"):
        raise UserError(f"resource_mode must be 'reparametrization' or 'discrete', got {resource_mode!r}")
    if resource_weight and resource is None:
        raise UserError(f"resource_weight={resource_weight} needs a resource")
    # The charge for resources: on the sampled weights, or its expectation under softmax(logits).
    loss_fn = classification_loss(space) if loss is None else loss
    estimator = pathwise(gumbel_softmax, temperature)
    if resource is not None and resource_weight and resource_mode == "reparametrization":
        loss_fn = _charged(loss_fn, resource, resource_weight)
    elif resource is not None and resource_weight:
        estimator = with_objective(
            estimator,
            # The expected cost: each operation's, times its probability.
            lambda loss, logits, paths: loss + resource_weight * resource(jax.tree.map(jax.nn.softmax, logits)),
        )
    return gradient_search(
        space,
        categorical(space.choices, mean=1.0, scale=0.01),
        estimator,
        sgd_l2(learning_rate, momentum=momentum, weight_decay=weight_decay, clip=clip),
        adam_l2(policy_learning_rate, weight_decay=policy_weight_decay, clip=policy_clip),
        loss=loss_fn,
        step=joint,
    )


def _charged(loss: SearchLoss, resource: Callable[[Tree], jax.Array], factor: float) -> SearchLoss:
    """The loss plus the cost of the sampled weights, through which the policy's gradient flows too."""

    def charged(paths, params, batch, key):
        value, aux = loss(paths, params, batch, key)
        charge = factor * resource(paths.weight)
        return value + charge, {**aux, "penalty": charge}

    return charged
