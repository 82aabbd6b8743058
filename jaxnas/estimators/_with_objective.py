"""Estimators of objectives beyond the loss: terms in the policy's probabilities, such as an expected latency."""

from collections.abc import Callable

import jax

from jaxnas.base import Estimator, Paths, Tree

__all__ = ["Objective", "with_objective"]

Objective = Callable[[jax.Array, Tree, Paths], jax.Array]  # (loss, policy_params, paths) -> scalar


def with_objective(estimator: Estimator, objective: Objective) -> Estimator:
    """`grad = dJ/dloss grad_loss + dJ/dtheta` for `J = objective(loss, theta, paths)`, by the chain rule.

    A loss function sees paths only; what depends on the policy's parameters `theta` themselves is added here. Where `J`
    is linear in the loss, the estimate is as biased as that of `estimator`.

    Args:
      estimator: estimates `loss` and `grad_loss`.
      objective: `(loss, policy_params, paths) -> scalar` in nats, for example `jaxnas.costs.latency.latency_objective`.

    Returns:
      The estimator with another `policy_grads`; its `info["penalty"]` is `J - loss`. `value` is the loss alone.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnas.estimators import exact
      >>> from jaxnas.policies import categorical
      >>> logits, loss = {"edges": jnp.zeros((1, 2))}, lambda paths, params: (jnp.float32(3), {})
      >>> charged = with_objective(exact(categorical(logits)), lambda loss, p, paths: loss + p["edges"][0, 1])
      >>> _, found = jax.jit(charged.estimate, static_argnums=3)(None, (), logits, loss, {})
      >>> found.policy_grads["edges"].tolist()
      [[0.0, 1.0]]
    """

    def estimate(key, state, policy_params, loss_fn, params):
        state, found = estimator.estimate(key, state, policy_params, loss_fn, params)
        # J, and its derivatives in the loss and in theta.
        total, (factor, direct) = jax.value_and_grad(objective, (0, 1))(found.value, policy_params, found.paths)
        grads = jax.tree.map(lambda g, d: (factor * g + d).astype(d.dtype), found.policy_grads, direct)
        return state, found._replace(policy_grads=grads, info={**found.info, "penalty": total - found.value})

    return Estimator(estimator.init, estimate)
