"""An optax wrapper for single-path training: weights that a step did not use keep their values and moments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Params, Paths, Tree

__all__ = ["skip_unused"]


def skip_unused(
    tx: optax.GradientTransformation, used: Callable[[Params, Paths], Tree]
) -> optax.GradientTransformationExtraArgs:
    """The transformation for weights of which a step uses only some.

    A gradient of zero is not the same as no gradient: weight decay, momentum and the moments of Adam would move a
    weight that did not run. Here its value and everything that the optimiser keeps for it stay as they are, bit for
    bit. PyTorch does so for gradients that are None, on which the published single-path searches rest.

    What the optimiser keeps as a whole, such as a step count, goes on: Adam's correction of its moments counts all
    steps, where PyTorch counts those of each weight.

    Args:
      tx: any optax transformation whose state holds trees like the parameters.
      used: `(params, paths) -> tree` of bools that broadcast against the parameters, usually `SearchSpace.used`: what
        took part in a step.

    Returns:
      A transformation whose `update` takes `paths`, those of the step, or None if everything took part.

    Example:
      >>> tx = skip_unused(optax.sgd(1.0), lambda params, paths: {"ran": True, "rested": False})
      >>> params = {"ran": jnp.ones(()), "rested": jnp.ones(())}
      >>> updates, _ = tx.update(params, tx.init(params), params, paths=())
      >>> {name: float(update) for name, update in updates.items()}
      {'ran': -1.0, 'rested': 0.0}
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates: Tree, state: Any, params: Params | None = None, *, paths: Paths | None = None, **extra: Any):
        moved, after = inner.update(updates, state, params, paths=paths, **extra)
        # Without paths everything took part.
        if paths is None:
            return moved, after
        ran = used(params, paths)
        moved = jax.tree.map(lambda leaf, on: jnp.where(on, leaf, jnp.zeros_like(leaf)), moved, ran)
        # Moments like the parameters are selected weight by weight, the rest of the state is taken as it comes.
        wanted = optax.tree.map_params(tx, lambda leaf, on: on, after, ran, transform_non_params=lambda leaf: True)
        return moved, jax.tree.map(lambda on, new, old: jnp.where(on, new, old), wanted, after, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)
