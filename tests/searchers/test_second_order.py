"""The second-order gradient of DARTS against analysis and a loop in numpy, and its finite difference against it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Batch, dense_paths
from jaxnas.searchers import InnerStep, classification_loss, darts, momentum_of, sgd_l2, unrolled_gradient
from jaxnas.spaces import darts_space, function_space

KEY = jax.random.key(5)
METHODS = ("exact", "finite_difference")
RNG = np.random.default_rng(1)
MIX, TARGET, COST, WEIGHTS, BUFFER = (RNG.normal(size=shape) for shape in ((4, 3), 4, 3, 4, 4))
ALPHA = np.array([0.3, -0.5, 0.2])


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# A quadratic: the training loss is |w - B a|^2 / 2 and the validation loss |w - c|^2 / 2, which does not see a


def train_loss(alpha, w):
    return 0.5 * jnp.sum((w - jnp.asarray(MIX, w.dtype) @ alpha) ** 2)


def val_loss(alpha, w):
    del alpha
    return 0.5 * jnp.sum((w - jnp.asarray(TARGET, w.dtype)) ** 2)


def quadratic_gradient(method, momentum=0.9, weight_decay=0.5, rate=0.1):
    alpha, w, buffer = (jnp.asarray(leaf, jnp.float32) for leaf in (ALPHA, WEIGHTS, BUFFER))
    inner = InnerStep(rate, momentum, weight_decay, buffer)
    run = functools.partial(unrolled_gradient, val_loss, train_loss, method=method)
    return jax.jit(lambda alpha, w: run(inner, alpha, w))(alpha, w)


@pytest.mark.parametrize("method", METHODS)
def test_quadratic_has_its_analytic_gradient(method):
    moved = WEIGHTS - 0.1 * (0.9 * BUFFER + (WEIGHTS - MIX @ ALPHA) + 0.5 * WEIGHTS)
    expected = 0.1 * MIX.T @ (moved - TARGET)
    value, grad = quadratic_gradient(method)
    close(value, 0.5 * np.sum((moved - TARGET) ** 2))
    close(grad, expected, 1e-4 if method == "finite_difference" else 1e-6)
    for forgotten in ({"momentum": 0.0}, {"weight_decay": 0.0}, {"rate": 0.09}):
        assert np.abs(quadratic_gradient(method, **forgotten)[1] - expected).max() > 1e-3


def test_first_order_sees_nothing_of_the_quadratic():
    grad = jax.grad(val_loss)(jnp.asarray(ALPHA, jnp.float32), jnp.asarray(WEIGHTS, jnp.float32))
    np.testing.assert_array_equal(grad, 0.0)
    for method in METHODS:
        np.testing.assert_allclose(quadratic_gradient(method, rate=0.0)[1], 0.0, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_gradient_is_finite_where_the_validation_loss_is_flat(method):
    inner = InnerStep(0.1, 0.0, 0.0, jnp.zeros(4))
    flat = lambda alpha, w: jnp.sum(alpha) + 0.0 * jnp.sum(w)  # noqa: E731
    _, grad = unrolled_gradient(flat, train_loss, inner, jnp.asarray(ALPHA), jnp.asarray(WEIGHTS), method=method)
    np.testing.assert_array_equal(grad, 1.0)


def test_method_and_order_are_checked():
    with pytest.raises(ValueError, match="'exact' or 'finite_difference', got 'forward'"):
        unrolled_gradient(val_loss, train_loss, InnerStep(0.1, 0.9, 0.0, None), None, None, method="forward")
    with pytest.raises(ValueError, match="order must be 'first', 'second' or 'finite_difference', got 'third'"):
        darts(SPACE, order="third")


def test_momentum_is_read_from_the_optimiser():
    params = {"w": jnp.array([1.0, -2.0])}
    tx = sgd_l2(0.1, momentum=0.9, weight_decay=0.5)
    state = tx.init(params)
    close(momentum_of(state, params)["w"], 0.0)
    _, state = tx.update({"w": jnp.array([0.25, 0.5])}, state, params)
    close(momentum_of(state, params)["w"], [0.75, -0.5])
    close(momentum_of(optax.sgd(0.1).init(params), params)["w"], 0.0)


# The whole step of DARTS against a loop in numpy; the batch says which of the two losses is asked for

TRAIN, VALIDATION = (jnp.zeros(()),), (jnp.ones(()),)
BOTH = Batch(TRAIN, VALIDATION)
SPACE = function_space(lambda params, gates: jnp.sum(gates), 1, 3, params=jnp.asarray(WEIGHTS, jnp.float32))


def search_loss(paths, w, data, key):
    """`|w - B p|^2 / 2` in training and `|w - c|^2 / 2 + d p` in validation."""
    del key
    p = paths.weight["edges"][0]
    value = jnp.where(data[0] == 0, train_loss(p, w), val_loss(p, w) + jnp.asarray(COST, w.dtype) @ p)
    return value, {"accuracy": jnp.zeros(())}


def rate_at(step):
    return 0.1 / (1 + step)


def darts_by_hand(order, alpha, steps):
    w, buffer, m, v = WEIGHTS.copy(), np.zeros(4), np.zeros(3), np.zeros(3)
    for step in range(steps):
        p = np.exp(alpha) / np.exp(alpha).sum()
        jacobian, rate = np.diag(p) - np.outer(p, p), rate_at(step)
        grad = jacobian @ COST
        if order != "first":
            moved = w - rate * (0.9 * buffer + (w - MIX @ p) + 3e-4 * w)
            grad = grad + jacobian @ (rate * MIX.T @ (moved - TARGET))
        grad = grad + 0.01 * alpha  # coupled: before the moments
        m, v = 0.5 * m + 0.5 * grad, 0.999 * v + 0.001 * grad**2
        alpha = alpha - 0.05 * (m / (1 - 0.5 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
        p = np.exp(alpha) / np.exp(alpha).sum()  # the weights train under the new policy
        grad = w - MIX @ p
        grad = grad * min(1.0, 0.5 / np.linalg.norm(grad))
        buffer = 0.9 * buffer + grad + 3e-4 * w
        w = w - rate * buffer
    return alpha, w


@functools.cache
def darts_by_jaxnas(order, steps=5, rate=rate_at):
    policy = {"policy_learning_rate": 0.05, "policy_weight_decay": 0.01}
    searcher = darts(SPACE, learning_rate=rate, clip=0.5, order=order, loss=search_loss, **policy)
    state = searcher.init(KEY, BOTH)
    first = np.asarray(state.policy_params["edges"][0], np.float64)
    state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: searcher.step(KEY, s, BOTH), s, length=steps))(state)
    return first, state.policy_params["edges"][0], state.params


@pytest.mark.parametrize("order", ["first", "second", "finite_difference"])
def test_five_steps_equal_a_loop_in_numpy(order):
    first, alpha, w = darts_by_jaxnas(order)
    expected_alpha, expected_w = darts_by_hand(order, first, 5)
    close(alpha, expected_alpha, 2e-3 if order == "finite_difference" else 2e-5)
    close(w, expected_w, 1e-4)
    other, _ = darts_by_hand("second" if order == "first" else "first", first, 5)
    assert np.abs(alpha - other).max() > 1e-2


@pytest.mark.parametrize("order", ["second", "finite_difference"])
def test_zero_learning_rate_reduces_to_first_order(order):
    for found, expected in zip(darts_by_jaxnas(order, rate=0.0), darts_by_jaxnas("first", rate=0.0)):
        close(found, expected, 1e-6)


@pytest.mark.slow
def test_finite_difference_tends_to_the_exact_gradient_of_a_network():
    """At the paper's radius a network of this size crosses kinks of its ReLUs; they leave as the radius shrinks."""
    operations = ("none", "skip_connect", "dil_conv_3x3")
    space = darts_space(4, 1, 3, nodes=2, stem_multiplier=1, operations=operations)
    x, labels = jax.random.normal(KEY, (2, 8, 8, 8, 3)), jax.random.randint(KEY, (2, 8), 0, 3)
    params = jax.jit(space.init)(KEY, x[0])
    logits = jax.tree.map(lambda c: 0.1 * jax.random.normal(KEY, c.shape), space.choices)
    inner = InnerStep(0.05, 0.9, 3e-4, jax.tree.map(lambda leaf: 0.1 * leaf, params))

    def on(half):
        def loss(logits, params):
            paths = dense_paths(jax.tree.map(jax.nn.softmax, logits))
            return classification_loss(space)(paths, params, (x[half], labels[half]), None)[0]

        return loss

    @jax.jit
    def gradients(logits, params, radii):
        rest = (on(0), on(1), inner, logits, params)
        moved = inner(params, jax.grad(on(1), 1)(logits, params))
        direct = jax.grad(on(0))(logits, moved)
        exact = unrolled_gradient(*rest)[1]
        near = jax.lax.map(lambda r: unrolled_gradient(*rest, method="finite_difference", radius=r)[1], radii)
        return direct, exact, near

    direct, exact, near = gradients(logits, params, jnp.array([0.01, 0.001]))

    def distance(a, b):
        return float(optax.tree.norm(jax.tree.map(lambda x, y: x - y, a, b)))

    paper, small = (distance(jax.tree.map(lambda leaf, i=i: leaf[i], near), exact) for i in (0, 1))
    mixed = distance(direct, exact)
    assert mixed > 0.01 * optax.tree.norm(direct)
    assert paper < 0.05 * optax.tree.norm(exact)
    assert small < 0.01 * mixed < paper
