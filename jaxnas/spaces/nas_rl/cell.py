"""The recurrent cells of NAS-RL: binary trees whose nodes combine two vectors and apply an activation.

Zoph and Le (2017, arXiv 1611.01578), section 3.4. One function computes a step of every cell: with the architecture as
arrays, so that many cells train through one program, or with Python's integers, where only the chosen operations are in
the program. Letters for shapes: `B` leaves of the tree (the base), `D` features of an input, `H` hidden units.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.architectures import arch_like
from jaxnas.base import About, Arch, Key, Params, Tree
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl.notation import genotype, parse

__all__ = [
    "ACTIVATIONS",
    "COMBINATIONS",
    "CellState",
    "RecurrentCellSpace",
    "constants",
    "recurrent_cell",
    "recurrent_cell_space",
]

COMBINATIONS: dict[str, Callable[..., jax.Array]] = {
    "add": jnp.add,
    "elem_mult": jnp.multiply,
    "max": jnp.maximum,
}
ACTIVATIONS: dict[str, Callable[..., jax.Array]] = {
    "identity": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "sin": jnp.sin,
}


class CellState(NamedTuple):
    """What a cell hands to its next step.

    Attributes:
      c: the memory `c_t`, `[H]`.
      h: the output `h_t`, `[H]`.
    """

    c: jax.Array
    h: jax.Array


class RecurrentCellSpace(NamedTuple):
    """Cells of one base, for one example; lift over a batch with `vmap`.

    Attributes:
      init: `(key, features, hidden) -> params`, the weights of a cell: `{"x": [B, D, H], "h": [B, H, H]}`. They do not
        depend on the architecture.
      step: `(params, arch, state, x[D]) -> state`. Leaves of `arch` are int32 arrays, which may be traced, or sequences
        of Python's integers.
      choices: decisions as in `SearchSpace.choices`. `"combination"` and `"activation"` have a row for each node of the
        tree and a last one for the cell inject; `"index"` has the two cell indices.
      tokens: the order in which a controller writes the decisions: pairs of a token's kind and of the decision's place
        in a row of `jaxnas.architectures.decisions(choices)`.
      about: name, exact size, genotype as a string, and its inverse `parse`.
    """

    init: Callable[[Key, int, int], Params]
    step: Callable[[Params, Arch, CellState, jax.Array], CellState]
    choices: Tree
    tokens: tuple[tuple[str, int], ...]
    about: About


def recurrent_cell_space(
    base: int = 8,
    *,
    combinations: Sequence[str] = ("add", "elem_mult"),
    activations: Sequence[str] = ("identity", "tanh", "sigmoid", "relu"),
    init_range: float | None = None,
) -> RecurrentCellSpace:
    """The space of recurrent cells of Zoph and Le (2017, arXiv 1611.01578), section 3.4.

    A cell is a binary tree of `2 B - 1` nodes, numbered from the leaves to the root; node `B + i` joins the nodes `2 i`
    and `2 i + 1`. Every node has a combination and an activation:

        leaf n:        p_n = comb_n(Wx_n x_t, Wh_n h_{t-1}),    a_n = act_n(p_n)
        inner node n:  p_n = comb_n(a_left, a_right),           a_n = act_n(p_n)
        cell inject:   a_q becomes act(comb(a_q, c_{t-1}))      at node q, the second cell index
        results:       c_t = p_r at node r, the first cell index; h_t = a_root

    There are `(C A)^(2 B) (2 B - 1)^2` architectures of `C` combinations and `A` activations: 36,864 for base 2 and
    6.3e16 for base 8.

    The paper shows trees of base 2 and 8 and does not tell what an inject at the root does; here `h_t` is the injected
    value. The combination `max` and the activation `sin` are those that the paper adds in a control experiment.

    Args:
      base: number of leaves, at least 2; it need not be a power of two.
      combinations: names of at least two combination methods, out of `COMBINATIONS`.
      activations: names of at least two activations, out of `ACTIVATIONS`.
      init_range: first weights are uniform between minus and plus this number; by default one over the square root of
        the length of the vector that a matrix is multiplied with.

    Returns:
      The space.

    Raises:
      UserError: a base below 2, fewer than two operations, one that is unknown or named twice, or a range not above 0.

    Example:
      >>> space = recurrent_cell_space(2)
      >>> arch = space.about.parse("add tanh, elem_mult relu | elem_mult sigmoid | inject add relu | index 1 0")
      >>> params, zeros = space.init(jax.random.key(0), 3, 4), jnp.zeros(4)
      >>> space.about.size, space.step(params, arch, CellState(zeros, zeros), jnp.ones(3)).h.shape
      (36864, (4,))
    """
    if not isinstance(base, int) or base < 2:
        raise UserError(f"base is {base!r}, expected an integer of at least 2")
    if init_range is not None and not 0 < init_range < math.inf:
        raise UserError(f"init_range is {init_range}, expected a number above 0")
    combinations = _checked("combinations", combinations, COMBINATIONS)
    activations = _checked("activations", activations, ACTIVATIONS)
    # One row for each node and one for the inject; the two cell indices.
    counts = {
        "activation": (2 * base, len(activations)),
        "combination": (2 * base, len(combinations)),
        "index": (2, 2 * base - 1),
    }
    choices = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in counts.items()}
    nodes = [(("combination", 2 * base + n), ("activation", n)) for n in range(2 * base)]
    tokens = (*(token for pair in nodes for token in pair), ("index", 4 * base), ("index", 4 * base + 1))
    about = About(
        name="nas-rl-cell",
        operations={
            "activation": activations,
            "combination": combinations,
            "index": tuple(str(n) for n in range(2 * base - 1)),
        },
        size=math.prod(options**rows for rows, options in counts.values()),
        genotype=lambda arch: genotype(arch_like(choices, arch), combinations, activations),
        parse=lambda text: arch_like(choices, parse(text, base, combinations, activations)),
        config={
            "base": base,
            "combinations": list(combinations),
            "activations": list(activations),
            "init_range": init_range,
        },
    )
    combine = functools.partial(_choose, [COMBINATIONS[name] for name in combinations])
    activate = functools.partial(_choose, [ACTIVATIONS[name] for name in activations])
    init = functools.partial(_init, base, init_range)
    return RecurrentCellSpace(init, functools.partial(_step, combine, activate), choices, tokens, about)


def recurrent_cell(space: RecurrentCellSpace, arch: Arch | str) -> Callable[[Params, CellState, jax.Array], CellState]:
    """One cell as a function `(params, state, x[D]) -> state` that holds only the operations of its architecture.

    Args:
      space: the space of the cell.
      arch: the architecture, or its genotype.

    Raises:
      UserError: an architecture or a genotype outside of the space.

    Example:
      >>> from jaxnas.spaces.nas_rl import PUBLISHED
      >>> space = recurrent_cell_space(8)
      >>> cell = recurrent_cell(space, PUBLISHED["nascell"])
      >>> params, zeros = space.init(jax.random.key(0), 3, 4), jnp.zeros(4)
      >>> cell(params, CellState(zeros, zeros), jnp.ones(3)).c.shape
      (4,)
    """
    fixed = constants(space, arch)
    return lambda params, state, x: space.step(params, fixed, state, x)


def constants(space: RecurrentCellSpace, arch: Arch | str) -> dict[str, list[int]]:
    """The architecture as lists of Python's integers, for functions that take it in that form.

    Raises:
      UserError: an architecture or a genotype outside of the space.
    """
    arch = space.about.parse(arch) if isinstance(arch, str) and space.about.parse else arch
    return jax.tree.map(np.ndarray.tolist, arch_like(space.choices, arch))


def _checked(name: str, values: Sequence[str], known: dict[str, Any]) -> tuple[str, ...]:
    values = (values,) if isinstance(values, str) else tuple(values)
    if len(values) < 2 or len(set(values)) < len(values) or not set(values) <= set(known):
        raise UserError(f"{name} is {values}, expected at least two different names out of {', '.join(known)}")
    return values


def _init(base: int, init_range: float | None, key: Key, features: int, hidden: int) -> Params:
    key_x, key_h = jax.random.split(key)

    def matrices(key: Key, length: int) -> jax.Array:
        bound = 1 / math.sqrt(length) if init_range is None else init_range
        return jax.random.uniform(key, (base, length, hidden), jnp.float32, -bound, bound)

    return {"x": matrices(key_x, features), "h": matrices(key_h, hidden)}


def _choose(functions: Sequence[Callable[..., jax.Array]], index: Any, *args: jax.Array) -> jax.Array:
    """The output of the function with number `index`."""
    if isinstance(index, int):
        return functions[index](*args)
    # The others see zeros: an infinity there would be a NaN in the gradient of the chosen one.
    outputs = [
        function(*(jnp.where(index == k, arg, jnp.zeros_like(arg)) for arg in args))
        for k, function in enumerate(functions)
    ]
    return lax.select_n(index, *outputs)


def _step(combine: Any, activate: Any, params: Params, arch: Arch, state: CellState, x: jax.Array) -> CellState:
    """`c_t` and `h_t` from `x_t`, `c_{t-1}` and `h_{t-1}`."""
    base = len(params["x"])
    combination, activation, (memory, inject) = arch["combination"], arch["activation"], arch["index"]

    def injected(a: jax.Array, c: jax.Array) -> jax.Array:
        return activate(activation[2 * base - 1], combine(combination[2 * base - 1], a, c))

    # Leaves: all products Wx_n x_t and Wh_n h_{t-1} at once.
    products = jnp.einsum("d,bdh->bh", x, params["x"]), jnp.einsum("d,bdh->bh", state.h, params["h"])
    pairs = list(zip(*products))
    p: list[jax.Array] = []
    a: list[jax.Array] = []
    for n in range(2 * base - 1):
        left, right = pairs[n] if n < base else a[2 * (n - base) : 2 * (n - base) + 2]
        p.append(combine(combination[n], left, right))
        # Cell inject: a_q, as its parent sees it.
        a.append(_choose((lambda a, c: a, injected), n == inject, activate(activation[n], p[n]), state.c))
    return CellState(c=jnp.stack(p)[memory], h=a[-1])
