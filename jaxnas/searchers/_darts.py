"""DARTS: the softmax mixture, weights and architecture in turn, to first or second order."""

from typing import Literal

import jax

from jaxnas.base import Estimate, Searcher, SearchSpace, dense_paths
from jaxnas.errors import UserError
from jaxnas.estimators import pathwise
from jaxnas.policies import categorical
from jaxnas.relaxations import Temperature, softmax, temperature_at
from jaxnas.searchers.gradient import SearchStep, alternating, gradient_search, move_policy, weight_step
from jaxnas.searchers.optimisers import Schedule, adam_l2, sgd_l2
from jaxnas.searchers.second_order import InnerStep, Method, momentum_of, unrolled_gradient
from jaxnas.searchers.state import SearchLoss

__all__ = ["darts"]


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
      space: the supernet, usually `jaxnas.spaces.darts_space`.
      learning_rate: learning rate of the weights, a float or a schedule of the step.
      momentum: momentum of the weights' SGD.
      weight_decay: L2 coefficient for the weights, added to the gradient before momentum.
      clip: global norm to which the weights' gradient is clipped.
      policy_learning_rate: learning rate of Adam, betas `(0.5, 0.999)`, on the logits.
      policy_weight_decay: L2 coefficient for the logits, added to their gradient before the moments.
      order: `"first"` holds the weights fixed in the policy's step; `"second"` differentiates through one step of
        the weights exactly; `"finite_difference"` approximates that as the released code does, to repeat it. In a
        network with ReLUs the two differ by a tenth to the whole of the gradient, more than the second-order term is
        itself; the exact one is right (`unrolled_gradient` says why).
      temperature: temperature of the softmax, above zero; 1 in the paper. Annealed, it separates the effect of a
        falling temperature from that of sampling.
      loss: `(paths, params, batch, key) -> (loss, aux)`, by default `classification_loss(space)`.

    Returns:
      The searcher.

    Raises:
      UserError: an unknown order, or a temperature not above zero.

    Example:
      >>> from jaxnas.base import Batch
      >>> from jaxnas.spaces import table_space
      >>> space = table_space([3.0, 1.0, 2.0])  # one decision; the losses of its three options
      >>> search = darts(space, loss=lambda paths, params, batch, key: (space.apply(params, paths), {}))
      >>> batch = Batch((None,), (None,))
      >>> state = jax.jit(search.init)(jax.random.key(0), batch)
      >>> state, info = jax.jit(search.step)(jax.random.key(1), state, batch)
      >>> round(float(info.loss), 2), int(state.policy_steps)
      (2.0, 1)

    References:
      Liu et al., DARTS: Differentiable Architecture Search, 2019, arXiv 1806.09055, algorithm 1.
    """
    if order not in ("first", "second", "finite_difference"):
        raise UserError(f"order must be 'first', 'second' or 'finite_difference', got {order!r}")
    # First order holds the weights fixed; the others differentiate through their step.
    step: SearchStep = alternating
    if order != "first":
        rate = learning_rate if callable(learning_rate) else lambda step: learning_rate
        method: Method = "exact" if order == "second" else "finite_difference"
        step = _second_order(rate, momentum, weight_decay, temperature, method)
    return gradient_search(
        space,
        categorical(space.choices),
        pathwise(softmax, temperature),
        sgd_l2(learning_rate, momentum=momentum, weight_decay=weight_decay, clip=clip),
        adam_l2(policy_learning_rate, weight_decay=policy_weight_decay),
        loss=loss,
        step=step,
    )


def _second_order(rate, momentum: float, weight_decay: float, temperature: Temperature, method: Method) -> SearchStep:
    """`alternating` whose policy step differentiates through a step of the weights."""

    def step(parts, key, state, batch):
        key_policy, key_weights = jax.random.split(key)
        accepted = state.step - state.bad  # what the schedules of the weights' step count
        tau = temperature_at(temperature, accepted, state.policy_params)

        def mixture(logits):
            return dense_paths(jax.tree.map(lambda leaf: softmax(None, leaf, tau), logits))

        def on(data):
            return lambda logits, params: parts.loss(mixture(logits), params, data, key_policy)[0]

        # Policy step: equation 6, the validation loss after one inner step w - xi grad_w L_train.
        buffer = momentum_of(state.weight_opt, state.params)
        inner = InnerStep(rate(accepted), momentum, weight_decay, buffer)
        losses = on(batch.policy), on(batch.weights)
        value, grads = unrolled_gradient(*losses, inner, state.policy_params, state.params, method=method)
        found = Estimate(value, grads, None, mixture(state.policy_params), {}, {})
        moved, policy_seen = move_policy(parts, state, found)
        # Weight step: algorithm 1, under the new policy.
        new, weights_seen = weight_step(parts, key_weights, moved, batch.weights)
        return new, policy_seen | weights_seen

    return step
