"""The primitive under every space: dense and sparse agree, probes cost nothing forward, a sparse choice is small."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas.base import Op, Paths, dense_paths, sparse_paths
from jaxnas.ops import Style, conv, depthwise_conv
from jaxnas.spaces import chain_space
from jaxnas.spaces.parts import mixed_op

STYLE = Style(lowering="lax")


def _dense(activation):
    def init(key, x):
        return {"w": jax.random.normal(key, (x.shape[-1], x.shape[-1]), x.dtype)}

    return Op(init, lambda params, x, *, key=None: activation(x @ params["w"]))


def _noisy(params, x, *, key=None):
    return x if key is None else x * jax.random.bernoulli(key, 0.5, x.shape)


OPS = (
    _dense(jnp.tanh),
    Op(lambda key, x: {}, lambda params, x, *, key=None: x**2),
    Op(lambda key, x: {"s": jnp.ones(()), "t": jnp.ones(3)}, lambda p, x, *, key=None: p["s"] * x + p["t"][None]),
    _dense(jnp.sin),
    Op(lambda key, x: {}, _noisy),
)
K = len(OPS)


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)


@pytest.fixture(scope="module")
def params(x):
    return tuple(op.init(key, x) for op, key in zip(OPS, jax.random.split(jax.random.key(1), K), strict=True))


def _loss(y):
    return jnp.sum(jnp.cos(y) * y)


def _run(paths, params, x, key=None):
    """Output and gradients with respect to the weights of the paths, the parameters and the input."""

    def fn(weight, params, x):
        y = mixed_op(OPS, params, Paths(paths.index, weight, paths.probe), x, key=key)
        return _loss(y), y

    grads, y = jax.grad(fn, (0, 1, 2), has_aux=True)(paths.weight, params, x)
    return y, *grads


dense_and_sparse = jax.jit(_run)


@pytest.mark.parametrize("k", range(K))
def test_sparse_equals_dense(k, params, x):
    index = jnp.array([k], jnp.int32)
    one_hot = jnp.zeros(K).at[k].set(0.7)
    y, gate, *grads = dense_and_sparse(dense_paths(one_hot), params, x)
    y_sparse, gate_sparse, *grads_sparse = dense_and_sparse(Paths(index, jnp.array([0.7])), params, x)
    np.testing.assert_allclose(y_sparse, y, rtol=1e-6)
    np.testing.assert_allclose(gate_sparse[0], gate[k], rtol=1e-5)
    chex.assert_trees_all_close(grads_sparse, grads, rtol=1e-5, atol=1e-6)
    others = [leaf for j, own in enumerate(grads_sparse[0]) if j != k for leaf in jax.tree.leaves(own)]
    assert not any(np.any(leaf) for leaf in others)


def test_two_sparse_paths_equal_their_dense_form(params, x):
    weight = jnp.array([0.3, -1.2])
    for pair in ([0, 3], [2, 1]):
        index = jnp.array(pair, jnp.int32)
        y, gate, *grads = dense_and_sparse(dense_paths(jnp.zeros(K).at[index].set(weight)), params, x)
        y_two, gate_two, *grads_two = dense_and_sparse(Paths(index, weight), params, x)
        np.testing.assert_allclose(y_two, y, rtol=1e-5)
        np.testing.assert_allclose(gate_two, gate[index], rtol=1e-5)
        chex.assert_trees_all_close(grads_two, grads, rtol=1e-4, atol=1e-5)


def test_gates_are_inner_products_with_the_outputs(params, x):
    weight = jnp.linspace(-0.5, 0.5, K)
    y, gate, _, _ = dense_and_sparse(dense_paths(weight), params, x)
    g = jax.grad(_loss)(y)
    outputs = [op.apply(own, x) for op, own in zip(OPS, params, strict=True)]
    np.testing.assert_allclose(y, sum(w * o for w, o in zip(weight, outputs, strict=True)), rtol=1e-5)
    np.testing.assert_allclose(gate, [jnp.vdot(g, o) for o in outputs], rtol=1e-4)


def _probe_grads(paths, params, x):
    def fn(weight):
        probe = Paths(paths.probe.index, weight)
        return _loss(mixed_op(OPS, params, paths._replace(probe=probe), x))

    return jax.grad(fn)(paths.probe.weight)


@pytest.mark.parametrize("asked", [None, [2], [4, 0, 1]])
@pytest.mark.parametrize("sparse", [True, False])
def test_probe_receives_gate_gradients(sparse, asked, params, x):
    paths = Paths(jnp.array([3]), jnp.ones(1)) if sparse else dense_paths(jnp.linspace(-0.5, 0.5, K))
    index = None if asked is None else jnp.array(asked, jnp.int32)
    probed = paths._replace(probe=Paths(index, jnp.zeros(K if asked is None else len(asked))))
    plain, asking = dense_and_sparse(paths, params, x), dense_and_sparse(probed, params, x)
    chex.assert_trees_all_close(plain, asking, rtol=1e-6)  # neither the value nor any other gradient moves
    g = jax.grad(_loss)(plain[0])
    wanted = [jnp.vdot(g, OPS[j].apply(params[j], x)) for j in (range(K) if asked is None else asked)]
    np.testing.assert_allclose(jax.jit(_probe_grads)(probed, params, x), wanted, rtol=1e-4)


def test_probe_is_zero_in_value_whatever_its_weights(params, x):
    paths = sparse_paths(jnp.array(0))
    probed = paths._replace(probe=dense_paths(jnp.full(K, 3.0)))
    assert np.array_equal(mixed_op(OPS, params, probed, x), mixed_op(OPS, params, paths, x))


def test_probe_costs_nothing_forward(params, x):
    def flops(probe):
        forward = jax.jit(lambda index, params, x: mixed_op(OPS, params, Paths(index, jnp.ones(1), probe), x))
        return forward.lower(jnp.array([0]), params, x).compile().cost_analysis()["flops"]

    assert flops(dense_paths(jnp.zeros(K))) == flops(None)


def test_sparse_choice_can_be_differentiated_twice(params, x):
    def energy(paths):
        return lambda x: jnp.sum(jax.grad(lambda x: _loss(mixed_op(OPS, params, paths, x)))(x) ** 2)

    twice = jax.jit(lambda paths, x: jax.grad(energy(paths))(x))
    for k in (0, 1):
        dense, sparse = twice(dense_paths(jax.nn.one_hot(k, K)), x), twice(Paths(jnp.array([k]), jnp.ones(1)), x)
        assert np.abs(dense).max() > 0.1
        np.testing.assert_allclose(sparse, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparse", [True, False])
def test_bfloat16_stays_and_gates_keep_their_dtype(sparse, params, x):
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, x))
    paths = Paths(jnp.array([3]), jnp.ones(1)) if sparse else dense_paths(jax.nn.one_hot(3, K))
    probed = paths._replace(probe=dense_paths(jnp.zeros(K)))
    y, gate, dparams, dx = dense_and_sparse(probed, params, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((y, dparams, dx))} == {jnp.dtype(jnp.bfloat16)}
    assert gate.dtype == _probe_grads(probed, params, x).dtype == jnp.float32
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, x))
    np.testing.assert_allclose(y.astype(jnp.float32), dense_and_sparse(paths, *wide)[0], rtol=0.05, atol=0.05)


def test_key_reaches_the_operation_and_its_gradient(params, x):
    key = jax.random.key(4)
    dense, sparse = dense_paths(jax.nn.one_hot(4, K)), Paths(jnp.array([4]), jnp.ones(1))
    mask = np.asarray(jax.random.bernoulli(key, 0.5, x.shape))
    for paths in (dense, sparse):
        y, _, _, dx = dense_and_sparse(paths, params, x, key)
        assert np.array_equal(y, x * mask)
        np.testing.assert_allclose(dx, jax.grad(_loss)(y) * mask, rtol=1e-6)
        assert np.array_equal(dense_and_sparse(paths, params, x)[0], x)


def test_one_trace_serves_every_index(params, x):
    traced = jax.jit(chex.assert_max_traces(lambda index, x: mixed_op(OPS, params, sparse_paths(index), x), n=1))
    outputs = [traced(jnp.array(k, jnp.int32), x) for k in range(K)]
    for k, y in enumerate(outputs):
        np.testing.assert_allclose(y, OPS[k].apply(params[k], x), rtol=1e-6)


def test_misfits_are_refused(params, x):
    with pytest.raises(ValueError, match="at least two operations with one params each, got 1, 1"):
        mixed_op(OPS[:1], params[:1], dense_paths(jnp.ones(1)), x)
    with pytest.raises(ValueError, match="got 5, 4"):
        mixed_op(OPS, params[:4], dense_paths(jnp.ones(K)), x)
    with pytest.raises(ValueError, match=r"paths.weight must have shape \(5,\), got \(3,\)"):
        mixed_op(OPS, params, dense_paths(jnp.ones(3)), x)


class MBConv(nn.Module):
    """Inverted bottleneck with a shortcut."""

    kernel: int
    expand: int

    @nn.compact
    def __call__(self, x):
        features, wide = x.shape[-1], self.expand * x.shape[-1]
        init = nn.initializers.normal(0.1)
        y = conv(x, self.param("expand_kernel", init, (1, 1, features, wide)), lowering="lax")
        y = jax.nn.relu(STYLE.norm("norm1")(y))
        y = depthwise_conv(y, self.param("depthwise", init, (self.kernel, self.kernel, wide)), lowering="lax")
        y = jax.nn.relu(STYLE.norm("norm2")(y))
        return x + STYLE.norm("norm3")(conv(y, self.param("project", init, (1, 1, wide, features)), lowering="lax"))


def _training_memory():
    """Temporaries in bytes of one training step of an eight-block chain, in five forms."""
    ops = {"k3e3": MBConv(3, 3), "k3e6": MBConv(3, 6), "k5e6": MBConv(5, 6)}
    space = chain_space(ops, 8)
    x = jax.ShapeDtypeStruct((8, 16, 16, 8), jnp.float32)
    params = jax.eval_shape(space.init, jax.random.key(0), x)
    index, weight = (jax.ShapeDtypeStruct((8, len(ops)), dtype) for dtype in (jnp.int32, jnp.float32))
    index = jax.ShapeDtypeStruct((8,), jnp.int32)

    def block(x, own):
        return ops["k5e6"].apply({"params": own}, x), None

    def child(params, index, x):
        del index
        return lax.scan(block, x, params["blocks"]["k5e6"])[0]

    def recomputing(params, index, x):
        del index
        return lax.scan(jax.checkpoint(block), x, params["blocks"]["k5e6"])[0]

    def switch(params, index, x):
        branches = [lambda own, x, n=n, op=op: op.apply({"params": own[n]}, x) for n, op in ops.items()]
        return lax.scan(lambda x, row: (lax.switch(row[1], branches, row[0], x), None), x, (params["blocks"], index))[0]

    forms = {
        "mixture": (lambda params, w, x: space.apply(params, dense_paths({"chain": w}), x), weight),
        "switch": (switch, index),
        "child": (child, index),
        "recomputing": (recomputing, index),
        "sparse": (lambda params, index, x: space.apply(params, sparse_paths({"chain": index}), x), index),
    }
    memory = {}
    for name, (fn, choice) in forms.items():
        step = jax.jit(jax.grad(lambda params, choice, x, fn=fn: jnp.sum(fn(params, choice, x) ** 2)))
        memory[name] = step.lower(params, choice, x).compile().memory_analysis().temp_size_in_bytes
    return memory


def test_sparse_choice_needs_less_memory_than_the_plain_child():
    memory = _training_memory()
    assert 10 * memory["sparse"] < memory["mixture"], memory
    assert 5 * memory["sparse"] < memory["switch"], memory
    assert memory["sparse"] <= memory["child"], memory
    assert memory["sparse"] <= 1.5 * memory["recomputing"], memory
