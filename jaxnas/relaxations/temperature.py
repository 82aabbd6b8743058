"""Temperatures: a float, a traced array, or a schedule of the step count."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Tree
from jaxnas.dtypes import wide_dtype_of
from jaxnas.errors import UserError

__all__ = ["Temperature", "annealed", "check_temperature", "temperature_at"]

Temperature = float | jax.Array | Callable[[jax.Array], jax.Array]


def check_temperature(temperature: Temperature) -> None:
    """Raises `UserError` for a concrete temperature that is not above zero."""
    concrete = not callable(temperature) and not isinstance(temperature, jax.core.Tracer)
    if concrete and not np.all(np.asarray(temperature) > 0):
        raise UserError(f"temperature must be above 0, got {temperature}")


def temperature_at(temperature: Temperature, step: jax.Array, logits: Tree = None) -> jax.Array:
    """The temperature at a step, a scalar: float32, or float64 beside logits of that type.

    Args:
      temperature: a float, a traced array, or a schedule of the step.
      step: number of steps, which a schedule is asked about.
      logits: pytree of the logits that the temperature will divide.
    """
    return jnp.asarray(temperature(step) if callable(temperature) else temperature, wide_dtype_of(logits))


def annealed(first: float = 1.0, last: float = 0.03, *, epochs: int = 150, steps_per_epoch: int = 1) -> Temperature:
    """The linear schedule of the SNAS release: `last + (1 - t / epochs) (first - last)` with `t = epoch + 1`.

    The release counts one epoch before training starts, so the first epoch already runs below `first`, and the last
    one at `last`. After the horizon the temperature stays at `last`.

    Args:
      first: temperature before the first epoch, at least `last`.
      last: temperature in the last epoch, above zero.
      epochs: number of epochs until `last` is reached. The release fixes 150 whatever the length of a run; pass the
        number of epochs of the run.
      steps_per_epoch: number of search steps in an epoch.

    Returns:
      A schedule of the step count.

    Raises:
      UserError: `0 < last <= first` violated, or a horizon below one.

    Example:
      >>> schedule = annealed(1.0, 0.2, epochs=4)
      >>> [round(float(schedule(epoch)), 1) for epoch in range(5)]
      [0.8, 0.6, 0.4, 0.2, 0.2]
    """
    if not 0 < last <= first:
        raise UserError(f"temperature: need 0 < last <= first, got first={first}, last={last}")
    if epochs < 1 or steps_per_epoch < 1:
        raise UserError(f"epochs and steps_per_epoch must be at least 1, got {epochs} and {steps_per_epoch}")

    def schedule(step):
        # t = epoch + 1, up to the horizon.
        t = jnp.minimum(step // steps_per_epoch + 1, epochs)
        return last + (1 - jnp.asarray(t, jnp.result_type(float)) / epochs) * (first - last)

    return schedule
