"""The small network of two cells in all its forms: dense, one operation alone, one convolution for all, stand-alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import dense_paths, one_hot_paths, sparse_paths
from jaxnas.spaces import nasbench201_small_space
from tests.spaces.test_agreement import assert_close, graded

ARCHS = np.array([[3, 1, 2, 4, 0, 3], [0, 3, 1, 2, 3, 0], [2, 4, 3, 3, 1, 4], [0, 0, 0, 0, 0, 0], [3, 3, 3, 0, 0, 2]])
SWITCH, KERNEL = (nasbench201_small_space(4, 3, choice=choice) for choice in ("switch", "kernel"))
RUN = {"switch": graded(SWITCH.apply), "kernel": graded(KERNEL.apply)}
REFERRED = {  # normalised with the first four examples
    choice: graded(nasbench201_small_space(4, 3, choice=choice, reference=4).apply) for choice in RUN
}


def images(count=6, side=8):
    return jnp.asarray(np.random.default_rng(0).standard_normal((count, side, side, 2)), jnp.float32)


@pytest.fixture(scope="module")
def params():
    return _bent(jax.jit(SWITCH.init)(jax.random.key(0), images()))


def _bent(params):
    """With scales and offsets that are not 1 and 0."""

    def bend(leaf):
        return leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)

    return jax.tree.map(bend, params)


@pytest.mark.parametrize("arch", [{"cell": jnp.asarray(row)} for row in ARCHS], ids=str)
def test_all_forms_agree(arch, params):
    (_, dense), dense_grads = RUN["switch"](params, one_hot_paths(SWITCH.choices, arch), images())
    assert dense.shape == (6, 3)
    for run in RUN.values():
        (_, sparse), grads = run(params, sparse_paths(arch), images())
        assert_close(sparse, dense, 1e-5)
        assert_close(grads, dense_grads, 1e-4)


def test_the_stand_alone_network_inherits(params):
    arch = {"cell": ARCHS[0].tolist()}
    network = SWITCH.about.network(arch)
    alone = graded(lambda params, paths, x: network.apply(network.inherit(params), x, train=True)[0])
    (_, wanted), wanted_grads = RUN["switch"](params, sparse_paths({"cell": jnp.asarray(ARCHS[0])}), images())
    (_, found), grads = alone(params, None, images())
    assert_close(found, wanted, 1e-5)
    assert_close(grads, wanted_grads, 1e-4)
    variables = network.init(jax.random.key(0), images())
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    cost = SWITCH.about.costs((8, 8, 2))["parameters"]
    assert count == cost.fixed + cost.table["cell"][np.arange(6), ARCHS[0]].sum()


def test_multiply_adds_are_those_of_the_convolutions():
    cost = SWITCH.about.costs((8, 8, 2))["macs"]
    assert cost.fixed == 64 * 9 * 2 * 4 + 16 * 9 * 4 * 8 + 8 * 3 + 3
    np.testing.assert_array_equal(cost.table["cell"][0], [0, 0, 64 * 16 + 16 * 64, 9 * (64 * 16 + 16 * 64), 0])


def test_edges_that_lead_nowhere_are_left_out_and_have_no_gradient(params):
    # Node 1 feeds node 2 only, and node 2 nothing.
    dead, bare = ({"cell": jnp.array(row)} for row in ([3, 3, 2, 3, 0, 0], [0, 0, 0, 3, 0, 0]))
    (_, with_them), grads = RUN["switch"](params, sparse_paths(dead), images())
    (_, without), _ = RUN["switch"](params, sparse_paths(bare), images())
    np.testing.assert_array_equal(with_them, without)
    for cell in grads["cells"]:
        assert not np.any(cell["edges"]["nor_conv_3x3"]["kernel"][:3])
        assert np.any(cell["edges"]["nor_conv_3x3"]["kernel"][3])


def test_gates_get_the_gradient_of_the_dense_form(params):
    arch = {"cell": jnp.asarray(ARCHS[2])}

    def loss(weight, paths):
        paths = paths._replace(weight=weight)
        return jnp.sum(jnp.sin(SWITCH.apply(params, paths, images())))

    dense, sparse = one_hot_paths(SWITCH.choices, arch), sparse_paths(arch)
    wanted = jax.jit(jax.grad(loss))(dense.weight, dense)["cell"][np.arange(6), ARCHS[2]]
    found = jax.jit(jax.grad(loss))(sparse.weight, sparse)["cell"][:, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("choice", ["switch", "kernel"])
def test_examples_after_the_reference_are_judged_alone(choice, params):
    paths, x = sparse_paths({"cell": jnp.asarray(ARCHS[0])}), images()
    together, swapped = (REFERRED[choice](params, paths, own)[0][1] for own in (x, x.at[5].set(9.0)))
    np.testing.assert_array_equal(together[:5], swapped[:5])
    plain = jax.jit({"switch": SWITCH, "kernel": KERNEL}[choice].apply)
    np.testing.assert_allclose(together[:4], plain(params, paths, x[:4]), rtol=1e-4, atol=1e-5)


def test_gradients_with_a_reference_agree(params):
    paths = sparse_paths({"cell": jnp.asarray(ARCHS[0])})
    (_, one), (_, other) = (run(params, paths, images()) for run in REFERRED.values())
    assert_close(one, other, 1e-4)


def test_used_covers_what_has_a_gradient(params):
    paths = dense_paths({"cell": jnp.full((6, 5), 0.2)})
    assert all(np.all(mask) for mask in jax.tree.leaves(SWITCH.used(params, paths)))
    paths = sparse_paths({"cell": jnp.asarray(ARCHS[0])})
    used = SWITCH.used(params, paths)["cells"][0]["edges"]
    np.testing.assert_array_equal(np.ravel(used["nor_conv_3x3"]["kernel"]), ARCHS[0] == 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"choice": "select"}, "choice must be 'switch', 'kernel' or None, got 'select'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        nasbench201_small_space(**settings)


def test_odd_images_are_refused():
    with pytest.raises(ValueError, match="even height and width, got 7x7"):
        jax.eval_shape(SWITCH.init, jax.random.key(0), images(side=7))
