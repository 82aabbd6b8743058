"""Optimisers that leave alone what did not take part, moments and all."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Params, Tree

__all__ = ["skip_unused"]


def skip_unused(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The transformation for weights of which a step uses only some.

    A gradient of zero is not the same as no gradient: weight decay, momentum and the moments of Adam would move a
    weight that did not run. Here its value and everything that the optimiser keeps for it stay as they are, bit for
    bit. PyTorch does so for gradients that are None, on which the published single-path searches rest.

    What is kept for the optimiser as a whole, such as a step count, goes on: Adam's correction of its moments counts
    all steps, where PyTorch counts those of each weight.

    Args:
      tx: any optax transformation whose state holds trees like the parameters.

    Returns:
      A transformation whose `update` takes `used`: a tree of bools that broadcast against the parameters
      (`SearchSpace.used`), or None for all of them.
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates: Tree, state: Any, params: Params | None = None, *, used: Tree | None = None, **extra: Any):
        if used is None:
            return inner.update(updates, state, params, **extra)
        moved, after = inner.update(updates, state, params, **extra)
        moved = jax.tree.map(lambda leaf, own: jnp.where(own, leaf, jnp.zeros_like(leaf)), moved, used)
        wanted = optax.tree_utils.tree_map_params(
            tx, lambda leaf, own: own, after, used, transform_non_params=lambda leaf: True
        )
        return moved, jax.tree.map(lambda own, new, old: jnp.where(own, new, old), wanted, after, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)
