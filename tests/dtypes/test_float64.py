"""Gradients in float64 against finite differences, the two lowerings against each other, and the whole way in float64.

With central differences of step 1e-5 both errors, of the formula and of rounding, lie near 1e-10, so 1e-8 is a bound
that a wrong factor or a lost term cannot pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import Batch, Op, dense_paths
from jaxnas.dtypes import compute_dtype
from jaxnas.estimators import exact, pathwise
from jaxnas.ops import avg_pool, batch_last, conv, depthwise_conv, max_pool, normalise
from jaxnas.ops._mixture import mix_normalised
from jaxnas.ops.normalisation import standardise
from jaxnas.policies import categorical
from jaxnas.relaxations import annealed, softmax
from jaxnas.searchers import darts, proxyless, snas
from jaxnas.searchers.state import classification_loss
from jaxnas.spaces import chain_space, darts_space, gates, nasbench201_space, proxyless_space, snas_space
from jaxnas.spaces.nas_rl import nas_rl_space
from jaxnas.spaces.proxyless import proxyless_tree_space

HEAD = Op(
    lambda key, x: jax.random.normal(key, (x.shape[-1], 3), jnp.float32),
    lambda params, x, *, key=None: jnp.mean(x, (1, 2)) @ params,
)
SPACES = {
    "darts": functools.partial(darts_space, 2, 1, 3, nodes=2),
    "snas": functools.partial(snas_space, 2, 1, 3, nodes=1),
    "nasbench201": functools.partial(nasbench201_space, 2, 1, 3),
    "nas-rl": functools.partial(nas_rl_space, 2, 3, filters=(2, 3), kernels=(1, 3)),
    "nas-rl-strided": functools.partial(nas_rl_space, 2, 3, filters=(2, 3), kernels=(1, 3), strides=(1, 2)),
    "tree": functools.partial(proxyless_tree_space, 1, 1, stem_channels=4, alpha=4, num_classes=3),
    "proxyless": functools.partial(
        proxyless_space,
        (4,),
        (2,),
        (1,),
        stem_channels=4,
        stem_stride=1,
        first_channels=4,
        last_channels=4,
        num_classes=3,
        kernels=(3, 5),
        expansions=(2,),
    ),
    "chain": functools.partial(chain_space, {"tanh": jnp.tanh, "sin": jnp.sin, "cos": jnp.cos}, 3, head=HEAD),
}
HEAVY, SLOW = ("darts", "snas", "tree", "proxyless"), pytest.mark.slow


@pytest.fixture(autouse=True)
def _sixty_four_bits():
    with jax.enable_x64(True):
        yield


def normal(number, *shape):
    return np.random.default_rng(number).standard_normal(shape)


def assert_gradient(function, *args):
    """The gradient of `<function(*args), c>`, with a fixed `c`, along three directions, against central differences."""

    @jax.jit
    def value(*args):
        leaves = jax.tree.leaves(function(*args))
        return sum(jnp.sum(leaf * normal(90 + i, *leaf.shape)) for i, leaf in enumerate(leaves))

    grads = jax.jit(jax.grad(value, tuple(range(len(args)))))(*args)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {np.dtype(np.float64)}
    leaves, treedef = jax.tree.flatten(args)
    tolerance, step = 1e-8, 1e-5
    for number in range(3):
        way = [normal(100 + 10 * number + i, *leaf.shape) for i, leaf in enumerate(leaves)]
        ahead, back = (
            treedef.unflatten([leaf + sign * step * along for leaf, along in zip(leaves, way, strict=True)])
            for sign in (1, -1)
        )
        found = sum(jnp.sum(g * along) for g, along in zip(jax.tree.leaves(grads), way, strict=True))
        expected = (value(*ahead) - value(*back)) / (2 * step)
        assert abs(found - expected) <= tolerance * max(1.0, abs(expected))


# Operations

X = normal(0, 2, 6, 5, 3)
OPERATIONS = {
    "depthwise": (functools.partial(depthwise_conv, stride=1), X, normal(1, 3, 3, 3)),
    "depthwise, strided and dilated": (functools.partial(depthwise_conv, stride=2, dilation=2), X, normal(1, 5, 5, 3)),
    "convolution": (functools.partial(conv, stride=2), X, normal(1, 3, 3, 3, 2)),
    "maximum": (functools.partial(max_pool, stride=2), X),
    "average": (functools.partial(avg_pool, stride=2), X),
}
ALONE = {
    "normalisation": (standardise, X),
    "normalisation by given numbers": (normalise, X, normal(2, 3), 1 + normal(3, 3) ** 2),
    "mixture": (functools.partial(mix_normalised, 1e-5), normal(4, 2), (X, normal(5, *X.shape))),
    "batch-last normalisation": (batch_last.norm, X, normal(2, 2), normal(3, 2)),
    "batch-last convolution": (batch_last.conv, X, normal(1, 3, 3, 2, 4)),
}


@pytest.mark.parametrize("lowering", ["shifts", "lax"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_operations(name, lowering):
    function, *args = OPERATIONS[name]
    assert_gradient(functools.partial(function, lowering=lowering), *args)


@pytest.mark.parametrize("name", ALONE)
def test_gradients_of_operations_of_one_form(name):
    function, *args = ALONE[name]
    assert_gradient(function, *args)


# Spaces


def loss_on(space, params, paths):
    """Cross-entropy of a supernet, in nats."""
    return classification_loss(space)(paths, params, (IMAGES, LABELS))[0]


IMAGES = normal(6, 4, 8, 8, 1)
LABELS = np.array([0, 1, 2, 1])


def started(name, **settings):
    """A small space in float64, first weights, and logits that are not all equal."""
    space = SPACES[name](dtype="float64", **settings)
    params = jax.jit(space.init)(jax.random.key(3), IMAGES)
    return space, params, jax.tree.map(lambda choice: normal(7, *choice.shape), space.choices)


def mixture_loss(space):
    """`(params, logits) -> loss` of the mixture of all operations."""
    return lambda params, logits: loss_on(
        space, params, dense_paths(jax.tree.map(lambda leaf: softmax(None, leaf), logits))
    )


def test_gradients_of_a_whole_supernet():
    space, params, logits = started("chain")  # its operations are smooth
    assert_gradient(mixture_loss(space), params, logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "nasbench201", "proxyless", "tree"])
def test_gradients_by_hand_are_those_of_plain_operations_to_rounding(name):
    # The plain lowering has no gradients of its own: JAX's differentiation is the oracle.
    (space, params, logits), (plain, *_) = started(name), started(name, lowering="lax")
    found, expected = (jax.jit(jax.value_and_grad(mixture_loss(own), (0, 1)))(params, logits) for own in (space, plain))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "name", ["chain", "nasbench201", "nas-rl", "nas-rl-strided", *(pytest.param(name, marks=SLOW) for name in HEAVY)]
)
def test_weights_logits_and_outputs_are_float64_and_start_from_the_numbers_of_float32(name):
    space, params, _ = started(name)
    narrow = jax.jit(SPACES[name]().init)(jax.random.key(3), IMAGES.astype(np.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, space.choices))} <= {np.dtype(np.float64)}
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} <= {np.dtype(np.float32)}
    for wide, low in zip(jax.tree.leaves(params), jax.tree.leaves(narrow), strict=True):
        np.testing.assert_array_equal(wide, low.astype(np.float64))
    logits = categorical(space.choices).init(jax.random.key(0))
    images = IMAGES.astype(np.float32)  # as they come from the data
    out = jax.eval_shape(lambda p, a, x: space.apply(p, dense_paths(a), x), params, logits, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, out))} == {np.dtype(np.float64)}


@pytest.mark.parametrize("search", [darts, functools.partial(darts, order="second"), snas, proxyless])
def test_searches_in_a_space_of_float64_are_float64(search):
    space = SPACES["proxyless" if search is proxyless else "nasbench201"](dtype="float64")
    searcher = search(space)
    half = (IMAGES.astype(np.float32), LABELS.astype(np.int32))
    state = jax.eval_shape(searcher.init, jax.random.key(0), Batch(half, half))
    new, _ = jax.eval_shape(searcher.step, jax.random.key(0), state, Batch(half, half))
    assert jax.tree.map(lambda leaf: leaf.dtype, new) == jax.tree.map(lambda leaf: leaf.dtype, state)
    weights = jax.tree.leaves((new.params, new.policy_params))
    assert {leaf.dtype for leaf in weights} == {np.dtype(np.float64)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_float64_needs_64_bits(dtype):
    with jax.enable_x64(False):
        assert compute_dtype(dtype).name == dtype
        for name in SPACES:
            with pytest.raises(ValueError, match="dtype 'float64' needs 64-bit JAX: set JAX_ENABLE_X64=1"):
                SPACES[name](dtype="float64")
    with pytest.raises(ValueError, match="dtype must be 'float32', 'bfloat16' or 'float64', got 'float16'"):
        compute_dtype("float16")


# Estimators


def smooth_loss(paths, params):
    gate = gates(paths.select(lambda tree: tree["edges"]), 3)
    return jnp.sum(jnp.tanh(jnp.einsum("ek,ekd->d", gate, params)) ** 2), {}


def test_the_exact_gradient_is_the_slope_of_the_exact_value():
    choices = {"edges": jax.ShapeDtypeStruct((2, 3), jnp.float64)}
    estimator, params = exact(categorical(choices)), normal(8, 2, 3, 4)

    def value(logits):
        return estimator.estimate(jax.random.key(0), estimator.init(None, logits), logits, smooth_loss, params)[1]

    logits, way = normal(9, 2, 3), normal(10, 2, 3)
    found = jnp.sum(value({"edges": logits}).policy_grads["edges"] * way)
    ahead, back = (value({"edges": logits + sign * 1e-5 * way}).value for sign in (1, -1))
    assert abs(found - (ahead - back) / 2e-5) < 1e-9


def test_temperatures_beside_float64_are_not_rounded_to_float32():
    schedule = annealed(1.0, 0.03, epochs=7)
    estimator, params, logits = pathwise(softmax, schedule), normal(8, 2, 3, 4), {"edges": normal(9, 2, 3)}
    _, found = estimator.estimate(jax.random.key(0), estimator.init(None, logits), logits, smooth_loss, params)
    temperature = 0.03 + (1 - 1 / 7) * (1.0 - 0.03)
    assert abs(float(found.info["temperature"]) - temperature) < 1e-15
    np.testing.assert_allclose(found.paths.weight["edges"], jax.nn.softmax(logits["edges"] / temperature), rtol=1e-14)
