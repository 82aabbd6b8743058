"""A loss at one policy with its exact gradient, from the losses of all architectures."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import enumerate_architectures
from jaxnas.base import LossFn, Params, Tree, sparse_paths


class Case(NamedTuple):
    """A loss at one policy.

    Attributes:
      name: for tables.
      logits: policy parameters, leaves `[E, K]`.
      params: weights of the loss.
      loss_fn: `(paths, params) -> (loss, aux)`.
      value: the expected loss.
      truth: its exact gradient in the logits, leaves one after the other, float64.
      parallel: whether draws are vmapped; otherwise they follow each other, so that a sparse path stays sparse.
    """

    name: str
    logits: Tree
    params: Params
    loss_fn: LossFn
    value: float
    truth: np.ndarray
    parallel: bool


def closed_form(losses: Any, logits: Tree) -> tuple[float, np.ndarray]:
    """The expected loss and its gradient, `p_e[k] (E[loss | a_e = k] - E[loss])`, from the losses of all architectures.

    Args:
      losses: loss of every architecture, `[P]`, in the order of `enumerate_architectures`.
      logits: logits of the policy, leaves `[E, K]`.

    Returns:
      The value, and the gradient of all leaves in one row, float64.
    """
    rows = [row for leaf in jax.tree.leaves(logits) for row in np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])]
    shares = [np.exp(row - row.max()) for row in rows]
    shares = [share / share.sum() for share in shares]
    table = np.asarray(losses, np.float64).reshape([len(share) for share in shares])
    value, grads = 0.0, []
    for decision, share in enumerate(shares):
        # E[loss | a_e = k]: the mean over all other decisions.
        given = table
        for axis in reversed(range(len(shares))):
            given = given if axis == decision else np.tensordot(given, shares[axis], (axis, 0))
        value = share @ given
        grads.append(share * (given - value))
    return float(value), np.concatenate(grads)


def all_losses(loss_fn: LossFn, params: Params, choices: Tree) -> np.ndarray:
    """The loss of every architecture, `[P]`, one after the other on sparse paths."""
    archs = jax.tree.map(jnp.asarray, enumerate_architectures(choices))
    run = jax.jit(lambda params, archs: jax.lax.map(lambda arch: loss_fn(sparse_paths(arch), params)[0], archs))
    return np.asarray(run(params, archs))
