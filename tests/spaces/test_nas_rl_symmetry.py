"""Cells of equal form compute the same, whatever their weights, once the weights of their leaves are exchanged."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import decisions
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl import CellState, recurrent_cell_space
from jaxnas.spaces.nas_rl.symmetry import ZERO, all_recurrent_cells, canonical_cell, cell_representatives

SPACE = recurrent_cell_space(2)
WIDE = recurrent_cell_space(
    3, combinations=("add", "elem_mult", "max"), activations=("identity", "tanh", "sigmoid", "relu", "sin")
)
HIDDEN, STEPS = 16, 4
COMBINATIONS = {"add": np.add, "elem_mult": np.multiply, "max": np.maximum}
ACTIVATIONS = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": lambda x: (1 + np.tanh(x / 2)) / 2,
    "relu": lambda x: np.maximum(x, 0),
    "sin": np.sin,
}


def _chosen(functions, names, numbers, *args):
    """The outputs of the functions whose numbers are given for each cell: `[N, H]`."""
    outputs = [functions[name](*args) for name in names]
    return np.select([numbers[:, None] == k for k in range(len(names))], outputs)


def _outputs(space, cells, base, order=None):
    """`h_1 .. h_T` of every cell in float64, `[N, T * H]`; leaf `n` has the weights of number `order[n]`."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((STEPS, HIDDEN))
    w_x, w_h = (rng.standard_normal((base, HIDDEN, HIDDEN)) / 3 for _ in range(2))
    order, names, index = range(base) if order is None else order, space.about.operations, cells["index"]

    def combine(n, *args):
        return _chosen(COMBINATIONS, names["combination"], cells["combination"][:, n], *args)

    def activate(n, a):
        return _chosen(ACTIVATIONS, names["activation"], cells["activation"][:, n], a)

    c = h = np.zeros((len(index), HIDDEN))
    found = []
    for step in range(STEPS):
        p, a = [], []
        for n in range(2 * base - 1):
            leaf = n < base
            pair = (x[step] @ w_x[order[n]] + 0 * h, h @ w_h[order[n]]) if leaf else a[2 * (n - base) :][:2]
            p.append(combine(n, *pair))
            plain = activate(n, p[n])
            injected = activate(-1, combine(-1, plain, c))
            a.append(np.where(index[:, 1:] == n, injected, plain))
        c, h = np.select([index[:, :1] == n for n in range(2 * base - 1)], p), a[-1]
        found.append(h)
    return np.concatenate(found, 1)


def _gap(own, others):
    """How far every cell is from its partner, relative to the larger output, under the best order of the leaves."""
    gaps = [np.abs(own - other) / (1 + np.maximum(np.abs(own), np.abs(other))) for other in others]
    return np.min([gap.max(1) for gap in gaps], 0)


@pytest.fixture(scope="module")
def first():
    return cell_representatives(SPACE)


@pytest.fixture(scope="module")
def outputs():
    """The outputs of all cells of base 2 under both orders of the leaves."""
    return [_outputs(SPACE, all_recurrent_cells(SPACE), 2, order) for order in ((0, 1), (1, 0))]


def _rows(cells, rows):
    return {name: leaf[rows] for name, leaf in cells.items()}


def test_every_cell_computes_what_the_first_of_its_class_does(first, outputs):
    own = outputs[0]
    assert _gap(own, [output[first] for output in outputs]).max() < 1e-9
    # The bound has power: the first cells of other classes are far away.
    classes, class_of = np.unique(first, return_inverse=True)
    assert np.median(_gap(own, [output[classes[class_of - 1]] for output in outputs])) > 1e-3


def test_hardly_any_two_classes_compute_the_same(first, outputs):
    classes = np.unique(first)
    assert len(classes) == 10994
    rounded = [np.round(output[classes], 7) + 0.0 for output in outputs]
    keys = {min(pair) for pair in zip(*(map(bytes, half) for half in rounded), strict=True)}
    # A few pairs are equal by rules that a form does not know, or look equal within four steps.
    assert 10960 <= len(keys) <= 10994


def test_classes_of_the_swap_alone_are_about_half_of_all(first):
    cells, number = all_recurrent_cells(SPACE), decisions(SPACE.choices)
    swap = lambda leaf: np.concatenate([leaf[:, [1, 0]], leaf[:, 2:]], 1)  # noqa: E731
    mirrored = {name: swap(leaf) for name, leaf in cells.items() if name != "index"}
    mirrored["index"] = np.array([1, 0, 2])[cells["index"]]
    partner = np.asarray(number.number(number.join(mirrored)))
    np.testing.assert_array_equal(first[partner], first)
    # Burnside: half of all cells and of those that are their own mirror image, 8 * 8 * 8 with both indices at the root.
    assert (partner == np.arange(36864)).sum() == 8 * 8 * 8
    assert len(np.unique(np.minimum(partner, np.arange(36864)))) == (36864 + 512) // 2


def test_cells_that_give_nothing_are_one_class(first, outputs):
    rest = "elem_mult tanh | inject elem_mult relu | index 2 0"
    for leaves in ("add identity, add tanh", "elem_mult sigmoid, add relu"):
        assert canonical_cell(SPACE, f"{leaves} | {rest}") == ZERO
    assert (np.abs(outputs[0]).max(1) == 0).sum() == np.bincount(first).max() == 10464


def test_a_class_has_equal_gradients(first):
    cells = all_recurrent_cells(SPACE)
    rng = np.random.default_rng(0)
    several = np.flatnonzero(first != np.arange(len(first)))
    rows = rng.choice(several[np.bincount(first)[first[several]] < 1000], 60, replace=False)
    params = SPACE.init(jax.random.key(0), 8, 8)
    x, weight = (jax.random.normal(jax.random.key(n), (STEPS, 8)) for n in (1, 2))

    def loss(params, arch):
        def step(state, x):
            state = SPACE.step(params, arch, state, x)
            return state, state.h

        return jnp.vdot(weight, jax.lax.scan(step, CellState(jnp.zeros(8), jnp.zeros(8)), x)[1])

    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
    swapped = jax.tree.map(lambda leaf: leaf[::-1], params)
    own, same = (grads(params, _rows(cells, which)) for which in (rows, first[rows]))
    exchanged = jax.tree.map(lambda leaf: leaf[:, ::-1], grads(swapped, _rows(cells, first[rows])))
    gap = [
        np.max([np.abs(a - b).max((1, 2, 3)) / (1 + np.abs(a).max((1, 2, 3))) for a, b in zip(*pair, strict=True)], 0)
        for pair in ((own.values(), same.values()), (own.values(), exchanged.values()))
    ]
    assert np.minimum(*gap).max() < 1e-4
    assert np.maximum(*gap).max() > 1e-2, "an exchange of the weights matters"


def test_larger_trees_and_further_operations():
    # Random cells, their mirror images, and all that differ from those by one decision.
    flat, rng = decisions(WIDE.choices), np.random.default_rng(0)
    seen = rng.integers(0, flat.counts, (60, len(flat.counts)))
    cells = {name: np.asarray(leaf) for name, leaf in flat.split(seen).items()}
    order = np.array([1, 0, 2, 3, 4, 5])  # the leaves 0 and 1 exchanged
    mirrored = {name: leaf[:, order] for name, leaf in cells.items() if name != "index"}
    mirrored["index"] = order[cells["index"]]
    seen = np.concatenate([seen, np.asarray(flat.join(mirrored))])
    changes = [(place, option) for place, count in enumerate(flat.counts) for option in range(count)]
    rows = np.repeat(seen, len(changes), 0)
    places, options = np.tile(np.array(changes), (len(seen), 1)).T
    rows[np.arange(len(rows)), places] = options
    rows = np.unique(rows, axis=0)
    cells = {name: np.asarray(leaf) for name, leaf in flat.split(rows).items()}
    groups = {}
    for number in range(len(rows)):
        form = canonical_cell(WIDE, {name: leaf[number] for name, leaf in cells.items()})
        groups.setdefault(form, []).append(number)
    alike = [group for form, group in groups.items() if form != ZERO]
    pairs = np.array([(group[0], other) for group in alike for other in group[1:]])
    assert len(pairs) > 1000
    own, other = (_rows(cells, half) for half in pairs.T)
    orders = itertools.permutations(range(3))
    assert _gap(_outputs(WIDE, own, 3), [_outputs(WIDE, other, 3, order) for order in orders]).max() < 1e-9


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (  # the order of the leaves, with their indices
            "add tanh, elem_mult relu | add tanh | inject add relu | index 0 1",
            "elem_mult relu, add tanh | add tanh | inject add relu | index 1 0",
        ),
        (  # (a + c) + b = (a + b) + c
            "add tanh, add sigmoid | add relu | inject add identity | index 0 0",
            "add tanh, add sigmoid | add identity | inject add relu | index 0 2",
        ),
        (  # a rectifier after a sum of sigmoids
            "add sigmoid, add sigmoid | add relu | inject add sigmoid | index 0 1",
            "add sigmoid, add sigmoid | add identity | inject add sigmoid | index 0 1",
        ),
        (  # relu(a b) = a relu(b) for a sigmoid a
            "add sigmoid, add identity | elem_mult relu | inject add sigmoid | index 0 0",
            "add sigmoid, add relu | elem_mult identity | inject add sigmoid | index 0 0",
        ),
    ],
)
def test_rules_by_hand(one, other):
    assert canonical_cell(SPACE, one) == canonical_cell(SPACE, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (  # the memory of another leaf
            "add tanh, elem_mult relu | add tanh | inject add relu | index 0 1",
            "add tanh, elem_mult relu | add tanh | inject add relu | index 1 1",
        ),
        (  # the memory is the sum at the root, with or without what was injected below
            "add tanh, add sigmoid | add relu | inject add identity | index 2 0",
            "add tanh, add sigmoid | add identity | inject add relu | index 2 2",
        ),
        (  # a rectifier after a hyperbolic tangent
            "add sigmoid, add tanh | add relu | inject add sigmoid | index 0 0",
            "add sigmoid, add tanh | add identity | inject add sigmoid | index 0 0",
        ),
    ],
)
def test_cells_that_differ(one, other):
    assert canonical_cell(SPACE, one) != canonical_cell(SPACE, other)


def test_a_space_too_large_to_enumerate_is_refused():
    with pytest.raises(UserError, match=r"space has 6\.33e\+16 cells, expected at most 1048576 to enumerate"):
        cell_representatives(recurrent_cell_space(8))
