"""Evaluating a loss at drawn architectures: what all estimators of discrete samples share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas import relaxations
from jaxnas.base import Arch, Estimate, LossFn, Params, Paths, Policy, Tree, one_hot_paths, sparse_paths
from jaxnas.dtypes import wide_dtype

__all__ = [
    "Evaluations",
    "NoState",
    "estimate_of",
    "evaluate",
    "no_state",
    "paths_of",
    "score_gradient",
    "stacked",
    "wide",
]


class NoState(NamedTuple):
    """The state of an estimator that has nothing to remember."""


def no_state(key: jax.Array, policy_params: Tree) -> NoState:
    """The `init` of an estimator without a state."""
    del key, policy_params
    return NoState()


class Evaluations(NamedTuple):
    """The loss at several architectures.

    Attributes:
      losses: the loss at each architecture, `[S]`, float32 or wider.
      weight_grads: mean over the architectures of the gradient with respect to the weights.
      paths: the paths of the last architecture.
      aux: the auxiliary output of the loss at the last architecture.
    """

    losses: jax.Array
    weight_grads: Tree
    paths: Paths
    aux: Any


def wide(policy_params: Tree) -> Tree:
    """The parameters of a policy in float32 or wider: probabilities of eight bits are wrong probabilities."""
    return jax.tree.map(relaxations.wide, policy_params)


def stacked(*archs: Arch) -> Arch:
    """Architectures as one with leaves `[S, E]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *archs)


def paths_of(choices: Tree, arch: Arch, dense: bool) -> Paths:
    """The paths of an architecture: every operation with weights of zero and one, or only those of `arch`."""
    return one_hot_paths(choices, arch) if dense else sparse_paths(arch)


def evaluate(loss_fn: LossFn, params: Params, choices: Tree, archs: Arch, *, dense: bool) -> Evaluations:
    """The loss at each of `archs`, one after the other, so that memory does not grow with their number.

    Args:
      loss_fn: `(paths, params) -> (loss, aux)`.
      params: weights of the loss.
      choices: pytree with leaves of shape `[E, K]`, whose dtypes the weights of dense paths take.
      archs: the architectures, leaves `[S, E]`.
      dense: whether an architecture runs as one-hot dense paths or as sparse ones.
    """

    def one(arch):
        paths = paths_of(choices, arch, dense)
        (loss, aux), grads = jax.value_and_grad(lambda p: loss_fn(paths, p), has_aux=True)(params)
        return grads, (loss.astype(wide_dtype(loss.dtype)), paths, aux)

    # One architecture needs no loop.
    count = jax.tree.leaves(archs)[0].shape[0]
    if count == 1:
        grads, outs = one(jax.tree.map(lambda leaf: leaf[0], archs))
        return Evaluations(outs[0][None], grads, *outs[1:])

    # The mean of the gradients is accumulated; of paths and aux the last are kept.
    def body(total, arch):
        grads, outs = one(arch)
        return jax.tree.map(lambda t, g: t + g / count, total, grads), outs

    grads, (losses, *last) = jax.lax.scan(body, optax.tree.zeros_like(params), archs)
    return Evaluations(losses, grads, *jax.tree.map(lambda leaf: leaf[-1], last))


def estimate_of(found: Evaluations, policy_grads: Tree, policy_params: Tree, info: dict[str, jax.Array]) -> Estimate:
    """The estimate from evaluations and a gradient, which takes the types of `policy_params`."""
    policy_grads = optax.tree.cast_like(policy_grads, policy_params)
    return Estimate(jnp.mean(found.losses), policy_grads, found.weight_grads, found.paths, found.aux, info)


def score_gradient(policy: Policy, policy_params: Tree, archs: Arch, weight: jax.Array) -> Tree:
    """`sum_s weight[s] d/dpolicy_params log p(archs[s])`, in one backward pass.

    Args:
      policy: the policy whose `log_prob` is differentiated.
      policy_params: parameters of the policy.
      archs: the architectures, leaves `[S, E]`.
      weight: factors `[S]`, taken as constants.
    """

    # A scalar whose gradient is the weighted sum of the scores.
    def total(policy_params):
        log_p = jax.vmap(policy.log_prob, (None, 0))(policy_params, archs)
        return jnp.sum(jax.lax.stop_gradient(weight) * log_p)

    return jax.grad(total)(policy_params)
