"""Golden first steps of ProxylessNAS in all modes: numpy by hand, no setting at zero or at its default.

The toy is `tests.linear_toy`, one choice among two matrices and `zero`. What was drawn is read from what a step shows:
the loss of the policy's batch tells the path of the policy, the weights that moved tell that of the weights.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import Batch, CostTable
from jaxnas.costs.latency import latency_objective
from jaxnas.estimators import two_path_gate
from jaxnas.searchers import proxyless, reward_loss
from tests.by_hand import Adam, Sgd, softmax, through_softmax
from tests.linear_toy import NAMES, POLICY_X, POLICY_Y, SPACE, W, X, Y, by_hand

KEY = jax.random.key(6)
BATCH = Batch(
    (jnp.asarray(X, jnp.float32), jnp.asarray(Y)), (jnp.asarray(POLICY_X, jnp.float32), jnp.asarray(POLICY_Y))
)
LATENCY = CostTable(4.0, {"chain": np.array([[3.0, 7.0, 0.5]])})
LOGITS = np.array([[0.4, -0.3, 0.2]])
STEPS = 3


def rate_at(step):
    return 0.08 / (1 + step)


def searched(steps=STEPS, *, logits=LOGITS, key=KEY, **settings):
    """States after every step and what was shown."""
    searcher = proxyless(
        SPACE,
        **{"policy_every": 1, **settings},
        learning_rate=rate_at,
        momentum=0.6,
        weight_decay=0.3,
        label_smoothing=0.35,
        policy_learning_rate=0.09,
    )
    state = searcher.init(KEY, BATCH)._replace(policy_params={"chain": jnp.asarray(logits, jnp.float32)})

    def body(state, i):
        state, info = searcher.step(jax.random.fold_in(key, i), state, BATCH)
        return state, (state, info)

    return jax.jit(lambda state: jax.lax.scan(body, state, jnp.arange(steps))[1])(state)


def close(found, expected, tolerance=3e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def which(losses, value):
    """The key of the loss that was shown, which must be the only one."""
    near = [name for name, loss in losses.items() if abs(loss - value) < 1e-5]
    assert len(near) == 1, f"{value} is not one of {losses}"
    return near[0]


def ran(before, after):
    """The operation whose weights moved."""
    moved = [name for name in ("a", "b") if not np.array_equal(before["blocks"][name], after["blocks"][name])]
    assert len(moved) <= 1
    return NAMES.index(moved[0]) if moved else 2


def at(tree, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf[i]), tree)


START = {"blocks": {name: np.asarray(W[name][None], np.float32) for name in ("a", "b")}}


def check_weights(found, shown, i, sgd, params):
    """The weights of step `i`: Nesterov on what ran, decay and momentum of the rest untouched."""
    k = ran(START if i == 0 else at(found.params, i - 1), at(found.params, i))
    loss, grads, _ = by_hand(params, k, X, Y, 0.35)
    new = sgd.step(params, grads, rate_at(i), used=grads)
    for name in ("a", "b"):
        close(found.params["blocks"][name][i, 0], new[name])
    close(found.params["head"][i], new["head"])
    close(shown.loss[i], loss)
    close(shown.weight_norm[i], np.sqrt(sum((grad**2).sum() for grad in grads.values())))
    return new


def add_linear(loss, p):
    """`loss + 0.8 (E - 5) / 5`: the charge, the factor of the loss's gradient, the gradient of the probabilities."""
    table = LATENCY.table["chain"]
    expected = 4 + (p * table).sum()
    return 0.8 * (expected - 5) / 5, 1.0, 0.8 * table / 5


def mul_log(loss, p):
    """`0.8 loss (log E / log 5)^0.7`."""
    table = LATENCY.table["chain"]
    expected = 4 + (p * table).sum()
    ratio = np.log(expected) / np.log(5)
    slope = 0.8 * loss * 0.7 * ratio**-0.3 / np.log(5) / expected
    return 0.8 * loss * ratio**0.7 - loss, 0.8 * ratio**0.7, slope * table


def limit(loss, p):
    """`loss + 0.8 max(0, E / 5 - 1)` above the reference."""
    table = LATENCY.table["chain"]
    expected = 4 + (p * table).sum()
    assert expected > 5
    return 0.8 * (expected / 5 - 1), 1.0, 0.8 * table / 5


FORMS = {"add#linear": add_linear, "mul#log": mul_log, "limit": limit}


def objective(form):
    return latency_objective(LATENCY, 5.0, form, weight=0.8, exponent=0.7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["full_v2", "full"])
def test_one_path(mode, form):
    found, shown = searched(mode=mode, objective=objective(form), skip_zero_sampled=False)
    logits, params = LOGITS, W
    sgd, adam = Sgd(0.6, 0.3, nesterov=True), Adam(0.0, 0.999)
    for i in range(STEPS):
        # The policy on its own batch and without smoothing: equation 4, and the expected latency.
        losses = {k: by_hand(params, k, POLICY_X, POLICY_Y, 0.0) for k in range(3)}
        k = which({k: loss for k, (loss, *_) in losses.items()}, shown.policy_loss[i])
        p = softmax(logits)
        penalty, factor, to_p = FORMS[form](losses[k][0], p)
        grad = through_softmax(p, factor * losses[k][2] + to_p)
        close([shown.penalty[i], shown.policy_norm[i]], [penalty, np.linalg.norm(grad)])
        logits = adam.step(logits, grad, 0.09)
        close(found.policy_params["chain"][i], logits)
        params = check_weights(found, shown, i, sgd, params)


@pytest.mark.parametrize("form", FORMS)
def test_two_paths(form):
    found, shown = searched(key=jax.random.key(1), mode="two", objective=objective(form), skip_zero_sampled=False)
    logits, params = LOGITS, W
    sgd, adam = Sgd(0.6, 0.3, nesterov=True), Adam(0.0, 0.999)
    pairs = set()
    for i in range(STEPS):
        losses = {k: by_hand(params, k, POLICY_X, POLICY_Y, 0.0) for k in range(3)}
        k = which({k: loss for k, (loss, *_) in losses.items()}, shown.policy_loss[i])
        pair = np.flatnonzero(np.abs(found.policy_params["chain"][i, 0] - logits[0]) > 1e-4)
        assert len(pair) == 2
        assert k in pair
        pairs.add(tuple(pair))
        # Probabilities of the pair alone, zero elsewhere: in the gates and in the latency.
        p = np.zeros((1, 3))
        p[:, pair] = softmax(logits[:, pair])
        penalty, factor, to_p = FORMS[form](losses[k][0], p)
        grad = np.zeros((1, 3))
        grad[:, pair] = through_softmax(p[:, pair], (factor * losses[k][2] + to_p)[:, pair])
        close([shown.penalty[i], shown.policy_norm[i]], [penalty, np.linalg.norm(grad)])
        moved = adam.step(logits, grad, 0.09, used=True)
        # The pair keeps its total probability.
        shift = np.log(np.exp(moved[:, pair]).sum()) - np.log(np.exp(logits[:, pair]).sum())
        logits = logits.copy()
        logits[:, pair] = moved[:, pair] - shift
        close(found.policy_params["chain"][i], logits, 1e-4)
        params = check_weights(found, shown, i, sgd, params)
    assert len(pairs) > 1, "another key is needed"


@pytest.mark.parametrize("mode", ["full_v2", "two"])
def test_a_sampled_zero_teaches_neither_loss_nor_latency(mode):
    """Only the weights move: the gradient of the block is zero, that of its latency too."""
    logits = np.array([[-9.0, -8.0, 9.0]])
    found, shown = searched(1, logits=logits, mode=mode, objective=objective("add#linear"), skip_zero_sampled=True)
    close(shown.policy_loss[0], np.log(4))
    np.testing.assert_array_equal(shown.policy_norm, 0.0)
    np.testing.assert_array_equal(found.policy_params["chain"][0], logits)
    close(shown.penalty[0], 0.8 * (4.5 - 5) / 5, 1e-4)
    check_weights(found, shown, 0, Sgd(0.6, 0.3, nesterov=True), W)


@pytest.mark.parametrize("baseline", ["inclusive_average", "leave_one_out"])
@pytest.mark.parametrize("rewarded", [False, True])
def test_reinforce(baseline, rewarded):
    """Three samples; the average of all losses so far keeps one hundredth of itself, the new ones included."""
    reward = reward_loss(SPACE, LATENCY, 5.0, exponent=0.7) if rewarded else None
    found, shown = searched(mode="reinforce", num_samples=3, baseline=baseline, reward=reward)
    logits, params, average = LOGITS, W, 0.0
    sgd, adam = Sgd(0.6, 0.3, nesterov=True), Adam(0.0, 0.999)
    for i in range(STEPS):
        value = [by_hand(params, k, POLICY_X, POLICY_Y, 0.0)[0] for k in range(3)]
        if rewarded:
            outputs = [POLICY_X @ params["a"], POLICY_X @ params["b"], 0 * POLICY_X]
            hits = [np.mean((y @ params["head"]).argmax(-1) == POLICY_Y) for y in outputs]
            value = [-hit * (5 / (4 + t)) ** 0.7 for hit, t in zip(hits, LATENCY.table["chain"][0], strict=True)]
        sums = {
            drawn: sum(value[k] for k in drawn) / 3 for drawn in itertools.combinations_with_replacement(range(3), 3)
        }
        drawn = which(sums, shown.policy_loss[i])
        losses = np.array([value[k] for k in drawn])
        average = losses.mean() if i == 0 else 0.01 * average + 0.99 * losses.mean()
        levels = average if baseline == "inclusive_average" else (losses.sum() - losses) / 2
        assert len(set(drawn)) > 1, "equal samples say nothing of a baseline: another key is needed"
        grad = ((losses - levels)[:, None] * (np.eye(3)[list(drawn)] - softmax(logits))).sum(0, keepdims=True) / 3
        close(shown.policy_norm[i], np.linalg.norm(grad))
        logits = adam.step(logits, grad, 0.09)
        close(found.policy_params["chain"][i], logits, 1e-4)
        params = check_weights(found, shown, i, sgd, params)


def test_the_policy_moves_in_every_third_step_after_warm_up_and_rest():
    """The period counts from the end of the warm-up, and the rest cuts off what lies in it: here step 4."""
    found, shown = searched(14, warmup_steps=2, rest_steps=4, policy_every=3, skip_zero_sampled=False)
    before = np.concatenate([LOGITS[None].astype(np.float32), found.policy_params["chain"][:-1]])
    moved = np.any(before != found.policy_params["chain"], (1, 2))
    assert np.flatnonzero(moved).tolist() == [7, 10, 13]
    for of_the_policy in (shown.policy_loss, shown.policy_norm, shown.penalty):
        np.testing.assert_array_equal(np.isnan(of_the_policy), ~moved)
    assert not np.isnan([shown.loss, shown.weight_norm, shown.nonfinite]).any()


def test_the_active_path_of_a_pair_has_the_probability_of_the_pair():
    """Frequencies of `(pair, active)` over 4,000 keys against `p_a p_b / (1 - p_a) + p_b p_a / (1 - p_b)` times `q`."""
    logits, count = {"chain": jnp.array([[1.2, -0.4, 0.1]])}, 4000

    def draw(key):
        loss = lambda paths, params: (jnp.sum(paths.weight["chain"]), None)  # noqa: E731
        paths = two_path_gate().estimate(key, None, logits, loss, {})[1].paths
        return paths.probe.index["chain"][0], paths.index["chain"][0, 0]

    pair, active = jax.jit(jax.vmap(draw))(jax.random.split(KEY, count))
    p = softmax(np.asarray(logits["chain"], np.float64))[0]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = np.all(np.sort(pair, -1) == (a, b), -1)
        together = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
        for k in (a, b):
            expected = together * p[k] / (p[a] + p[b])
            found = np.mean(both & (np.asarray(active) == k))
            assert abs(found - expected) < 4.5 * np.sqrt(expected * (1 - expected) / count)
