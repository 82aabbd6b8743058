"""Architectures as data: checked, enumerated, drawn at random, and written as one row of integers.

An architecture is a pytree of int32 arrays structured like `SearchSpace.choices`, one integer per decision.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Arch, SearchSpace, Tree
from jaxnas.errors import UserError

__all__ = [
    "Decisions",
    "arch_like",
    "check_architecture",
    "decisions",
    "enumerate_architectures",
    "greatest",
    "one_hot_scores",
    "random_archs",
    "same",
]


def arch_like(choices: Tree, values: Any) -> Arch:
    """Checks `values` against a space and returns them as an architecture of int32 numpy arrays.

    Args:
      choices: decisions of the space, `SearchSpace.choices`.
      values: integers in a pytree structured like `choices`, whose leaves may be lists.

    Returns:
      The architecture, leaves of shape `[E]`.

    Raises:
      UserError: another structure, another number of decisions, or an operation outside `0..K-1`.

    Example:
      >>> arch_like({"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)}, {"edges": [0, 2]})
      {'edges': array([0, 2], dtype=int32)}
    """
    leaves, treedef = jax.tree.flatten(choices)
    try:
        found = treedef.flatten_up_to(values)  # type: ignore[attr-defined]
    except ValueError as error:
        raise UserError(f"architecture does not have the structure of the space's choices: {error}") from None
    # Every leaf has one integer per decision, each the number of an operation.
    checked = []
    for choice, value in zip(leaves, found, strict=True):
        array = np.asarray(value)
        if array.shape != choice.shape[:-1] or not np.issubdtype(array.dtype, np.integer):
            raise UserError(f"architecture: expected integers of shape {choice.shape[:-1]}, got {value!r}")
        if array.size and (array.min() < 0 or array.max() >= choice.shape[-1]):
            raise UserError(f"architecture: operations must lie in 0..{choice.shape[-1] - 1}, got {array.tolist()}")
        checked.append(array.astype(np.int32))
    return jax.tree.unflatten(treedef, checked)


def check_architecture(space: SearchSpace, arch: Any) -> Arch:
    """Returns `arch` as int32 arrays if it is one of those that the space counts: one that `derive` can return.

    Raises:
      UserError: another structure, an operation that does not exist, or decisions that `derive` never takes,
        such as three edges into one node in the space of DARTS.
    """
    arch = arch_like(space.choices, arch)
    # The rule must agree with scores that ask for this architecture.
    scores = one_hot_scores(space.choices, arch)
    derived = jax.tree.map(np.asarray, jax.jit(space.derive)(scores))
    if not same(arch, derived):
        plain = json.dumps(jax.tree.map(np.ndarray.tolist, derived))
        raise UserError(f"architecture: outside of space {space.about.name}, whose rule would derive {plain}")
    return arch


def one_hot_scores(choices: Tree, arch: Arch) -> Tree:
    """Scores `[E, K]` that ask for an architecture as clearly as scores can: 20 at its operations and 0 elsewhere.

    Args:
      choices: `SearchSpace.choices`.
      arch: one operation for each decision, leaves `[E]`; the rule of the space may forbid their combination.
    """
    return jax.tree.map(lambda c, leaf: 20.0 * jax.nn.one_hot(leaf, c.shape[-1]), choices, arch)


def same(arch: Arch, other: Arch) -> bool:
    """Whether two architectures of one space take the same operation at every decision."""
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), arch, other)))


def enumerate_architectures(choices: Tree, *, limit: int = 100_000) -> Arch:
    """Every architecture of a space, the last decision of the last leaf counting fastest.

    Args:
      choices: decisions of the space, a pytree with leaves of shape `[E, K]`.
      limit: the largest number of architectures to enumerate.

    Returns:
      Architectures with leaves `[P, E]`, int32.

    Raises:
      UserError: more architectures than `limit`.

    Example:
      >>> enumerate_architectures({"edges": jax.ShapeDtypeStruct((2, 2), jnp.float32)})["edges"].tolist()
      [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    leaves, treedef = jax.tree.flatten(choices)
    options = [leaf.shape[-1] for leaf in leaves for _ in range(math.prod(leaf.shape[:-1]))]
    count = math.prod(options)
    if count > limit:
        raise UserError(f"space has {count} architectures, more than the limit of {limit} for enumeration")
    # Each number in mixed radix, a digit for each decision, cut up like the leaves.
    digits = np.stack(np.unravel_index(np.arange(count), options), -1).astype(np.int32)
    splits = np.cumsum([math.prod(leaf.shape[:-1]) for leaf in leaves])[:-1]
    parts = np.split(digits, splits, -1)
    shaped = [part.reshape(count, *leaf.shape[:-1]) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(treedef, shaped)


def random_archs(key: jax.Array, space: SearchSpace, count: int) -> Arch:
    """Draws `count` architectures with leaves `[count, E]`, as `derive` reads them from scores of `N(0, 1)`.

    Where `derive` takes the greatest score of every decision, every architecture is equally likely.

    Example:
      >>> from jaxnas.spaces import snas_space
      >>> random_archs(jax.random.key(0), snas_space(), 5)["normal"].shape
      (5, 14)
    """

    def draw(key: jax.Array) -> Arch:
        keys = optax.tree_utils.tree_split_key_like(key, space.choices)
        return space.derive(jax.tree.map(lambda k, c: jax.random.normal(k, c.shape, c.dtype), keys, space.choices))

    return jax.vmap(draw)(jax.random.split(key, count))


def greatest(scores: Tree) -> Arch:
    """The operation with the greatest score at every decision, the first of equal ones: the rule of most spaces.

    Example:
      >>> greatest({"edges": jnp.array([[0.1, 0.9], [2.0, -1.0]])})["edges"].tolist()
      [1, 0]
    """
    return jax.tree.map(lambda leaf: jnp.argmax(leaf, -1).astype(jnp.int32), scores)


class Decisions(NamedTuple):
    """All decisions of a space in a row of length `D`, in the order of the tree's leaves.

    Attributes:
      counts: number of operations of each decision, `[D]`.
      join: `(arch) -> [..., D]`; leading axes, such as that of a population, stay.
      split: `[..., D] -> arch`, the inverse of `join`.
    """

    counts: np.ndarray
    join: Callable[[Arch], jax.Array]
    split: Callable[[jax.Array], Arch]

    @property
    def size(self) -> int:
        """The exact number of architectures."""
        return math.prod(self.counts.tolist())

    def random(self, key: jax.Array, num: int) -> jax.Array:
        """`num` rows `[num, D]` of int32, drawn with every operation of every decision equally likely."""
        shape = (num, len(self.counts))
        return jax.random.randint(key, shape, 0, jnp.broadcast_to(self.counts, shape), jnp.int32)

    def number(self, row: jax.Array) -> jax.Array:
        """The place of `[..., D]` among all architectures in the order of counting, the last decision fastest."""
        # The place value of a digit is the product of the counts after it.
        strides = np.append(np.cumprod(self.counts[:0:-1])[::-1], 1)
        terms = row * strides.astype(np.int32).reshape((1,) * (row.ndim - 1) + (-1,))
        return terms.sum(-1, dtype=terms.dtype)


def decisions(choices: Tree) -> Decisions:
    """All decisions of `SearchSpace.choices` in one row.

    Raises:
      UserError: no decision, or one with fewer than two operations.

    Example:
      >>> row = decisions({"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)})
      >>> row.size, int(row.number(row.join({"edges": [1, 2]})))
      (9, 5)
    """
    leaves, treedef = jax.tree.flatten(choices)
    shapes = [leaf.shape for leaf in leaves]
    if not leaves or any(len(shape) != 2 or shape[0] < 1 or shape[1] < 2 for shape in shapes):
        raise UserError(f"choices: need leaves of shape (decisions, operations), at least (1, 2), got {shapes}")
    # Operations of every decision in the row, and where the leaves end in it.
    counts = np.concatenate([np.full(shape[0], shape[1]) for shape in shapes]).astype(np.int32)
    ends = np.cumsum([shape[0] for shape in shapes])[:-1].tolist()

    def join(arch: Arch) -> jax.Array:
        parts = treedef.flatten_up_to(arch)  # type: ignore[attr-defined]
        return jnp.concatenate([jnp.asarray(leaf, jnp.int32) for leaf in parts], -1)

    def split(row: jax.Array) -> Arch:
        return jax.tree.unflatten(treedef, jnp.split(row, ends, -1))

    return Decisions(counts, join, split)
