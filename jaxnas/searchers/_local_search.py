"""Local search: the neighbours of one architecture, then the neighbours of the best of them."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from optax.tree import where

from jaxnas.architectures import decisions
from jaxnas.base import BlackBox, Tree
from jaxnas.errors import UserError
from jaxnas.searchers.incumbent import BlackBoxInfo, Incumbent, better, no_incumbent, scalar_fitness

__all__ = ["LocalSearchState", "local_search"]


class LocalSearchState(NamedTuple):
    """Where the search stands.

    Attributes:
      centre: the architecture whose neighbours are tried; its fitness is infinite when a new start is asked for next.
      nearby: the best neighbour of the centre so far.
      order: the neighbours' numbers in the order in which they are tried, int32 `[N]`.
      tried: number of neighbours that have been tried.
      best: the best architecture of all that were told.
    """

    centre: Incumbent
    nearby: Incumbent
    order: jax.Array
    tried: jax.Array
    best: Incumbent


def local_search(choices: Tree, *, rule: Literal["best", "first"] = "best") -> BlackBox:
    """Hill climbing from random starts (White et al. 2021, arXiv 2004.08996).

    Neighbours differ in one decision and come in random order. The search moves to the best of all, or to the first
    that is better than the centre, and starts anew at random where no neighbour is better. It asks for one
    architecture at a time.

    Args:
      choices: the decisions to search, `SearchSpace.choices`.
      rule: `"best"` to move to the best of all neighbours, `"first"` to move to the first one that is better.

    Raises:
      UserError: another rule.

    Example:
      >>> import jax
      >>> from jaxnas.searchers import local_search
      >>> from jaxnas.tabular import digits, simulate, table_task
      >>> table = digits()
      >>> search = simulate(local_search(table.choices), table_task(table, "-valid_16"), 50)
      >>> state, history = jax.jit(search)(jax.random.key(0))
      >>> float(-state.best.fitness) > 95  # per cent; the mean of all cells is 78
      True
    """
    if rule not in ("best", "first"):
        raise UserError(f"rule must be 'best' or 'first', got {rule!r}")
    flat = decisions(choices)
    size = len(flat.counts)
    # Neighbour number `n` adds `shifts[n]` to the decision at `places[n]`.
    places = np.repeat(np.arange(size, dtype=np.int32), flat.counts - 1)
    shifts = np.concatenate([np.arange(1, count, dtype=np.int32) for count in flat.counts])

    def neighbour(row, number):
        place = jnp.asarray(places)[number]
        counts = jnp.asarray(flat.counts)
        return row.at[place].set((row[place] + jnp.asarray(shifts)[number]) % counts[place])

    def init(key):
        none = no_incumbent(size)
        order = jax.random.permutation(key, len(places)).astype(jnp.int32)
        return LocalSearchState(none, none, order, jnp.zeros((), jnp.int32), none)

    def starting(state):
        return ~jnp.isfinite(state.centre.fitness)

    def ask(key, state):
        row = neighbour(state.centre.row, state.order[state.tried])
        return state, flat.split(jnp.where(starting(state), flat.random(key, 1)[0], row)[None])

    def tell(key, state, archs, fitness):
        rows, (values, bad) = flat.join(archs), scalar_fitness(fitness)
        if len(values) != 1:
            raise UserError(f"fitness: local search asks for one architecture at a time, got {len(values)}")
        # The best neighbour so far, and whether the search leaves the centre: all are tried, or the first is better.
        told, none = Incumbent(rows[0], values[0]), no_incumbent(size)
        nearby, tried = better(state.nearby, rows, values), state.tried + 1
        improved = nearby.fitness < state.centre.fitness
        over = (tried == len(places)) | (improved if rule == "first" else False)
        # A new centre: what was told where a start was asked for, the neighbour that won, or none, which asks for one.
        centre = where(starting(state), told, where(over, where(improved, nearby, none), state.centre))
        # A new centre brings a new random order of its neighbours.
        fresh = starting(state) | over
        order = jnp.where(fresh, jax.random.permutation(key, len(places)).astype(jnp.int32), state.order)
        nearby, tried = where(fresh, none, nearby), jnp.where(fresh, 0, tried)
        state = LocalSearchState(centre, nearby, order, tried, better(state.best, rows, values))
        return state, BlackBoxInfo(state.best.fitness, bad)

    return BlackBox(init, ask, tell, lambda state: flat.split(state.best.row))
