"""Estimators against exact values: enumeration, one-dimensional integrals, and identities of the Concrete distribution.

Statistical tests count standard errors; each also runs an estimator that is wrong on purpose and has to fail. The
constants of `BILINEAR` belong to a toy whose numbers were computed apart from this library.
"""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import enumerate_architectures
from jaxnas.base import Op, dense_paths
from jaxnas.estimators import exact, pathwise
from jaxnas.policies import categorical
from jaxnas.relaxations import concrete_log_prob, gumbel_softmax, softmax, straight_through
from jaxnas.spaces import function_space, quadratic_space, table_space
from jaxnas.spaces.parts import CellGraph, EdgeGroup, apply_cell, init_cell
from tests.estimators.toys import EXACT, KEY, LOGITS, QUADRATIC, z_max

HARD = straight_through(gumbel_softmax)
QUAD = categorical(QUADRATIC.choices)
BILINEAR = table_space(np.outer([1.0, -2.0, 0.5], [0.3, 0.7, -1.1]))
PAIR = np.array([[0.2, -0.4, 0.1], [0.0, 0.5, -0.3]], np.float32)


def estimate(estimator, space, logits, key=KEY, params=None):
    """One estimate of a space that returns its loss."""

    @jax.jit
    def run(key, logits, params):
        state = estimator.init(key, logits)
        return estimator.estimate(key, state, logits, lambda paths, p: (space.apply(p, paths, None), None), params)[1]

    return run(key, {"edges": jnp.asarray(logits)}, {} if params is None else params)


def draws(estimator, space, logits, count):
    """Policy gradients `[count, K]` of a space with one decision, and the weights of the paths."""

    @jax.jit
    @jax.vmap
    def draw(key):
        found = estimate(estimator, space, logits, key)
        return found.policy_grads["edges"][0], found.paths.weight["edges"][0]

    return [np.asarray(leaf, np.float64) for leaf in draw(jax.random.split(KEY, count))]


# Enumeration


def test_architectures_are_counted_with_the_last_decision_fastest():
    choices = {"a": jax.ShapeDtypeStruct((1, 2), jnp.float32), "b": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    archs = enumerate_architectures(choices)
    rows = np.concatenate([archs["a"], archs["b"]], -1)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows, list(itertools.product(range(2), range(3), range(3))))


@pytest.mark.parametrize("dense", [True, False])
def test_exact_gradient_of_the_toys(dense):
    found = estimate(exact(QUAD, dense=dense), QUADRATIC, LOGITS)
    np.testing.assert_allclose(found.policy_grads["edges"][0], EXACT, atol=1e-6)
    values = np.array([1.1363215, 0.40452134, 1.0460141, 4.26264424])
    np.testing.assert_allclose(found.value, jax.nn.softmax(LOGITS[0]) @ values, rtol=1e-6)
    found = estimate(exact(categorical(BILINEAR.choices), dense=dense), BILINEAR, PAIR)
    np.testing.assert_allclose(found.policy_grads["edges"][0], [0.06574408, -0.09045995, 0.02471588], atol=1e-6)


@pytest.mark.parametrize("dense", [True, False])
def test_exact_equals_27_terms_in_numpy(dense):
    rng = np.random.default_rng(0)
    logits, table = rng.normal(size=(3, 3)), rng.normal(size=(3, 3, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    value, grad, shares = 0.0, np.zeros((3, 3)), np.zeros((3, 3, 3))
    for arch in itertools.product(range(3), repeat=3):
        shares[arch] = np.prod(p[range(3), arch])
        value += shares[arch] * table[arch]
        grad += shares[arch] * table[arch] * (np.eye(3)[list(arch)] - p)

    space = function_space(lambda params, g: jnp.einsum("abc,a,b,c->", params, *g), 3, 3)
    oracle = exact(categorical(space.choices), dense=dense)
    found = estimate(oracle, space, logits.astype(np.float32), params=jnp.asarray(table, jnp.float32))
    np.testing.assert_allclose(found.value, value, rtol=1e-5)
    np.testing.assert_allclose(found.policy_grads["edges"], grad, atol=1e-6)
    np.testing.assert_allclose(found.weight_grads, shares, atol=1e-6)
    shifted = estimate(oracle, table_space(table + 3.0), logits.astype(np.float32))
    np.testing.assert_allclose(shifted.policy_grads["edges"], grad, atol=3e-6)


def test_exact_permutes_with_the_operations():
    order = np.array([2, 0, 3, 1])
    matrix, linear = (np.array(QUADRATIC.about.config[name]) for name in ("matrix", "linear"))
    permuted = quadratic_space(matrix[np.ix_(order, order)], linear[order])
    found = estimate(exact(QUAD), permuted, LOGITS[:, order])
    np.testing.assert_allclose(found.policy_grads["edges"][0], EXACT[order], atol=1e-6)


# The pathwise estimator, without noise


def test_mixture_is_exact_where_the_loss_is_linear_in_every_decision():
    for space, logits in ((BILINEAR, PAIR), (table_space(np.arange(8.0).reshape(2, 2, 2) ** 2), PAIR[:, :2])):
        logits = logits if space is BILINEAR else np.concatenate([logits, logits[:1]])
        mixture, truth = (estimate(e, space, logits) for e in (pathwise(softmax), exact(categorical(space.choices))))
        np.testing.assert_allclose(mixture.value, truth.value, rtol=1e-5)
        np.testing.assert_allclose(mixture.policy_grads["edges"], truth.policy_grads["edges"], atol=1e-5)
    biased = estimate(pathwise(softmax), QUADRATIC, LOGITS).policy_grads["edges"][0]
    assert np.abs(biased - EXACT).max() > 0.05


@pytest.mark.parametrize("relaxation", [gumbel_softmax, HARD], ids=["gumbel_softmax", "straight-through"])
def test_samples_are_averaged_and_weights_scale_the_operations_they_belong_to(relaxation):
    target, params = jnp.array([0.3, -1.0, 2.0]), jnp.array([1.0, 0.5, -0.5])
    space = function_space(lambda w, g: jnp.sum(jnp.sin(g[0]) * (w - target) ** 2), 1, 3)
    single = jax.vmap(lambda key: estimate(pathwise(relaxation, 0.6), space, PAIR[:1], key, params))
    singles = single(jax.random.split(KEY, 4))
    expected = np.sin(singles.paths.weight["edges"][:, 0]) * np.asarray(2 * (params - target))
    np.testing.assert_allclose(singles.weight_grads, expected, rtol=1e-5, atol=1e-7)
    together = estimate(pathwise(relaxation, 0.6, num_samples=4), space, PAIR[:1], KEY, params)
    for field in ("value", "policy_grads", "weight_grads"):
        mean = jax.tree.map(lambda leaf: leaf.mean(0), getattr(singles, field))
        chex.assert_trees_all_close(getattr(together, field), mean, rtol=1e-5, atol=1e-6)


def test_credits_of_the_edges_into_a_node_add_up():
    """`sum_i R_ij = <dL/dx_j, x_j>` with `R_ij = sum_k Z_ij^k dL/dZ_ij^k`, SNAS's additive credit."""
    dense = Op(lambda key, x: jax.random.normal(key, (x.shape[-1],) * 2), lambda p, x, *, key=None: jnp.tanh(x @ p))
    skip = Op(lambda key, x: {}, lambda p, x, *, key=None: x)
    edges = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    graph = CellGraph(edges, 1, {"all": EdgeGroup({"dense": dense, "skip": skip}, tuple(range(6)))})
    x = jax.random.normal(KEY, (5, 3))
    params = init_cell(KEY, graph, {"all": x})
    weight = gumbel_softmax(KEY, jnp.zeros((6, 2)), 0.5)

    def loss(node):
        return jnp.sum(jnp.tanh(node) ** 2)

    def last(weight):
        return apply_cell(graph, params, dense_paths(weight), [x])[-1]

    credit = jnp.sum(weight * jax.jit(jax.grad(lambda w: loss(last(w))))(weight), -1)
    node = last(weight)
    total = jnp.sum(jax.grad(loss)(node) * node)
    np.testing.assert_allclose(credit[3:].sum(), total, rtol=1e-5)
    assert abs(credit.sum() - total) > 0.1 * abs(total)  # edges into earlier nodes are no part of it


# The pathwise estimator, with noise


def integral(gradient_at, logits, temperature, hard):
    """Mean pathwise gradient of two operations: their weight is a sigmoid of logistic noise, integrated in numpy."""
    u = (np.arange(400_000) + 0.5) / 400_000
    level = logits[0] - logits[1] + np.log(u) - np.log1p(-u)
    z = 1 / (1 + np.exp(-level / temperature))
    at = (level > 0).astype(np.float64) if hard else z
    first, second = gradient_at(at, 1 - at)
    slope = np.mean((first - second) * z * (1 - z) / temperature)
    return np.array([slope, -slope])


@pytest.mark.statistical
@pytest.mark.parametrize("hard", [False, True], ids=["gumbel_softmax", "straight-through"])
def test_mean_of_two_operations_is_a_logistic_integral(hard):
    space = function_space(lambda params, g: jnp.sin(3 * g[0, 0]) + g[0, 0] ** 2 * g[0, 1], 1, 2)
    logits = np.array([[0.6, -0.4]], np.float32)

    def gradient_at(z, other):
        return 3 * np.cos(3 * z) + 2 * z * other, z**2

    expected = integral(gradient_at, logits[0], 0.7, hard)
    right, wrong = (HARD, gumbel_softmax) if hard else (gumbel_softmax, HARD)

    def z(relaxation, temperature):
        return z_max(draws(pathwise(relaxation, temperature), space, logits, 50_000)[0], expected)

    assert z(right, 0.7) < 4.5
    assert z(wrong, 0.7) > 10
    assert z(right, 2.0) > 10


BIASES = {  # mean minus exact gradient, and the variance summed over coordinates; 400,000 draws, standard error 1e-3
    (gumbel_softmax, 1.0): ([0.021, -0.050, 0.173, -0.145], 0.152),
    (gumbel_softmax, 0.5): ([0.000, -0.039, 0.108, -0.069], 0.610),
    (HARD, 1.0): ([0.011, -0.065, 0.187, -0.133], 0.362),
    (HARD, 0.5): ([-0.007, -0.046, 0.115, -0.062], 1.116),
}


@pytest.mark.statistical
def test_bias_and_variance_on_the_quadratic_toy():
    found = {case: draws(pathwise(*case), QUADRATIC, LOGITS, 200_000)[0] for case in BIASES}

    def fits(case, claimed):
        bias, variance = BIASES[claimed]
        error = np.sqrt(found[case].var(0) / len(found[case]) + 1e-3**2)
        near = np.abs((found[case].mean(0) - EXACT - bias) / error).max() < 4.5
        return near and abs(found[case].var(0).sum() / variance - 1) < 0.05

    for case, claimed in itertools.product(BIASES, BIASES):
        assert fits(case, claimed) == (case == claimed), (case, claimed)
    assert z_max(found[gumbel_softmax, 0.5], EXACT) > 20  # judged as an estimator of the discrete objective


def credits(loss, temperature):
    """Per draw: pathwise gradient, score times loss, and score times credit, of SNAS's equations 6 and 7."""
    space = function_space(lambda params, g: loss(g[0]), 1, 4)
    grads, z = draws(pathwise(gumbel_softmax, temperature), space, LOGITS, 200_000)
    z = jnp.asarray(z, jnp.float32)
    rows = jnp.broadcast_to(jnp.asarray(LOGITS), z.shape)
    score = jax.jit(jax.grad(lambda rows: concrete_log_prob(rows, temperature, jnp.log(z)).sum()))(rows)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(loss)))(z)
    by_loss, by_credit = score * value[:, None], score * jnp.sum(slope * z, -1)[:, None]
    return grads, np.asarray(by_loss, np.float64), np.asarray(by_credit, np.float64)


@pytest.mark.statistical
def test_credit_is_the_pathwise_gradient_of_linear_losses_only():
    grads, by_loss, by_credit = credits(lambda z: z @ jnp.array([1.0, 0.5, -1.0, 2.0]), 0.7)
    assert z_max(grads - by_credit) < 4.5
    np.testing.assert_allclose(by_credit, by_loss, atol=1e-4)
    outputs = jnp.array([[0.5, -1.0], [1.5, 0.3], [-0.7, 0.9], [0.2, 2.0]])
    grads, by_loss, by_credit = credits(lambda z: jnp.sum(jnp.tanh(z @ outputs) ** 2), 0.7)
    assert z_max(grads - by_loss) < 4.5  # the same objective as a score function over the Concrete distribution
    assert z_max(grads - by_credit) > 10
    assert grads.var(0).sum() < by_loss.var(0).sum() / 5
