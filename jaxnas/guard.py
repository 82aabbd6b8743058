"""The guarded step: a step that is not finite leaves everything as it was.

Gradient searches, stand-alone networks, children, members of a population and REINFORCE as a black-box search all end
their step here, so that the rule is written once.
"""

import jax
import jax.numpy as jnp

from jaxnas.base import Tree

__all__ = ["guarded"]


def guarded(new: Tree, old: Tree, *signals: jax.Array, alive: jax.Array | bool = True) -> tuple[Tree, jax.Array]:
    """The state after a step, or the state before it if anything about the step is not finite.

    Nothing of a rejected step survives: weights, policy, moments, the estimator's state and integers all stay as they
    were. A schedule that reads a count in such a state, as optax's learning rates and the temperature of `pathwise` do,
    therefore counts accepted steps, and lags behind the number of steps by the number of rejected ones. What has to go
    on after a rejected step (the number of steps, from which the next step takes its batch and its noise, and the
    number of bad steps) is kept outside of `new` and `old`.

    Args:
      new: the state that the step has made.
      old: the state before the step, of the same structure, shapes and dtypes.
      signals: arrays that must be finite too, such as the loss and the norms of the gradients.
      alive: False where the step is to be rejected whatever it has made.

    Returns:
      The pair `(state, good)`: `state` is `new` where the scalar bool `good` is true, otherwise `old`.
    """
    good = jnp.asarray(alive)
    for signal in signals:
        good &= jnp.all(jnp.isfinite(signal))
    # In turn, each reduction with the verdict so far: the compiler would copy a tree of verdicts into every selection.
    for sound in _sound(new, old):
        good = jnp.all(sound & good)
    return jax.tree.map(lambda after, before: jnp.where(good, after, before), new, old), good


def _sound(new: Tree, old: Tree) -> list[jax.Array]:
    """Where `new` has not become infinite or NaN: bools of every shape that floats in it have, scalars first.

    Arrays without elements are left out: all of nothing is true, whatever verdict goes into the reduction.

    An infinity that `old` has in the same place is no fault of the step: a logit of minus infinity rules an operation
    out, and some optimisers start from a best value of infinity.
    """
    by_shape: dict[tuple[int, ...], jax.Array] = {}  # a reduction takes long to compile: one for all arrays of a shape
    for after, before in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        if jnp.issubdtype(jnp.result_type(after), jnp.inexact) and jnp.size(after):
            sound = jnp.isfinite(after) | (after == before)
            shape = jnp.shape(after)
            by_shape[shape] = by_shape[shape] & sound if shape in by_shape else sound
    return [by_shape[shape] for shape in sorted(by_shape, key=len)]
