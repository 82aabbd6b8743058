"""Golden first steps of DARTS, SNAS and the policy search: numpy by hand, no setting at zero or at its default.

The toy has the loss `|w - b M g|^2 / 2 + b c g` of weights `w` and gates `g[2, 3]`; the batch `b` is a number, one for
the weights and another for the policy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Batch
from jaxnas.policies import categorical
from jaxnas.searchers import darts, policy_search, snas, unrolled_gradient
from jaxnas.searchers.second_order import InnerStep
from jaxnas.spaces import function_space
from tests.by_hand import Adam, Sgd, softmax, through_softmax

KEY = jax.random.key(3)
RNG = np.random.default_rng(8)
MIX, WEIGHTS, COST, RESOURCE = RNG.normal(size=(4, 6)), RNG.normal(size=4), RNG.normal(size=6), RNG.normal(size=(2, 3))
LOGITS = RNG.normal(size=(2, 3))
SPACE = function_space(lambda params, gates: jnp.sum(gates), 2, 3, params={"w": jnp.asarray(WEIGHTS, jnp.float32)})
TRAIN, VALIDATION = 1.3, -0.6
BATCH = Batch((jnp.float32(TRAIN),), (jnp.float32(VALIDATION),))
STEPS = 2
SETTINGS = {
    "momentum": 0.7,
    "weight_decay": 0.15,
    "clip": 0.8,
    "policy_learning_rate": 0.06,
    "policy_weight_decay": 0.4,
}


def rate_at(step):
    return 0.1 / (1 + step)


def temperature_at(step):
    return 0.6 / (1 + step)


def toy_loss(paths, params, batch, key):
    """The loss of the toy; the gates that ran are reported as its accuracy."""
    del key
    gates = paths.weight["edges"]
    apart = params["w"] - batch[0] * jnp.asarray(MIX, jnp.float32) @ gates.reshape(-1)
    value = 0.5 * jnp.sum(apart**2) + batch[0] * jnp.asarray(COST, jnp.float32) @ gates.reshape(-1)
    return value, {"accuracy": gates}


def toy_by_hand(w, gates, batch):
    """Loss, gradient of the weights and gradient of the gates."""
    apart = w - batch * MIX @ gates.reshape(-1)
    value = 0.5 * (apart**2).sum() + batch * COST @ gates.reshape(-1)
    return value, apart, (batch * COST - batch * MIX.T @ apart).reshape(gates.shape)


def steps_of(searcher):
    """`STEPS` steps from `LOGITS`: all states after the first, and what was shown."""
    state = searcher.init(KEY, BATCH)
    state = state._replace(policy_params={"edges": jnp.asarray(LOGITS, jnp.float32)})

    def body(state, i):
        state, info = searcher.step(jax.random.fold_in(KEY, i), state, BATCH)
        return state, (state, info)

    return jax.jit(lambda state: jax.lax.scan(body, state, jnp.arange(STEPS))[1])(state)


def close(found, expected, tolerance=2e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("order", ["first", "second", "finite_difference"])
def test_darts(order):
    found, shown = steps_of(
        darts(SPACE, learning_rate=rate_at, temperature=temperature_at, order=order, loss=toy_loss, **SETTINGS)
    )
    tolerance = 1e-3 if order == "finite_difference" else 2e-5
    logits, params = LOGITS, {"w": WEIGHTS}
    sgd, adam = Sgd(0.7, 0.15, clip=0.8), Adam(0.5, 0.999, weight_decay=0.4)
    for i in range(STEPS):
        rate, t, w = rate_at(i), temperature_at(i), params["w"]
        # The policy on its own batch.
        p = softmax(logits / t)
        moved = w
        if order != "first":  # equation 6: an inner step as the weights take it, but not clipped
            buffer = sgd.buffer.get("w", 0.0)
            moved = w - rate * (0.7 * buffer + toy_by_hand(w, p, TRAIN)[1] + 0.15 * w)
        policy_loss, to_weights, to_gates = toy_by_hand(moved, p, VALIDATION)
        if order != "first":
            to_gates = to_gates + rate * TRAIN * (MIX.T @ to_weights).reshape(2, 3)
        grad = through_softmax(p, to_gates) / t
        logits = adam.step(logits, grad, 0.06)
        close(found.policy_params["edges"][i], logits, tolerance)
        close([shown.policy_loss[i], shown.policy_norm[i]], [policy_loss, np.linalg.norm(grad)], tolerance)
        # The weights on theirs, under the new policy.
        p = softmax(logits / t)
        loss, to_weights, _ = toy_by_hand(w, p, TRAIN)
        params = sgd.step(params, {"w": to_weights}, rate)
        close(found.params["w"][i], params["w"], tolerance)
        close([shown.loss[i], shown.weight_norm[i]], [loss, np.linalg.norm(to_weights)], tolerance)
        close(shown.temperature[i], t)


def test_the_finite_difference_has_the_radius_of_the_paper():
    """With a cubic term and a wide radius the difference is not the derivative: `R = radius / |v|` is felt."""
    a, w, radius, rate = np.array([0.4, -0.9]), np.array([0.5, -1.2, 0.8]), 0.9, 0.3
    mix, buffer = RNG.normal(size=(3, 2)), np.array([0.1, 0.2, -0.3])

    def train(a, w):
        return jnp.sum((jnp.asarray(mix, jnp.float32) @ a) * w**3)

    def validation(a, w):
        return 0.5 * jnp.sum(w**2) + jnp.sum(a * a)

    moved = w - rate * (0.7 * buffer + 3 * (mix @ a) * w**2 + 0.15 * w)
    r = radius / np.linalg.norm(moved)
    mixed = mix.T @ ((w + r * moved) ** 3 - (w - r * moved) ** 3) / (2 * r)
    inner = InnerStep(rate, 0.7, 0.15, jnp.asarray(buffer, jnp.float32))
    a32, w32 = (jnp.asarray(leaf, jnp.float32) for leaf in (a, w))
    value, grad = unrolled_gradient(validation, train, inner, a32, w32, method="finite_difference", radius=radius)
    close(value, 0.5 * (moved**2).sum() + (a**2).sum())
    close(grad, 2 * a - rate * mixed)


@pytest.mark.parametrize("mode", ["reparametrization", "discrete"])
def test_snas(mode):
    def resource(weight):
        return jnp.sum(jnp.asarray(RESOURCE, jnp.float32) * weight["edges"] ** 2)

    charge = {"resource": resource, "resource_weight": 0.7, "resource_mode": mode}
    found, shown = steps_of(
        snas(
            SPACE,
            learning_rate=rate_at,
            temperature=temperature_at,
            policy_clip=0.5,
            loss=toy_loss,
            **charge,
            **SETTINGS,
        )
    )
    logits, params = LOGITS, {"w": WEIGHTS}
    sgd, adam = Sgd(0.7, 0.15, clip=0.8), Adam(0.5, 0.999, weight_decay=0.4, clip=0.5)
    for i in range(STEPS):
        rate, t, w = rate_at(i), temperature_at(i), params["w"]
        # One sample and one batch for both: equations 4 and 11.
        sampled = np.asarray(shown.accuracy[i], np.float64)
        assert np.abs(sampled.sum(-1) - 1).max() < 1e-6
        loss, to_weights, to_gates = toy_by_hand(w, sampled, TRAIN)
        if mode == "reparametrization":
            penalty = 0.7 * (RESOURCE * sampled**2).sum()
            grad = through_softmax(sampled, to_gates + 0.7 * 2 * RESOURCE * sampled) / t
        else:
            p = softmax(logits)
            penalty = 0.7 * (RESOURCE * p**2).sum()
            grad = through_softmax(sampled, to_gates) / t + through_softmax(p, 0.7 * 2 * RESOURCE * p)
        logits = adam.step(logits, grad, 0.06)
        params = sgd.step(params, {"w": to_weights}, rate)
        close(found.policy_params["edges"][i], logits)
        close(found.params["w"][i], params["w"])
        close([shown.loss[i], shown.policy_loss[i], shown.penalty[i]], [loss, loss, penalty])
        close([shown.weight_norm[i], shown.policy_norm[i]], [np.linalg.norm(to_weights), np.linalg.norm(grad)])
        close(shown.temperature[i], t)


def test_snas_samples_with_gumbel_noise_at_the_temperature():
    """`t log(weight) - logits` is the noise up to a constant of its row, and has its spread: a logistic difference."""
    searcher = snas(SPACE, temperature=0.6, loss=toy_loss)
    state = searcher.init(KEY, BATCH)._replace(policy_params={"edges": jnp.asarray(LOGITS, jnp.float32)})
    keys = jax.random.split(KEY, 2000)
    sampled = np.asarray(jax.jit(jax.vmap(lambda key: searcher.step(key, state, BATCH)[1].accuracy))(keys), np.float64)
    noise = 0.6 * np.log(np.maximum(sampled, 1e-30)) - LOGITS
    apart = noise[..., 0] - noise[..., 1]
    assert np.abs(apart.mean(0)).max() < 4.5 * np.pi / np.sqrt(3 * 2000)
    np.testing.assert_allclose(apart.std(0), np.pi / np.sqrt(3), rtol=0.08)


def test_policy_search():
    """REINFORCE with the inclusive, bias-corrected average of the release; fitness that is not finite is left out."""
    space = function_space(lambda params, gates: jnp.sum(gates), 2, 3)
    tx = optax.sgd(0.4, momentum=0.7)
    search = policy_search(categorical(space.choices), tx, batch_size=4, baseline_decay=0.8)
    state = search.init(KEY)
    state = state._replace(policy_params={"edges": jnp.asarray(LOGITS, jnp.float32)})
    archs = np.array([[0, 1], [2, 0], [1, 1], [2, 2]])
    told = np.array([[3.0, -1.0, np.nan, 0.5], [0.2, 4.0, 1.0, -2.0], [np.nan, np.inf, np.nan, np.nan]])
    logits, sgd, total, weight = LOGITS, Sgd(0.7, 0.0), 0.0, 0.0
    for fitness in told:
        state, info = jax.jit(search.tell)(KEY, state, {"edges": jnp.asarray(archs)}, jnp.asarray(fitness)[:, None])
        good = np.isfinite(fitness)
        if good.any():
            total, weight = 0.8 * total + 0.2 * fitness[good].mean(), 0.8 * weight + 0.2
            p = softmax(logits)
            grad = sum(
                (value - total / weight) * (np.eye(3)[arch] - p)
                for value, arch in zip(fitness[good], archs[good], strict=True)
            )
            logits = sgd.step({"": logits}, {"": grad / good.sum()}, 0.4)[""]
        close(state.policy_params["edges"], logits)
        close([state.total, state.weight], [total, weight])
    assert float(info.best) == -2.0
    assert search.decode(state)["edges"].tolist() == [2, 2]
