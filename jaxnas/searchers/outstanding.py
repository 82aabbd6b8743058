"""Asks that have not been told yet: part of the state of a search, each with the parameters it was sampled with."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.base import Tree
from jaxnas.errors import UserError

__all__ = ["Ask", "none_outstanding", "put", "take"]


class Ask(NamedTuple):
    """An ask that waits to be told, or with a leading axis `K` in every leaf the `K` slots for such asks.

    Attributes:
      first: number of children that had been asked for before, an int32 scalar; it tells old asks from new ones,
        and is -1 in a slot that is free.
      rows: decisions of its architectures, int32 `[B, D]`.
      policy_params: parameters of the policy that the architectures were sampled with.
    """

    first: jax.Array
    rows: jax.Array
    policy_params: Tree


def none_outstanding(num_slots: int, batch_size: int, num_decisions: int, policy_params: Tree) -> Ask:
    """Free slots, with arrays of the right shapes and types in them."""
    rows = jnp.zeros((batch_size, num_decisions), jnp.int32)
    empty = Ask(jnp.full((), -1, jnp.int32), rows, policy_params)
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], num_slots, 0), empty)


def put(outstanding: Ask, ask: Ask) -> tuple[Ask, jax.Array]:
    """Keeps an ask in a free slot, or where all slots are taken in that of the oldest ask, which is forgotten.

    Returns:
      First, the slots with the ask in them. Second, whether another ask was forgotten, a bool scalar.
    """
    slot = jnp.argmin(outstanding.first)  # a free one where there is one, as -1 is less than all counts
    full = outstanding.first[slot] >= 0
    return jax.tree.map(lambda slots, one: slots.at[slot].set(one), outstanding, ask), full


def take(
    outstanding: Ask, rows: jax.Array, otherwise: Ask, *, forgotten: jax.Array | bool
) -> tuple[Ask, Ask, jax.Array]:
    """The ask that some architectures belong to, which leaves its slot.

    Args:
      outstanding: the slots.
      rows: decisions of the architectures that were told, int32 `[B, D]`.
      otherwise: the ask that is returned if all slots are free.
      forgotten: whether an ask has ever been forgotten, a bool scalar.

    Returns:
      First, the oldest ask whose architectures are those of `rows`. If no ask has them, as when somebody has changed
      them after the ask, it is the oldest ask of all. Second, the slots with that ask's slot free again. Third, whether
      the ask is known, a bool scalar. It is not known if no ask has the architectures and one was forgotten, as they
      may be the forgotten one's: then all slots stay as they are, and the ask that is returned is not to be used.

    Raises:
      UserError: another number of architectures than in an ask.
    """
    if rows.shape != outstanding.rows.shape[1:]:
        raise UserError(f"archs must be the {outstanding.rows.shape[1]} architectures of one ask, got {len(rows)}")
    # The candidates: asks with the same architectures, or all of them.
    used = outstanding.first >= 0
    same = used & jnp.all(outstanding.rows == rows[None], (1, 2))
    wanted = jnp.where(same.any(), same, used)
    # The oldest of them.
    slot = jnp.argmin(jnp.where(wanted, outstanding.first, jnp.iinfo(jnp.int32).max))
    found = jax.tree.map(lambda slots, one: jnp.where(wanted.any(), slots[slot], one), outstanding, otherwise)
    # Its slot, which stays taken where the ask may be another one.
    known = same.any() | ~jnp.asarray(forgotten)
    first = outstanding.first.at[slot].set(jnp.where(known, -1, outstanding.first[slot]))
    return found, outstanding._replace(first=first), known
