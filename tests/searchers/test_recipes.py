"""The optimisers and schedules of the papers against hand loops, and what SNAS does in one step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Batch
from jaxnas.relaxations import annealed
from jaxnas.searchers import adam_l2, cosine_by_epoch, darts, sgd_l2, snas
from jaxnas.spaces import function_space, snas_space, table_space
from jaxnas.spaces.darts import resource_penalty

KEY = jax.random.key(2)
PARAMS = np.array([1.0, -2.0, 0.5], np.float32)
GRADS = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)


def trajectory(tx, grads=GRADS, params=PARAMS):
    """Parameters after every step."""

    def body(carry, grad):
        params, state = carry
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.jit(lambda p, g: jax.lax.scan(body, (p, tx.init(p)), g)[1])(jnp.asarray(params), jnp.asarray(grads))


# Optimisers


def sgd_by_hand(rate, momentum, weight_decay, clip, nesterov):
    """The semantics of PyTorch: clip, add the decay, then `buffer = momentum * buffer + gradient`."""
    params, buffer, out = PARAMS.astype(np.float64), None, []
    for step, grad in enumerate(GRADS.astype(np.float64)):
        grad = grad * min(1.0, clip / np.linalg.norm(grad)) + weight_decay * params
        buffer = grad if buffer is None else momentum * buffer + grad
        params = params - rate(step) * (grad + momentum * buffer if nesterov else buffer)
        out.append(params)
    return np.stack(out)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip", [5.0, 0.7])
def test_sgd_l2_equals_a_hand_loop(nesterov, clip):
    def rate(step):
        return 0.1 / (1 + step)

    found = trajectory(sgd_l2(rate, momentum=0.9, weight_decay=0.3, clip=clip, nesterov=nesterov))
    np.testing.assert_allclose(found, sgd_by_hand(rate, 0.9, 0.3, clip, nesterov), rtol=1e-5)
    other = sgd_by_hand(rate, 0.9, 0.3, clip, not nesterov)
    assert np.abs(found - other).max() > 1e-2


def test_first_step_of_coupled_adam_is_its_closed_form():
    grad, decay, rate = np.array([0.02, 0.0, -0.3], np.float32), 0.1, 0.05
    tx = adam_l2(rate, weight_decay=decay)
    updates, state = tx.update(jnp.asarray(grad), tx.init(jnp.asarray(PARAMS)), jnp.asarray(PARAMS))
    coupled = grad + decay * PARAMS
    np.testing.assert_allclose(optax.tree.get(state, "mu"), (1 - 0.5) * coupled, rtol=1e-6)
    np.testing.assert_allclose(optax.tree.get(state, "nu"), (1 - 0.999) * coupled**2, rtol=1e-4)
    np.testing.assert_allclose(updates, -rate * coupled / (np.abs(coupled) + 1e-8), rtol=1e-5)
    decoupled, _ = (adamw := optax.adamw(rate, 0.5, 0.999, weight_decay=decay)).update(
        jnp.asarray(grad), adamw.init(jnp.asarray(PARAMS)), jnp.asarray(PARAMS)
    )
    assert np.abs(updates - decoupled).max() > rate / 2


@pytest.mark.parametrize("clip", [None, 0.7])
def test_coupled_adam_equals_a_hand_loop(clip):
    params, m, v, expected = PARAMS.astype(np.float64), 0.0, 0.0, []
    for step, grad in enumerate(GRADS.astype(np.float64), start=1):
        grad = grad if clip is None else grad * min(1.0, clip / np.linalg.norm(grad))
        grad = grad + 0.1 * params
        m, v = 0.5 * m + 0.5 * grad, 0.999 * v + 0.001 * grad**2
        params = params - 0.05 * (m / (1 - 0.5**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        expected.append(params)
    found = trajectory(adam_l2(0.05, weight_decay=0.1, clip=clip))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_cosine_moves_once_per_epoch():
    schedule = jax.jit(cosine_by_epoch(0.025, 0.001, epochs=50, steps_per_epoch=10))
    rates = np.array([schedule(step) for step in (0, 9, 10, 250, 499, 500, 10_000)])
    by_epoch = {e: 0.001 + 0.012 * (1 + math.cos(math.pi * e / 50)) for e in (0, 1, 25, 49, 50)}
    np.testing.assert_allclose(rates, [by_epoch[e] for e in (0, 0, 1, 25, 49, 50, 50)], rtol=1e-4)
    assert rates[0] == pytest.approx(0.025)
    assert rates[-1] == pytest.approx(0.001)


# SNAS


def recording(losses, value=None):
    """A search loss that notes the paths it is called with while it is traced."""

    def loss(paths, params, data, key):
        losses.append(jax.tree.map(lambda leaf: leaf.shape, paths.weight))
        found = jnp.zeros(()) if value is None else value(paths, params)
        return found, {"accuracy": jnp.zeros(())}

    return loss


NETWORK = snas_space(4, 8, nodes=2, operations=("none", "skip_connect", "sep_conv_3x3"))
BARE = NETWORK._replace(init=lambda key, x: {"w": jnp.ones((2,))})  # the losses below never run the network
BATCH = Batch((jnp.zeros((4, 8, 8, 3)),), (jnp.zeros((4, 8, 8, 3)),))


def test_one_estimate_gives_both_gradients_and_cells_of_a_kind_share_their_noise():
    """Six normal and two reduction cells see one `[E, K]` draw per kind, without an axis for cells or examples."""
    for factory, calls in ((snas, 1), (darts, 2)):
        losses = []
        searcher = factory(BARE, loss=recording(losses))
        state = searcher.init(KEY, BATCH)
        jax.eval_shape(searcher.step, KEY, state, BATCH)
        assert losses == [{"normal": (5, 3), "reduce": (5, 3)}] * calls


def test_snas_ignores_the_policy_batch_and_starts_its_logits_at_one():
    searcher = snas(table_space(np.eye(3)), loss=recording([]))
    state = searcher.init(KEY, Batch((jnp.zeros(()),), None))
    jax.jit(searcher.step)(KEY, state, Batch((jnp.zeros(()),), None))
    np.testing.assert_allclose(state.policy_params["edges"], 1.0, atol=0.05)
    assert np.std(state.policy_params["edges"]) > 1e-3


@pytest.mark.parametrize("mode", ["reparametrization", "discrete"])
def test_resource_penalty_lowers_the_expected_cost(mode):
    penalty = resource_penalty(NETWORK, 8)
    changes = []
    for weight in (1e-3, 0.0):
        settings = {"resource": penalty, "resource_weight": weight, "resource_mode": mode}
        searcher = snas(BARE, loss=recording([]), policy_learning_rate=0.05, policy_weight_decay=0.0, **settings)
        state = searcher.init(KEY, BATCH)

        def step(state, _, searcher=searcher):
            return searcher.step(jax.random.fold_in(KEY, state.step), state, BATCH)

        last, info = jax.jit(lambda s, step=step: jax.lax.scan(step, s, length=100))(state)
        before, after = (float(penalty(jax.tree.map(jax.nn.softmax, s.policy_params))) for s in (state, last))
        changes.append(after / before)
        if mode == "discrete":
            np.testing.assert_allclose(info.penalty[0], weight * before, rtol=1e-5)
        else:
            np.testing.assert_array_equal(info.penalty > 0, weight > 0)
        np.testing.assert_array_equal(info.loss, 0.0)  # without the penalty
    assert changes[0] < 0.3
    assert changes[1] == 1.0


def test_sampled_penalty_is_that_of_the_noise_of_the_loss():
    """With a reparametrised penalty equal to minus the loss, nothing is left."""
    cost = jnp.array([1.0, 2.0, 3.0])
    space = function_space(lambda params, gates: jnp.sum(gates @ cost), 2, 3)
    searcher = snas(
        space,
        resource=lambda weight: -0.5 * jnp.sum(weight["edges"] @ cost),
        resource_weight=2.0,
        loss=recording([], lambda paths, params: space.apply(params, paths)),
    )
    batch = Batch((jnp.zeros(()),), None)
    _, info = jax.jit(searcher.step)(KEY, searcher.init(KEY, batch), batch)
    np.testing.assert_allclose([info.loss + info.penalty, info.policy_norm], 0.0, atol=1e-6)
    assert info.loss > 1


# Errors


@pytest.mark.parametrize("factory", [darts, snas])
@pytest.mark.parametrize("temperature", [0.0, -0.5])
def test_temperature_must_be_above_zero(factory, temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        factory(NETWORK, temperature=temperature)
    factory(NETWORK, temperature=annealed())


def test_resource_settings_are_checked():
    with pytest.raises(ValueError, match="'reparametrization' or 'discrete', got 'policy_gradient'"):
        snas(NETWORK, resource_mode="policy_gradient")
    with pytest.raises(ValueError, match=r"resource_weight=0\.1 needs a resource"):
        snas(NETWORK, resource_weight=0.1)
