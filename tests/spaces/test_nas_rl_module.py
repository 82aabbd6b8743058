"""A cell as a Flax module computes what the cell of the search computes, in an RNN too."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl import (
    PUBLISHED,
    CellState,
    RecurrentCell,
    recurrent_cell,
    recurrent_cell_space,
)

FEATURES, HIDDEN, BATCH, STEPS = 3, 4, 2, 6
CELLS = {
    "nascell": recurrent_cell_space(8),
    "worked_example": recurrent_cell_space(2),
}


@functools.cache
def problem(name):
    """A module with first weights, and a batch of inputs of ordinary size."""
    module = RecurrentCell(HIDDEN, PUBLISHED[name])
    xs = jax.random.normal(jax.random.key(0), (BATCH, STEPS, FEATURES))
    variables = module.init(jax.random.key(1), module.initialize_carry(jax.random.key(0), (BATCH, FEATURES)), xs[:, 0])
    return module, variables, xs


@pytest.mark.parametrize("name", CELLS)
def test_an_rnn_of_the_module_equals_the_cell_step_by_step(name):
    module, variables, xs = problem(name)
    layer = nn.RNN(module, return_carry=True)
    (c, h), outputs = layer.apply({"params": {"cell": variables["params"]}}, xs)
    cell, zeros = jax.jit(recurrent_cell(CELLS[name], PUBLISHED[name])), jnp.zeros(HIDDEN)
    for text in range(BATCH):
        state = CellState(zeros, zeros)
        for t in range(STEPS):
            state = cell(variables["params"], state, xs[text, t])
            np.testing.assert_allclose(outputs[text, t], state.h, atol=1e-6)
        np.testing.assert_allclose(c[text], state.c, atol=1e-6)
        np.testing.assert_allclose(h[text], state.h, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_parameters_have_the_shapes_and_the_range_of_the_space(name):
    module, variables, xs = problem(name)
    like = CELLS[name].init(jax.random.key(0), FEATURES, HIDDEN)
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(jnp.shape, like)
    bound = FEATURES**-0.5
    assert 0.8 * bound < np.abs(variables["params"]["x"]).max() <= bound
    narrow = RecurrentCell(HIDDEN, PUBLISHED[name], init_range=0.01)
    found = narrow.init(jax.random.key(1), module.initialize_carry(jax.random.key(0), (FEATURES,)), xs[0, 0])
    for leaf in jax.tree.leaves(found):
        assert 0.008 < np.abs(leaf).max() <= 0.01
    # Matrices for the input and for the output before are drawn apart.
    assert np.corrcoef(found["params"]["x"][0].ravel()[:12], found["params"]["h"][0].ravel()[:12])[0, 1] < 0.99


def test_one_example_and_two_axes_of_batches():
    module, variables, xs = problem("worked_example")
    many = module.initialize_carry(jax.random.key(0), (5, BATCH, FEATURES))
    (c, _), h = module.apply(variables, many, jnp.broadcast_to(xs[:, 0], (5, BATCH, FEATURES)))
    (one_c, _), one_h = module.apply(variables, jax.tree.map(lambda leaf: leaf[0, 0], many), xs[0, 0])
    assert c.shape == h.shape == (5, BATCH, HIDDEN)
    np.testing.assert_allclose(h[3, 0], one_h, atol=1e-6)
    np.testing.assert_allclose(c[3, 0], one_c, atol=1e-6)
    assert module.num_feature_axes == 1


def test_a_cell_with_the_added_operations_needs_no_space():
    text = "max sin, add identity | elem_mult tanh | inject max sin | index 1 0"
    module, xs = RecurrentCell(HIDDEN, text), jnp.ones(FEATURES)
    carry = module.initialize_carry(jax.random.key(0), (FEATURES,))
    variables = module.init(jax.random.key(1), carry, xs)
    (c, _), h = module.apply(variables, carry, xs)
    x = jnp.einsum("d,bdh->bh", xs, variables["params"]["x"])
    a0 = np.sin(np.maximum(np.sin(np.maximum(x[0], 0)), 0))
    np.testing.assert_allclose(h, np.tanh(a0 * x[1]), atol=1e-6)
    np.testing.assert_allclose(c, x[1], atol=1e-6)


@pytest.mark.parametrize("text", ["", "add tanh | add tanh | inject add tanh | index 0 0", "add tanh, add sine | x"])
def test_a_text_that_is_no_cell_is_refused(text):
    module = RecurrentCell(HIDDEN, text)
    with pytest.raises(UserError, match="genotype is "):
        module.init(jax.random.key(0), module.initialize_carry(jax.random.key(0), (FEATURES,)), jnp.ones(FEATURES))
