"""The optimisers and the schedule of the learning rate that the published searches have in common."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Params, Tree

__all__ = ["Schedule", "adam_l2", "cosine_by_epoch", "sgd_l2"]

Schedule = Callable[[jax.Array], jax.Array]


def cosine_by_epoch(first: float, last: float, *, epochs: int, steps_per_epoch: int) -> Schedule:
    """A cosine from `first` towards `last` that moves once per epoch, as the DARTS and SNAS code has it.

    Args:
      first: value in the first epoch.
      last: value that the cosine would reach after `epochs` epochs, and keeps from there on.
      epochs: length of the cosine in epochs.
      steps_per_epoch: number of steps after which the value moves.

    Example:
      >>> schedule = cosine_by_epoch(1.0, 0.0, epochs=2, steps_per_epoch=10)
      >>> [round(float(schedule(step)), 2) for step in (0, 9, 10, 20)]
      [1.0, 1.0, 0.5, 0.0]
    """

    def schedule(step):
        # The cosine of the epoch, which stays at its end.
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
      nesterov: whether momentum has Nesterov's form.
      decayed: `(params) -> tree` of bools: the weights that decay. All of them by default.

    Example:
      >>> tx = sgd_l2(0.1, weight_decay=0.5)
      >>> round(float(tx.update(jnp.ones(()), tx.init(jnp.ones(())), jnp.ones(()))[0]), 3)
      -0.15
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
    """Adam whose weight decay is added to the gradient before the moments, not decoupled as in AdamW.

    Args:
      learning_rate: a float or a schedule of the step.
      b1: decay of the first moment.
      b2: decay of the second moment.
      weight_decay: L2 coefficient, added to the gradient before the moments.
      clip: global norm to which the gradient is clipped; None leaves it as it is.

    Example:
      >>> tx = adam_l2(0.1)
      >>> round(float(tx.update(jnp.ones(()), tx.init(jnp.ones(())), jnp.ones(()))[0]), 3)
      -0.1
    """
    return optax.chain(
        _clipped(clip),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1, b2),
        optax.scale_by_learning_rate(learning_rate),
    )


def _clipped(clip: float | None) -> optax.GradientTransformation:
    return optax.identity() if clip is None else optax.clip_by_global_norm(clip)
