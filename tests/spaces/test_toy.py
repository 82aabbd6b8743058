"""Toy spaces against their definitions, and chains of operations from several libraries."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxnas.base import Op, Paths, dense_paths, one_hot_paths, sparse_paths
from jaxnas.spaces import as_op, chain_space, function_space, gates, quadratic_space, table_space

TABLE = np.random.default_rng(0).standard_normal((3, 3, 3)).astype(np.float32)
MATRIX = np.array(
    [
        [0.1363215, 0.24580253, -0.09484093, -0.34144431],
        [0.24580253, 0.90452134, -0.25626348, -0.34555518],
        [-0.09484093, -0.25626348, 0.7460141, 0.79780577],
        [-0.34144431, -0.34555518, 0.79780577, 2.26264424],
    ]
)
LINEAR = np.array([1.0, -0.5, 0.3, 2.0])


def test_table_holds_the_loss_of_every_architecture():
    space = table_space(TABLE)
    dense = jax.jit(lambda arch: space.apply({}, one_hot_paths(space.choices, {"edges": arch}), None))
    sparse = jax.jit(lambda arch: space.apply({}, sparse_paths({"edges": arch}), None))
    for arch in itertools.product(range(3), repeat=3):
        assert dense(jnp.array(arch)) == sparse(jnp.array(arch)) == TABLE[arch]
    assert space.about.size == TABLE.size


def test_table_between_architectures_is_the_expected_loss():
    space = table_space(TABLE)
    p = jax.nn.softmax(jnp.asarray(np.random.default_rng(1).standard_normal((3, 3)), jnp.float32))
    loss, slope = jax.value_and_grad(lambda p: space.apply({}, dense_paths({"edges": p}), None))(p)
    np.testing.assert_allclose(loss, np.einsum("i,j,k,ijk", *p, TABLE), rtol=1e-5)
    np.testing.assert_allclose(slope[1], np.einsum("i,k,ijk->j", p[0], p[2], TABLE), rtol=1e-5)


def test_gates_of_sparse_and_probed_paths():
    index, weight = jnp.array([[0, 2], [1, 1]]), jnp.array([[0.5, 2.0], [1.0, 3.0]])
    np.testing.assert_array_equal(gates(Paths(index, weight), 3), [[0.5, 0.0, 2.0], [0.0, 4.0, 0.0]])
    probed = Paths(index, weight, Paths(jnp.array([[1], [2]]), jnp.full((2, 1), 7.0)))
    np.testing.assert_array_equal(gates(probed, 3), gates(Paths(index, weight), 3))


def test_probes_of_a_table_ask_for_neighbours():
    # At an architecture, the gate gradient of operation j on edge e is the loss with j in place of the choice.
    space, arch = table_space(TABLE), (2, 0, 1)
    index = {"edges": jnp.array(arch)[:, None]}

    def loss(weight):
        paths = Paths(index, {"edges": jnp.ones((3, 1))}, dense_paths({"edges": weight}))
        return space.apply({}, paths, None)

    slope = jax.grad(loss)(jnp.zeros((3, 3)))
    np.testing.assert_allclose(slope, [TABLE[:, 0, 1], TABLE[2, :, 1], TABLE[2, 0, :]], rtol=1e-6)


def test_quadratic_on_the_vertices_and_its_exact_gradient():
    space = quadratic_space(MATRIX, LINEAR)
    loss = jax.jit(lambda k: space.apply({}, sparse_paths({"edges": k[None]}), None))
    values = np.array([loss(jnp.array(k)) for k in range(4)])
    np.testing.assert_allclose(values, [1.1363215, 0.40452134, 1.0460141, 4.26264424], rtol=1e-6)
    p = np.asarray(jax.nn.softmax(jnp.array([0.3, -0.7, 1.1, 0.0])))
    exact = [-0.0982581, -0.09826052, -0.26504839, 0.46156702]
    np.testing.assert_allclose(p * (values - p @ values), exact, rtol=1e-5)


def test_quadratic_of_two_edges_sees_both():
    matrix = np.arange(16.0).reshape(4, 4)
    space = quadratic_space(matrix, np.zeros(4), num_edges=2)
    arch = {"edges": jnp.array([1, 0])}
    assert space.choices["edges"].shape == (2, 2)
    assert space.apply({}, sparse_paths(arch), None) == matrix[np.ix_([1, 2], [1, 2])].sum()


def test_function_space_with_weights():
    params = {"w": np.array([1.0, 2.0], np.float32)}
    space = function_space(lambda params, g: jnp.sum((params["w"] - g[:, 0]) ** 2), 2, 3, params=params)
    params = space.init(jax.random.key(0), None)
    paths = dense_paths({"edges": jnp.full((2, 3), 0.5)})
    slope = jax.grad(lambda params: space.apply(params, paths, None))(params)
    np.testing.assert_allclose(slope["w"], [1.0, 3.0])
    assert jax.tree.leaves(space.used(params, paths)) == [True]


@pytest.mark.parametrize("space", [table_space(TABLE), quadratic_space(MATRIX, LINEAR)], ids=["table", "quadratic"])
def test_toys_describe_themselves(space):
    scores = jax.tree.map(lambda c: -jnp.arange(np.prod(c.shape), dtype=c.dtype).reshape(c.shape), space.choices)
    arch = space.derive(scores)
    assert not np.any(arch["edges"])
    assert np.array_equal(space.about.parse(space.about.genotype(arch))["edges"], arch["edges"])
    build = {"table": table_space, "quadratic": quadratic_space}[space.about.name]
    again = build(**space.about.config)
    assert again.apply({}, sparse_paths(arch), None) == space.apply({}, sparse_paths(arch), None)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: table_space(np.zeros((2, 3))), r"axes of one length of at least two, got shape \(2, 3\)"),
        (lambda: table_space(np.zeros((1, 1))), "at least two"),
        (lambda: table_space(3.0), r"got shape \(\)"),
        (lambda: quadratic_space(np.eye(3), np.zeros(4)), "matrix and linear must have shapes"),
        (lambda: quadratic_space(np.eye(4), np.zeros(4), 3), "with E=3"),
        (lambda: function_space(lambda params, g: 0.0, 0, 3), "got 0 and 3"),
        (lambda: chain_space({"skip": jnp.tanh}, 3), r"ops: need two or more, got \['skip'\]"),
        (lambda: chain_space([jnp.tanh, jnp.sin], 0), "length must be at least 1, got 0"),
        (lambda: chain_space([jnp.tanh, 3.0], 2), "or a function without parameters, got float"),
        (lambda: chain_space([jnp.tanh, nn.Dense], 2), "got type"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# One dense layer, `tanh(x W + b)`, as users of four libraries write it.


def plain_arrays():
    def init(key, x):
        return {"w": jax.random.normal(key, (x.shape[-1], x.shape[-1])) / 2, "b": jnp.zeros(x.shape[-1])}

    def apply(params, x, *, key=None):
        return jnp.tanh(x @ params["w"] + params["b"][None])

    return Op(init, apply)


def linen():
    return nn.Sequential([nn.Dense(4), nn.tanh])


def nnx_module():
    def init(key, x):
        return nnx.state(nnx.Linear(x.shape[-1], x.shape[-1], rngs=nnx.Rngs(key)))

    def apply(params, x, *, key=None):
        graph = nnx.graphdef(nnx.eval_shape(lambda: nnx.Linear(x.shape[-1], x.shape[-1], rngs=nnx.Rngs(0))))
        return jnp.tanh(nnx.merge(graph, params)(x))

    return Op(init, apply)


@jax.tree_util.register_pytree_node_class
class Layer:
    """A module that is a tree of its arrays, as those of Equinox are."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def __call__(self, x):
        return jnp.tanh(x @ self.w + self.b[None])

    def tree_flatten(self):
        return (self.w, self.b), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def tree_module():
    def init(key, x):
        return Layer(jax.random.normal(key, (x.shape[-1], x.shape[-1])) / 2, jnp.zeros(x.shape[-1]))

    return Op(init, lambda layer, x, *, key=None: layer(x))


MAKERS = (plain_arrays, linen, nnx_module, tree_module)


@pytest.fixture(scope="module")
def mixed():
    """A chain whose four dense layers come from four libraries, beside two plain functions."""
    ops = {make.__name__: make() for make in MAKERS} | {"skip": lambda x: x, "sin": jnp.sin}
    space = chain_space(ops, 5, stem=nn.Dense(4), head=nn.Dense(3))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)), jnp.float32)
    return space, jax.jit(space.init)(jax.random.key(0), x), x


def _graded(space):
    def loss(params, paths, x):
        logits = space.apply(params, paths, x)
        return jnp.sum(logits**2), logits

    return jax.jit(jax.grad(loss, has_aux=True))


def test_operations_of_every_library_run_dense_and_sparse(mixed):
    space, params, x = mixed
    graded = _graded(space)
    for genotype in (["plain_arrays", "linen", "nnx_module", "tree_module", "skip"], ["sin", *["tree_module"] * 4]):
        arch = space.about.parse(genotype)
        (dense, logits), (sparse, logits_sparse) = (
            graded(params, paths, x) for paths in (one_hot_paths(space.choices, arch), sparse_paths(arch))
        )
        assert logits.shape == (6, 3)
        np.testing.assert_allclose(logits_sparse, logits, rtol=1e-5)
        for one, other in zip(jax.tree.leaves(sparse), jax.tree.leaves(dense), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        network = space.about.network(arch)
        np.testing.assert_allclose(network.apply(network.inherit(params), x)[0], logits, rtol=1e-5)
        for i, name in enumerate(genotype):  # each place moves its own weights, and no others
            for other in space.about.operations["chain"]:
                moved = [bool(np.any(leaf[i])) for leaf in jax.tree.leaves(sparse["blocks"][other])]
                assert all(moved) if other == name else not any(moved)


@pytest.mark.parametrize("make", MAKERS)
def test_one_library_alone_computes_its_own_layer(make):
    space = chain_space([make(), lambda x: x], 2)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((3, 4)), jnp.float32)
    params = space.init(jax.random.key(1), x)
    y = space.apply(params, sparse_paths({"chain": jnp.array([0, 1])}), x)
    w, b = sorted((leaf[0] for leaf in jax.tree.leaves(params["blocks"]["op0"])), key=lambda leaf: -leaf.ndim)
    np.testing.assert_allclose(y, np.tanh(x @ w + b[None]), rtol=1e-5)


def test_a_module_with_weights_is_no_function():
    for module in (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), Layer(jnp.ones((2, 2)), jnp.zeros(2))):
        with pytest.raises(ValueError, match=r"must be Op\(init, apply\), a Linen module or a function"):
            as_op(module)


def test_scan_equals_the_places_written_out(mixed):
    space, params, x = mixed
    ops = {make.__name__: make() for make in MAKERS} | {"skip": lambda x: x, "sin": jnp.sin}
    plain = chain_space(ops, 5, stem=nn.Dense(4), head=nn.Dense(3), scanned=False)
    weight = jnp.asarray(np.random.default_rng(2).random((5, 6)), jnp.float32)
    paths = dense_paths({"chain": weight})
    np.testing.assert_allclose(plain.apply(params, paths, x), space.apply(params, paths, x), rtol=1e-5)


def test_shape_changes_are_refused():
    with pytest.raises(ValueError, match=r"ops: wide turns float32\[3, 4\] into float32\[3, 5\]"):
        chain_space({"wide": nn.Dense(5), "skip": lambda x: x}, 2).init(jax.random.key(0), jnp.ones((3, 4)))


def test_every_place_has_a_key_of_its_own():
    noise = Op(lambda key, x: {}, lambda params, x, *, key=None: x if key is None else jax.random.normal(key, x.shape))
    space = chain_space({"noise": noise, "skip": lambda x: x}, 3)
    x, key = jnp.zeros((2, 2)), jax.random.key(0)
    params = space.init(key, x)
    drawn = []
    for arch in ([0, 1, 1], [1, 0, 1], [1, 1, 0]):
        arch = {"chain": jnp.array(arch)}
        drawn.append(space.apply(params, sparse_paths(arch), x, key=key))
        assert np.array_equal(space.apply(params, one_hot_paths(space.choices, arch), x, key=key), drawn[-1])
        network = space.about.network(arch)
        assert np.array_equal(network.apply(network.init(key, x), x, key=key)[0], drawn[-1])
        assert not np.any(space.apply(params, sparse_paths(arch), x))
    assert len(np.unique(drawn)) == 3 * x.size


def test_used_names_the_places_that_ran(mixed):
    space, params, _ = mixed
    arch = space.about.parse(["linen", "skip", "linen", "sin", "nnx_module"])
    for paths in (sparse_paths(arch), one_hot_paths(space.choices, arch)):
        used = space.used(params, paths)
        assert all(np.all(leaf) for leaf in jax.tree.leaves((used["stem"], used["head"])))
        expected = {"linen": [1, 0, 1, 0, 0], "nnx_module": [0, 0, 0, 0, 1], "plain_arrays": [0] * 5}
        for name, places in expected.items():
            for leaf in jax.tree.leaves(used["blocks"][name]):
                assert leaf.ravel().tolist() == list(map(bool, places))
        jax.tree.map(lambda mask, leaf: np.broadcast_to(mask, leaf.shape), used, params)


def test_chain_describes_itself(mixed):
    space, *_ = mixed
    arch = {"chain": jnp.array([1, 4, 5, 0, 3])}
    assert space.about.genotype(arch) == ["linen", "skip", "sin", "plain_arrays", "tree_module"]
    assert np.array_equal(space.about.parse(space.about.genotype(arch))["chain"], arch["chain"])
    assert space.about.size == 6**5
    table = space.about.costs((2,))["parameters"]
    assert table.table["chain"].tolist() == [[20, 20, 20, 20, 0, 0]] * 5
    assert table.fixed == (2 * 4 + 4) + (4 * 3 + 3)
    with pytest.raises(ValueError, match=r"unknown operations \['relu'\], accepted are plain_arrays, linen"):
        space.about.parse(["relu"] * 5)
    with pytest.raises(ValueError, match=r"expected integers of shape \(5,\)"):
        space.about.parse(["linen"] * 4)
