"""Evaluating a loss at drawn architectures: what all estimators of discrete samples share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas import relaxations
from jaxnas.base import Arch, Estimate, LossFn, Params, Paths, Policy, Tree, one_hot_paths, sparse_paths
from jaxnas.dtypes import wide_dtype

__all__ = ["Evaluations", "NoState", "estimate_of", "evaluate", "no_state", "score_gradient", "stacked", "wide"]


class NoState(NamedTuple):
    """Nothing needs to be kept."""


def no_state(key: jax.Array, policy_params: Tree) -> NoState:
    """The `init` of an estimator without a state."""
    del key, policy_params
    return NoState()


class Evaluations(NamedTuple):
    """The loss at several architectures.

    Attributes:
      losses: `[S]`, float32 or wider.
      weight_grads: mean of the gradients with respect to the weights.
      paths: what ran last.
      aux: the last auxiliary output.
    """

    losses: jax.Array
    weight_grads: Tree
    paths: Paths
    aux: Any


def wide(logits: Tree) -> Tree:
    """A tree of logits in float32 or wider."""
    return jax.tree.map(relaxations.wide, logits)


def stacked(*archs: Arch) -> Arch:
    """Architectures as one with leaves `[S, E]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *archs)


def evaluate(loss_fn: LossFn, params: Params, choices: Tree, archs: Arch, *, dense: bool) -> Evaluations:
    """The loss at each of `archs`, leaves `[S, E]`, one after the other, so that memory does not grow.

    Args:
      loss_fn: see `jaxnas.base.LossFn`.
      params: its weights.
      choices: pytree with leaves of shape `[E, K]`.
      archs: what to evaluate.
      dense: whether an architecture runs as one-hot dense paths or as sparse ones.
    """

    def one(arch):
        paths = one_hot_paths(choices, arch) if dense else sparse_paths(arch)
        (loss, aux), grads = jax.value_and_grad(lambda p: loss_fn(paths, p), has_aux=True)(params)
        return grads, (loss.astype(wide_dtype(loss.dtype)), paths, aux)

    count = jax.tree.leaves(archs)[0].shape[0]
    if count == 1:
        grads, outs = one(jax.tree.map(lambda leaf: leaf[0], archs))
        return Evaluations(outs[0][None], grads, *outs[1:])

    def body(total, arch):
        grads, outs = one(arch)
        return jax.tree.map(lambda t, g: t + g / count, total, grads), outs

    zeros = jax.tree.map(jnp.zeros_like, params)
    grads, (losses, *last) = jax.lax.scan(body, zeros, archs)
    return Evaluations(losses, grads, *jax.tree.map(lambda leaf: leaf[-1], last))


def estimate_of(found: Evaluations, policy_grads: Tree, policy_params: Tree, info: dict[str, jax.Array]) -> Estimate:
    """The estimate from evaluations and a gradient, which takes the types of `policy_params`."""
    policy_grads = jax.tree.map(lambda grad, leaf: grad.astype(leaf.dtype), policy_grads, policy_params)
    return Estimate(jnp.mean(found.losses), policy_grads, found.weight_grads, found.paths, found.aux, info)


def score_gradient(policy: Policy, policy_params: Tree, archs: Arch, weight: jax.Array) -> Tree:
    """`sum_s weight[s] d/dpolicy_params log p(archs[s])`, in one backward pass.

    Args:
      policy: whose `log_prob` is differentiated.
      policy_params: its parameters.
      archs: leaves `[S, E]`.
      weight: `[S]`, taken as constants.
    """

    def total(policy_params):
        log_p = jax.vmap(policy.log_prob, (None, 0))(policy_params, archs)
        return jnp.sum(jax.lax.stop_gradient(weight) * log_p)

    return jax.grad(total)(policy_params)
