"""What the single-objective searchers share: fitness as a number that can be compared, and the best one so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.errors import UserError

__all__ = [
    "NO_OPERATION",
    "BlackBoxInfo",
    "Incumbent",
    "better",
    "check_at_least",
    "check_share",
    "no_incumbent",
    "scalar_fitness",
]

NO_OPERATION = -1  # what a search decodes as long as it has found nothing: outside of every decision's operations


class Incumbent(NamedTuple):
    """The best architecture that a search has been told of so far.

    Attributes:
      row: decisions of the architecture, int32 `[D]`; all of them `NO_OPERATION` as long as there is none.
      fitness: fitness of the architecture, infinite as long as there is none.
    """

    row: jax.Array
    fitness: jax.Array


class BlackBoxInfo(NamedTuple):
    """What one `tell` has to show to people.

    Attributes:
      best: the least fitness so far, in the first objective.
      bad: number of values told that were not finite.
    """

    best: jax.Array
    bad: jax.Array


def no_incumbent(num_decisions: int) -> Incumbent:
    """The incumbent before the first evaluation: no architecture, and a fitness that every finite one beats."""
    return Incumbent(jnp.full(num_decisions, NO_OPERATION, jnp.int32), jnp.array(jnp.inf, jnp.float32))


def better(incumbent: Incumbent, rows: jax.Array, fitness: jax.Array) -> Incumbent:
    """The best of the incumbent and some rows `[B, D]`; the older one where they are equal."""
    first = jnp.argmin(fitness)
    wins = fitness[first] < incumbent.fitness
    return Incumbent(jnp.where(wins, rows[first], incumbent.row), jnp.where(wins, fitness[first], incumbent.fitness))


def scalar_fitness(fitness: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[B, 1]` as `[B]` with infinity in place of what is not finite, and how many of those there are.

    Raises:
      UserError: more than one objective.
    """
    fitness = jnp.asarray(fitness, jnp.float32)
    if fitness.ndim != 2 or fitness.shape[1] != 1:
        raise UserError(f"fitness must have shape (population, 1) for a search with one objective, got {fitness.shape}")
    good = jnp.isfinite(fitness[:, 0])
    return jnp.where(good, fitness[:, 0], jnp.inf), jnp.sum(~good, dtype=jnp.int32)


def check_at_least(**values: int) -> None:
    """Raises `UserError` for the first number below one."""
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")


def check_share(**values: float) -> None:
    """Raises `UserError` for the first number outside of 0..1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} must lie in 0..1, got {value}")
