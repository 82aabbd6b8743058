"""The published gradient searches, as choices of estimator, data and optimiser over `gradient_search`."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Params, Searcher, SearchSpace, Tree, dense_paths
from jaxnas.errors import UserError
from jaxnas.estimators import pathwise
from jaxnas.policies import categorical
from jaxnas.relaxations import Temperature, gumbel_softmax, softmax, temperature_at
from jaxnas.searchers.gradient import gradient_search
from jaxnas.searchers.second_order import InnerStep, momentum_of, unrolled_gradient
from jaxnas.searchers.state import Objective, SearchLoss, classification_loss

__all__ = ["adam_l2", "cosine_by_epoch", "darts", "sgd_l2", "snas"]

Schedule = Callable[[jax.Array], jax.Array]


def cosine_by_epoch(first: float, last: float, *, epochs: int, steps_per_epoch: int) -> Schedule:
    """A cosine from `first` towards `last` that moves once per epoch, as the DARTS and SNAS code has it."""

    def schedule(step):
        epoch = jnp.minimum(step // steps_per_epoch, epochs)
        return last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs))

    return schedule


def sgd_l2(
    learning_rate: float | Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    clip: float | None = 5.0,
    nesterov: bool = False,
    decayed: Callable[[Params], Tree] | None = None,
) -> optax.GradientTransformation:
    """SGD as PyTorch has it: clipped by global norm, weight decay added to the gradient, then momentum.

    Args:
      learning_rate: a float or a schedule of the step.
      momentum: factor of the running sum of gradients.
      weight_decay: L2 coefficient, added to the gradient before momentum.
      clip: global norm to which the gradient is clipped; None leaves it as it is.
      nesterov: Nesterov's form of momentum.
      decayed: `(params) -> tree` of bools: the weights that decay. All of them by default.
    """
    return optax.chain(
        _clipped(clip),
        optax.add_decayed_weights(weight_decay, decayed),
        optax.trace(momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


def adam_l2(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.5,
    b2: float = 0.999,
    weight_decay: float = 1e-3,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adam whose weight decay is added to the gradient before the moments, not decoupled as in AdamW."""
    return optax.chain(
        _clipped(clip),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1, b2),
        optax.scale_by_learning_rate(learning_rate),
    )


def _clipped(clip: float | None) -> optax.GradientTransformation:
    return optax.identity() if clip is None else optax.clip_by_global_norm(clip)


def darts(
    space: SearchSpace,
    *,
    learning_rate: float | Schedule = 0.025,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    clip: float = 5.0,
    policy_learning_rate: float = 3e-4,
    policy_weight_decay: float = 1e-3,
    order: Literal["first", "second", "finite_difference"] = "first",
    temperature: Temperature = 1.0,
    loss: SearchLoss | None = None,
) -> Searcher:
    """DARTS: the softmax mixture, weights and architecture in turn on two halves of the data.

    Args:
      space: usually `jaxnas.spaces.darts_space`.
      learning_rate: of the weights, a float or a schedule of the step.
      momentum: of the weights.
      weight_decay: of the weights, added to their gradient.
      clip: global norm to which the weights' gradient is clipped.
      policy_learning_rate: of Adam, betas `(0.5, 0.999)`, on the logits.
      policy_weight_decay: added to the logits' gradient.
      order: `"first"` holds the weights fixed in the policy's step; `"second"` differentiates through one step of
        the weights exactly; `"finite_difference"` approximates that as the released code does, to repeat it. In a
        network with ReLUs the two differ by a tenth to the whole of the gradient, more than the second-order term is
        itself; the exact one is right (`unrolled_gradient` says why).
      temperature: of the softmax; 1 in the paper. Annealed, it separates the effect of a falling temperature from that
        of sampling.
      loss: see `gradient_search`.

    Returns:
      The searcher.

    Raises:
      UserError: an unknown order, or a temperature not above zero.

    References:
      Liu et al., DARTS: Differentiable Architecture Search, 2019, arXiv 1806.09055, algorithm 1.
    """
    if order not in ("first", "second", "finite_difference"):
        raise UserError(f"order must be 'first', 'second' or 'finite_difference', got {order!r}")
    loss_fn = classification_loss(space) if loss is None else loss

    def second_order(state, batch, key):
        level = temperature_at(temperature, state.step, state.policy_params)

        def on(data):
            def value(logits, params):
                paths = dense_paths(jax.tree.map(lambda leaf: softmax(None, leaf, level), logits))
                return loss_fn(paths, params, data, key)[0]

            return value

        rate = learning_rate(state.step) if callable(learning_rate) else learning_rate
        inner = InnerStep(rate, momentum, weight_decay, momentum_of(state.weight_opt, state.params))
        method: Literal["exact", "finite_difference"] = "exact" if order == "second" else "finite_difference"
        return unrolled_gradient(
            on(batch.policy), on(batch.weights), inner, state.policy_params, state.params, method=method
        )

    return gradient_search(
        space,
        categorical(space.choices),
        pathwise(softmax, temperature),
        sgd_l2(learning_rate, momentum=momentum, weight_decay=weight_decay, clip=clip),
        adam_l2(policy_learning_rate, weight_decay=policy_weight_decay),
        loss=loss_fn,
        level="bilevel",
        policy_gradient=None if order == "first" else second_order,
    )


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
      space: usually `jaxnas.spaces.snas_space`.
      learning_rate: of the weights, a float or a schedule of the step.
      momentum: of the weights.
      weight_decay: of the weights, added to their gradient.
      clip: global norm to which the weights' gradient is clipped.
      policy_learning_rate: of Adam, betas `(0.5, 0.999)`, on the logits.
      policy_weight_decay: added to the logits' gradient.
      policy_clip: global norm to which the logits' gradient is clipped; samples at low temperature spike.
      temperature: usually `jaxnas.relaxations.annealed(...)`.
      resource: `(weights) -> scalar` for weights `[E, K]` per kind of cell, as `jaxnas.spaces.darts.resource_penalty`
        makes it.
      resource_weight: its factor in the loss.
      resource_mode: take the cost of the sampled weights, or its expectation under `softmax(logits)`.
      loss: see `gradient_search`.

    Returns:
      The searcher. Logits start from `N(1, 0.01^2)`.

    Raises:
      UserError: an unknown resource mode, a weight without a resource, or a temperature not above zero.

    References:
      Xie et al., SNAS: Stochastic Neural Architecture Search, 2019, arXiv 1812.09926, equations 4, 6 and 11.
    """
    if resource_mode not in ("reparametrization", "discrete"):
        raise UserError(f"resource_mode must be 'reparametrization' or 'discrete', got {resource_mode!r}")
    if resource_weight and resource is None:
        raise UserError(f"resource_weight={resource_weight} needs a resource")
    loss_fn = classification_loss(space) if loss is None else loss
    objective = None
    if resource is not None and resource_weight:
        if resource_mode == "discrete":
            objective = _expected_cost(resource, resource_weight)
        else:
            loss_fn = _charged(loss_fn, resource, resource_weight)
    return gradient_search(
        space,
        categorical(space.choices, mean=1.0, scale=0.01),
        pathwise(gumbel_softmax, temperature),
        sgd_l2(learning_rate, momentum=momentum, weight_decay=weight_decay, clip=clip),
        adam_l2(policy_learning_rate, weight_decay=policy_weight_decay, clip=policy_clip),
        loss=loss_fn,
        level="joint",
        objective=objective,
    )


def _charged(loss: SearchLoss, resource: Callable[[Tree], jax.Array], factor: float) -> SearchLoss:
    """The loss plus the cost of the weights that ran."""

    def charged(paths, params, batch, key):
        value, aux = loss(paths, params, batch, key)
        charge = factor * resource(paths.weight)
        return value + charge, {**aux, "penalty": charge}

    return charged


def _expected_cost(resource: Callable[[Tree], jax.Array], factor: float) -> Objective:
    return lambda loss, logits, paths: loss + factor * resource(jax.tree.map(jax.nn.softmax, logits))
