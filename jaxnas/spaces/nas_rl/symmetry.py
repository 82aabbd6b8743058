"""Which recurrent cells are one function of their inputs and weights, up to the names of the leaves.

Every leaf of a cell has weights of its own, drawn alike, so cells that differ in the order of their leaves train to the
same distribution of results, and a table has to train one of them only.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import decisions
from jaxnas.base import Arch
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl.cell import RecurrentCellSpace, constants

__all__ = ["all_recurrent_cells", "canonical_cell", "cell_representatives"]

# An expression: the name of an operation and its operands, which are sorted where their order is without effect.
Expression = tuple[str, tuple["Expression", ...]]

LARGEST = 2**20  # cells in a space that is enumerated
ZERO: Expression = ("zero", ())
MEMORY: Expression = ("memory", ())  # c_{t-1}
TO_MEMORY = "to memory"  # around the node whose combination becomes c_t
KEEP_ZERO = {"identity", "tanh", "relu", "sin"}  # activations of 0 that are 0
NEVER_NEGATIVE = {"sigmoid", "relu"}


class _Facts(NamedTuple):
    """What holds of a cell at every step.

    Attributes:
      no_memory: whether `c_t` is 0.
      no_output: whether `h_t` is 0.
      positive_memory: whether no element of `c_t` is below 0.
    """

    no_memory: bool = True
    no_output: bool = True
    positive_memory: bool = True


def canonical_cell(space: RecurrentCellSpace, arch: Arch | str) -> Expression:
    """Returns the same expression for cells that are one function up to the names of their leaves.

    The expression is the output `h_t` of a cell that starts with a state of zeros. Five rules bring it to one form:

    1. Operands of a combination are sorted, so that it does not matter which leaf is called the first.
    2. A combination inside of the same combination is one of more operands: `(a + c) + b = (a + b) + c`.
    3. A rectifier has no effect on a value that is never negative, nor on such a factor: `relu(a b) = a relu(b)`.
    4. A memory or an output that is 0 after one step, when it was 0 before, stays 0 and is left out. Such a cell may be
       constant: all cells that give 0 for all weights have the form `ZERO`.
    5. The node whose combination becomes `c_t` is marked; the mark keeps it apart from the combination around it.

    Cells of equal form have equal outputs and gradients, to rounding, once the weights of their leaves are exchanged.
    The converse fails for few cells: for base 2, at most four pairs of the 10,994 forms compute the same function.

    Args:
      space: the space of the cell.
      arch: the architecture, or its genotype.

    Returns:
      Nested pairs of an operation's name and a tuple of operands.

    Raises:
      UserError: an architecture or a genotype outside of the space.

    Example:
      >>> from jaxnas.spaces.nas_rl import recurrent_cell_space
      >>> space = recurrent_cell_space(2)
      >>> texts = [f"add {a}, add {b} | add tanh | inject add relu | index {i} {i}" for a, b, i in
      ...          [("relu", "sigmoid", 0), ("sigmoid", "relu", 1)]]
      >>> canonical_cell(space, texts[0]) == canonical_cell(space, texts[1])
      True
    """
    operations, fixed = space.about.operations, constants(space, arch)
    combination = [operations["combination"][k] for k in fixed["combination"]]
    activation = [operations["activation"][k] for k in fixed["activation"]]
    return _form(tuple(combination), tuple(activation), *fixed["index"])


def cell_representatives(space: RecurrentCellSpace) -> np.ndarray:
    """Returns for every cell the number of the first cell of equal form (`canonical_cell`), in the order of counting.

    Args:
      space: a space of at most a million cells.

    Returns:
      int32 `[N]`; the first cell of a class has its own number.

    Raises:
      UserError: a space with more cells.

    Example:
      >>> from jaxnas.spaces.nas_rl import recurrent_cell_space
      >>> space = recurrent_cell_space(2, activations=("identity", "tanh"))
      >>> space.about.size, len(np.unique(cell_representatives(space)))
      (2304, 487)
    """
    cells = all_recurrent_cells(space)
    operations = space.about.operations
    names = {kind: np.array(operations[kind])[cells[kind]].tolist() for kind in ("combination", "activation")}
    rows = zip(names["combination"], names["activation"], cells["index"].tolist(), strict=True)
    first: dict[Expression, int] = {}
    found = [first.setdefault(_form(tuple(c), tuple(a), *index), number) for number, (c, a, index) in enumerate(rows)]
    return np.array(found, np.int32)


def all_recurrent_cells(space: RecurrentCellSpace) -> dict[str, np.ndarray]:
    """Returns every cell of a space in the order of counting: leaves int32 `[N, rows]` by the names of `space.choices`.

    Args:
      space: a space of at most a million cells.

    Raises:
      UserError: a space with more cells.

    Example:
      >>> from jaxnas.spaces.nas_rl import recurrent_cell_space
      >>> all_recurrent_cells(recurrent_cell_space(2))["index"].shape
      (36864, 2)
    """
    flat = decisions(space.choices)
    if flat.size > LARGEST:
        raise UserError(f"space has {flat.size:.3g} cells, expected at most {LARGEST} to enumerate")
    counts = tuple(int(count) for count in flat.counts)
    rows = jnp.asarray(np.indices(counts, np.int32).reshape(len(counts), -1).T)
    return {name: np.asarray(leaf) for name, leaf in flat.split(rows).items()}


def _form(combination: tuple[str, ...], activation: tuple[str, ...], memory: int, inject: int) -> Expression:
    """The output, simplified by what holds at every step."""
    # Facts hold of the state of zeros; those that one step keeps hold for ever, the others are given up.
    facts = _Facts()
    while True:
        to_memory, output = _one_step(combination, activation, memory, inject, facts)
        kept = _Facts(
            facts.no_memory and to_memory == ZERO,
            facts.no_output and output == ZERO,
            facts.positive_memory and _positive(to_memory, facts),
        )
        if kept == facts:
            return output
        facts = kept


def _one_step(
    combination: Sequence[str], activation: Sequence[str], memory: int, inject: int, facts: _Facts
) -> tuple[Expression, Expression]:
    """`c_t` and `h_t` as expressions."""
    base = len(combination) // 2
    combine, activate = functools.partial(_combined, facts), functools.partial(_activated, facts)
    to_memory: Expression = ZERO
    a: list[Expression] = []
    for n in range(2 * base - 1):
        # p_n: products of a leaf with its own weights, or the two children.
        p = _leaf(combination[n], facts) if n < base else combine(combination[n], *a[2 * (n - base) :][:2])
        if n == memory:
            to_memory = p
            p = p if facts.no_memory else (TO_MEMORY, (p,))
        a.append(activate(activation[n], p))
        if n == inject:
            a[n] = activate(activation[-1], combine(combination[-1], a[n], ZERO if facts.no_memory else MEMORY))
    return to_memory, a[-1]


def _leaf(combination: str, facts: _Facts) -> Expression:
    """`comb(Wx x_t, Wh h_{t-1})`; a product with an output of 0 is 0."""
    return ZERO if facts.no_output and combination == "elem_mult" else (f"leaf {combination}", ())


def _combined(facts: _Facts, name: str, left: Expression, right: Expression) -> Expression:
    if ZERO in (left, right):
        other = right if left == ZERO else left
        return {"add": other, "elem_mult": ZERO}.get(name) or _activated(facts, "relu", other)
    # One combination of all operands of nested ones: sum, product and maximum are associative.
    operands = [operand for side in (left, right) for operand in (side[1] if side[0] == name else (side,))]
    return name, tuple(sorted(operands))


def _activated(facts: _Facts, name: str, a: Expression) -> Expression:
    if name == "identity" or (name == "relu" and _positive(a, facts)) or (a == ZERO and name in KEEP_ZERO):
        return a
    outside = [b for b in a[1] if _positive(b, facts)] if (name, a[0]) == ("relu", "elem_mult") else []
    if not outside:
        return name, (a,)
    # relu(a b) = a relu(b) where a is never negative; another factor is left, or the product were never negative.
    inside = tuple(b for b in a[1] if not _positive(b, facts))
    rest = inside[0] if len(inside) == 1 else ("elem_mult", inside)
    return "elem_mult", tuple(sorted([*outside, ("relu", (rest,))]))


def _positive(a: Expression, facts: _Facts) -> bool:
    """Whether a value is known never to be negative."""
    name, operands = a
    if a in (ZERO, MEMORY):
        return a == ZERO or facts.positive_memory
    signs: Any = (_positive(operand, facts) for operand in operands)
    if name == "max":
        return any(signs)
    # Sums, products and the hyperbolic tangent of what is not negative.
    return name in NEVER_NEGATIVE or (name in ("add", "elem_mult", "tanh", TO_MEMORY) and all(signs))
