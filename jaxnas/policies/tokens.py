"""The order in which a controller takes decisions, as plain data that a space can give, checked and laid out in arrays.

`jaxnas.policies.controller` reads it; `T` is the number of tokens and `A` that of anchor points among them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.base import Tree
from jaxnas.errors import UserError

__all__ = ["Order", "Steps", "Token", "as_they_lie", "in_order"]


class Token(NamedTuple):
    """One step of a controller: a decision, or an anchor point with its skip connections.

    Places count all decisions of a space in one row, leaf after leaf, as `jaxnas.architectures.decisions` joins them.
    A plain pair does as well, so that a space can give its tokens without importing this class.

    Attributes:
      kind: name of the token's type. Tokens of one kind share a softmax head and an input embedding.
      place: place of the decision that the token takes. At an anchor point it is a tuple instead: the places of its
        skip decisions, one for each earlier anchor point in order, each with two options of which 1 connects. The
        tuple of the first anchor point is empty.
    """

    kind: str
    place: int | tuple[int, ...]


class Steps(NamedTuple):
    """The tokens as numpy arrays, a row for each.

    Attributes:
      number: `[T]`, 0 to `T - 1`.
      first: `[T]`, where the options of a token's kind begin among the options of all kinds; 0 at anchor points.
      end: `[T]`, where they end; at anchor points the end of the first kind.
      place: `[T]`, the place of the token's decision, 0 at anchor points.
      slot: `[T]`, how many anchor points come before this one; `A` at tokens that are none.
      earlier: `[T, A]`, true for the anchor points that this one may connect to.
      places: `[T, A]`, the places of the skip decisions, 0 where there is none.
    """

    number: np.ndarray
    first: np.ndarray
    end: np.ndarray
    place: np.ndarray
    slot: np.ndarray
    earlier: np.ndarray
    places: np.ndarray


class Order(NamedTuple):
    """Tokens that have been checked against the decisions of a space, of which there are `D`.

    Attributes:
      kinds: number of options of each kind of token, without anchor points.
      steps: the tokens as arrays.
      source: `[D]`, where each decision stands among the `T` options followed by the `T * A` skips of all tokens.
      token: `[D]`, the number of the token that takes each decision.
    """

    kinds: dict[str, int]
    steps: Steps
    source: np.ndarray
    token: np.ndarray


def as_they_lie(choices: Tree) -> list[Token]:
    """All decisions in the order of the leaves of `choices`, each of a kind of its own.

    Example:
      >>> as_they_lie({"edges": jax.ShapeDtypeStruct((2, 3), np.float32)})
      [Token(kind='edges/0', place=0), Token(kind='edges/1', place=1)]
    """
    names = [
        jax.tree_util.keystr((*path, jax.tree_util.SequenceKey(number)), simple=True, separator="/")
        for path, leaf in jax.tree.leaves_with_path(choices)
        for number in range(math.prod(leaf.shape[:-1]))
    ]
    return [Token(name, place) for place, name in enumerate(names)]


def in_order(choices: Tree, tokens: Sequence[Any]) -> Order:
    """Checks tokens against the decisions of a space and lays them out as arrays.

    Args:
      choices: decisions of the space, a pytree with leaves of shape `[E, K]`.
      tokens: `Token`s or plain pairs, in order.

    Raises:
      UserError: a decision with fewer than two options; tokens that do not take each decision once, or whose kind has
        decisions with different numbers of options; anchor points of several kinds, or without a decision of two
        options for each earlier one.
    """
    leaves = jax.tree.leaves(choices)
    options = [leaf.shape[-1] for leaf in leaves for _ in range(math.prod(leaf.shape[:-1]))]
    if not options or min(options) < 2:
        raise UserError(f"choices: need decisions of at least two options, got {[leaf.shape for leaf in leaves]}")
    places = [place for _, taken in tokens for place in (taken if np.ndim(taken) else (taken,))]
    if sorted(places) != list(range(len(options))):
        raise UserError(f"tokens: must take each place from 0 to {len(options) - 1} once, got {places}")
    anchors = [number for number, (_, taken) in enumerate(tokens) if np.ndim(taken)]
    kinds = _kinds(tokens, options)
    # Rows of tokens that take a decision.
    begins = dict(zip(kinds, np.cumsum([0, *kinds.values()]).tolist()[:-1], strict=True))
    first, end, place, slot = np.zeros((4, len(tokens)), np.int32)
    end[:], slot[:] = next(iter(kinds.values())), len(anchors)
    source, token = np.zeros((2, len(options)), np.int32)
    for number, (kind, taken) in enumerate(tokens):
        if number not in anchors:
            first[number], end[number], place[number] = begins[kind], begins[kind] + kinds[kind], taken
            source[taken] = token[taken] = number
    # Rows of anchor points, whose skips stand behind all options.
    shape = len(tokens), len(anchors)
    earlier, positions = np.zeros(shape, bool), np.zeros(shape, np.int32)
    for before, number in enumerate(anchors):
        taken = list(tokens[number][1])
        if [options[skip] for skip in taken] != [2] * before:
            raise UserError(f"tokens: anchor point {before} needs {before} decisions of two options, got {taken}")
        slot[number], earlier[number, :before], positions[number, :before] = before, True, taken
        source[taken], token[taken] = len(tokens) + number * len(anchors) + np.arange(before), number
    steps = Steps(np.arange(len(tokens), dtype=np.int32), first, end, place, slot, earlier, positions)
    return Order(kinds, steps, source, token)


def _kinds(tokens: Sequence[Any], options: list[int]) -> dict[str, int]:
    """Number of options of each kind of token that takes a decision, in the order in which they appear."""
    kinds: dict[str, int] = {}
    for kind, taken in tokens:
        if not np.ndim(taken) and kinds.setdefault(kind, options[taken]) != options[taken]:
            raise UserError(f"tokens: kind {kind!r} has decisions of {kinds[kind]} and of {options[taken]} options")
    anchors = sorted({kind for kind, taken in tokens if np.ndim(taken)})
    if not kinds or len(anchors) > 1 or set(anchors) & set(kinds):
        raise UserError(f"tokens: need decisions, and anchor points of one kind of their own, got {[*kinds, *anchors]}")
    return kinds
