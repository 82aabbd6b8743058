"""Which networks a study of a whole space trains: one for each class of architectures that are the same function."""

from typing import Any, NamedTuple

import numpy as np


class Plan(NamedTuple):
    """Which networks are trained, each a class of architectures and a seed.

    Attributes:
      cells: all `N` architectures, leaves `[N, decisions]`.
      class_of: the class of each architecture, `[N]`.
      first: the first architecture of each class, which stands for it, `[C]`.
      member_class: the class of each network, `[P]`.
      member_seed: the seed of each network, `[P]`.
    """

    cells: Any
    class_of: np.ndarray
    first: np.ndarray
    member_class: np.ndarray
    member_seed: np.ndarray


def draw_members(classes: int, config: Any) -> np.ndarray:
    """The class and the seed of every network, `[P, 2]`: all classes once, then some of them with more seeds.

    Args:
      classes: the number of classes, which come in random order.
      config: any object with `cells`, how many classes are trained or None for all; `repeated`, how many of them have
        all `seeds`; and `seed`, which decides the order.
    """
    order = np.random.default_rng(config.seed).permutation(classes)[: config.cells]
    members = [(number, 0) for number in order]
    members += [(number, seed) for seed in range(1, config.seeds) for number in order[: config.repeated]]
    return np.array(members)


def by_class(plan: Plan, values: np.ndarray, missing: Any) -> np.ndarray:
    """`[C, S, ...]` from one entry per network `[P, ...]`; `missing` stands where a class has no network of a seed."""
    shape = (len(plan.first), plan.member_seed.max() + 1, *values.shape[1:])
    table = np.full(shape, missing, values.dtype)
    table[plan.member_class, plan.member_seed] = values
    return table
