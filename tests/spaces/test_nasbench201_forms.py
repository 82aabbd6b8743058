"""Equivalent cells compute the same, and the classes are those that symmetries demand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import sparse_paths
from jaxnas.spaces import nasbench201_small_space
from jaxnas.spaces.nasbench201 import all_cells, canonical_form, representatives

NONE, SKIP, ONE, THREE, POOL = range(5)
# Edges: 0>1, 0>2, 1>2, 0>3, 1>3, 2>3.


@functools.cache
def classes():
    return representatives()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([THREE, ONE, NONE, POOL, SKIP, THREE], [ONE, THREE, NONE, POOL, THREE, SKIP]),  # nodes 1 and 2 change places
        ([SKIP, NONE, THREE, NONE, NONE, SKIP], [NONE, NONE, NONE, THREE, NONE, NONE]),  # a chain of skips
        ([THREE, NONE, THREE, ONE, NONE, NONE], [NONE, NONE, NONE, ONE, NONE, NONE]),  # what leads nowhere
        ([POOL, NONE, NONE, NONE, SKIP, NONE], [SKIP, NONE, NONE, NONE, POOL, NONE]),  # linear operations commute
    ],
)
def test_examples(one, other):
    assert canonical_form(one) == canonical_form(other)


def test_one_convolution_twice_is_not_two_convolutions():
    twice = [THREE, SKIP, NONE, NONE, SKIP, NONE], [THREE, NONE, SKIP, NONE, SKIP, SKIP]
    two = [THREE, THREE, NONE, NONE, SKIP, SKIP]
    assert canonical_form(twice[1]) != canonical_form(two)
    assert canonical_form(twice[0]) != canonical_form(two)


def test_a_convolution_of_zeros_counts_for_its_offset():
    assert canonical_form([NONE, NONE, NONE, NONE, THREE, NONE]) != canonical_form([NONE] * 6)
    assert canonical_form([NONE, NONE, NONE, NONE, POOL, NONE]) == canonical_form([NONE] * 6)


def test_cells_are_counted_in_order():
    cells = all_cells()
    assert cells.shape == (15625, 6)
    np.testing.assert_array_equal(cells @ 5 ** np.arange(5, -1, -1), np.arange(15625))
    np.testing.assert_array_equal(classes()[classes()], classes())
    assert (classes() <= np.arange(15625)).all()


def test_nodes_without_an_edge_between_them_can_change_places():
    cells = all_cells()
    apart = cells[cells[:, 2] == NONE]
    swapped = apart[:, [1, 0, 2, 3, 5, 4]]
    places = 5 ** np.arange(5, -1, -1)
    np.testing.assert_array_equal(classes()[apart @ places], classes()[swapped @ places])


def test_equivalent_cells_compute_the_same_with_equal_weights_on_all_edges():
    space, rng = nasbench201_small_space(2, 3, choice="switch"), np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((4, 4, 4, 1)), jnp.float32)
    params = jax.jit(space.init)(jax.random.key(0), x)

    def tied(leaf):
        bent = leaf[:1] + 0.1 * jnp.cos(jnp.arange(leaf[0].size)).reshape(leaf[:1].shape)
        return jnp.broadcast_to(bent, leaf.shape)

    params["cells"] = jax.tree.map(tied, params["cells"])
    changed = np.flatnonzero(classes() != np.arange(15625))
    some = rng.choice(changed, 400, replace=False)

    @jax.jit
    def outputs(cells):
        return jax.lax.map(lambda cell: space.apply(params, sparse_paths({"cell": cell}), x), cells)

    others = some, classes()[some], some + 1
    own, first, wrong = (outputs(jnp.asarray(all_cells()[rows % 15625])) for rows in others)
    np.testing.assert_allclose(own, first, rtol=1e-3, atol=1e-4)
    differ = classes()[(some + 1) % 15625] != classes()[some]
    assert differ.sum() > 200
    assert np.mean(np.abs(own - wrong)[differ].max((1, 2)) > 1e-2) > 0.9
