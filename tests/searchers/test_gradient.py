"""The step of a gradient search: what sees which data, what a bad batch does, scans, seeds, and toys with a gap."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Batch, Estimate, Estimator, Policy, dense_paths, sparse_paths
from jaxnas.estimators import exact, pathwise, reinforce, with_objective
from jaxnas.policies import categorical
from jaxnas.relaxations import annealed
from jaxnas.searchers import (
    adam_l2,
    alternating,
    classification_loss,
    darts,
    gradient_search,
    joint,
    policy_step,
    sgd_l2,
    snas,
    weight_step,
)
from jaxnas.spaces import chain_space, function_space, table_space

KEY = jax.random.key(9)
START = jnp.array([[1.0, -1.0], [0.5, 2.0]])
SPACE = function_space(lambda w, gates: jnp.sum((gates @ w - 1.0) ** 2), 2, 2, params=START)
POLICY = categorical(SPACE.choices)
SEARCHERS = {"darts": darts, "second": functools.partial(darts, order="second"), "snas": snas}
EVERY = pytest.mark.parametrize("factory", SEARCHERS.values(), ids=SEARCHERS)


def loss(paths, params, data, key, space=SPACE):
    """The space's loss times the batch's one number, so that a batch can be NaN or switched off."""
    del key
    return data[0] * space.apply(params, paths), {"accuracy": data[0]}


def batch(weights=1.0, policy=1.0):
    return Batch((jnp.asarray(weights),), (jnp.asarray(policy),))


def start(factory, **settings):
    searcher = factory(SPACE, loss=loss, learning_rate=0.05, policy_learning_rate=0.05, **settings)
    return searcher, searcher.init(KEY, batch()), jax.jit(searcher.step)


def search(searcher, key, length, state=None):
    """Some steps by `scan`, from the state or from the start: the last state and all infos."""

    def body(state, _):
        return searcher.step(jax.random.fold_in(key, state.step), state, batch())

    return jax.lax.scan(body, searcher.init(key, batch()) if state is None else state, length=length)


def rejected(state):
    """The state after a step that was rejected: two counts are one further, and nothing else has moved."""
    return state._replace(step=state.step + 1, bad=state.bad + 1)


# Which data moves what


def test_single_level_sees_the_weights_batch_and_bilevel_both():
    for factory, sees_policy in ((snas, False), (darts, True)):
        _, state, step = start(factory)
        new, _ = step(KEY, state, batch())
        other, _ = step(KEY, state, batch(policy=-1.0))
        assert np.array_equal(new.policy_params["edges"], other.policy_params["edges"]) != sees_policy
    _, state, step = start(darts)
    new, _ = step(KEY, state, batch(weights=0.0))
    before, _ = step(KEY, state, batch(weights=-1.0))
    chex.assert_trees_all_equal(new.policy_params, before.policy_params)  # the policy's step does not see the weights'


def test_weights_descend_under_the_new_policy():
    searcher = gradient_search(SPACE, POLICY, exact(POLICY), optax.sgd(0.1), optax.sgd(3.0), loss=loss)
    state = searcher.init(KEY, batch())
    new, _ = jax.jit(searcher.step)(KEY, state, batch())

    def fn(paths, params):
        return loss(paths, params, batch().weights, KEY)

    for policy_params, same in ((new.policy_params, True), (state.policy_params, False)):
        grads = exact(POLICY).estimate(KEY, (), policy_params, fn, state.params)[1].weight_grads
        assert np.allclose(new.params, state.params - 0.1 * grads, atol=1e-6) == same


def test_both_estimates_of_a_step_start_from_one_state_of_the_estimator_and_that_of_the_policy_goes_on():
    estimator = reinforce(POLICY, num_samples=2, baseline="moving_average")
    searcher = gradient_search(SPACE, POLICY, estimator, optax.sgd(0.0), optax.sgd(0.1), loss=loss)
    start = searcher.init(KEY, batch())
    state, info = jax.jit(searcher.step)(KEY, start, batch(policy=-2.0))
    assert state.estimator.step == 1
    np.testing.assert_allclose(state.estimator.baseline, info.policy_loss, rtol=1e-5)
    assert info.policy_loss < 0 < info.loss


@EVERY
def test_learning_rates_of_zero_hold_still_and_weight_decay_does_not_leak(factory):
    settings = {"weight_decay": 0.5, "policy_weight_decay": 0.0}
    searcher = factory(SPACE, loss=loss, learning_rate=0.05, policy_learning_rate=0.0, **settings)
    state = searcher.init(KEY, batch())
    new, _ = jax.jit(searcher.step)(KEY, state, batch())
    chex.assert_trees_all_equal(new.policy_params, state.policy_params)
    assert np.abs(new.params - state.params).max() > 1e-3
    searcher = factory(SPACE, loss=loss, learning_rate=0.0, policy_learning_rate=0.05, policy_weight_decay=0.5)
    new, _ = jax.jit(searcher.step)(KEY, state, batch())
    chex.assert_trees_all_equal(new.params, state.params)
    assert np.abs(new.policy_params["edges"] - state.policy_params["edges"]).max() > 1e-3
    # Decay alone moves each from its own value only.
    new, _ = jax.jit(start(factory, weight_decay=0.5)[0].step)(KEY, state, batch(0.0, 0.0))
    np.testing.assert_allclose(new.params, state.params * (1 - 0.05 * 0.5), rtol=1e-6)


def test_penalty_is_added_to_the_policy_only():
    tx, entropy = (optax.sgd(0.1), optax.sgd(0.1)), POLICY.entropy
    objective = with_objective(pathwise(), lambda loss, logits, paths: loss + 0.3 * entropy(logits))
    plain, charged = (
        gradient_search(SPACE, POLICY, estimator, *tx, loss=loss, step=joint) for estimator in (pathwise(), objective)
    )
    state = plain.init(KEY, batch())
    (new, info), (other, shown) = (jax.jit(s.step)(KEY, state, batch()) for s in (plain, charged))
    chex.assert_trees_all_close(new.params, other.params, rtol=1e-5)  # two programs
    slope = jax.grad(lambda logits: 0.3 * entropy(logits))(state.policy_params)["edges"]
    np.testing.assert_allclose(other.policy_params["edges"], new.policy_params["edges"] - 0.1 * slope, atol=1e-6)
    assert shown.penalty == pytest.approx(0.3 * float(entropy(state.policy_params)), rel=1e-5)
    assert info.penalty == 0
    assert info.entropy == pytest.approx(float(entropy(new.policy_params)), rel=1e-5)


# Bad batches


@EVERY
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_bad_batch_changes_nothing_but_two_counts(factory, bad):
    _, state, step = start(factory)
    state, _ = step(KEY, state, batch())
    halves = [batch(weights=bad)] if factory is snas else [batch(weights=bad), batch(policy=bad)]
    for half in halves:
        stopped, info = step(KEY, state, half)
        assert info.nonfinite == 1
        chex.assert_trees_all_equal(stopped, rejected(state))  # the counts of schedules too
        assert any(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(stopped.policy_opt))
        after, info = step(KEY, stopped, batch())
        assert info.nonfinite == 0
        assert after.step == state.step + 2


def test_a_bad_penalty_is_counted_too():
    objective = lambda loss, logits, paths: loss + jnp.log(-jnp.sum(jnp.exp(logits["edges"])))  # noqa: E731
    charged = with_objective(pathwise(), objective)
    searcher = gradient_search(SPACE, POLICY, charged, optax.sgd(0.1), optax.sgd(0.1), loss=loss)
    state = searcher.init(KEY, batch())
    new, info = jax.jit(searcher.step)(KEY, state, batch())
    assert info.nonfinite == 1
    chex.assert_trees_all_equal(new, rejected(state))
    assert new.policy_steps == 0  # which tells whoever concludes from the search that nothing was found


@EVERY
@pytest.mark.parametrize("half", ["weights", "policy"])
def test_a_loss_of_infinity_with_finite_gradients_is_a_bad_step(factory, half):
    """A constant of infinity has a gradient of zero, so that nothing but the loss shows it."""

    def shifted(paths, params, data, key):
        return SPACE.apply(params, paths) + data[0], {"accuracy": jnp.zeros(())}

    searcher = factory(SPACE, loss=shifted, learning_rate=0.05, policy_learning_rate=0.05)
    state = searcher.init(KEY, batch(0.0, 0.0))
    after, info = jax.jit(searcher.step)(KEY, state, batch(0.0, 0.0)._replace(**{half: (jnp.asarray(jnp.inf),)}))
    seen = half == "weights" or factory is not snas
    assert (bool(info.nonfinite), bool(np.isfinite(info.weight_norm)), bool(np.isfinite(info.policy_norm))) == (
        seen,
        True,
        True,
    )
    if seen:
        chex.assert_trees_all_equal(after, rejected(state))


@pytest.mark.parametrize("step", [joint, alternating])
@pytest.mark.parametrize(
    ("weight_tx", "policy_tx"),
    [
        (optax.sgd(3e38), optax.sgd(0.1)),  # weights beyond the floating numbers
        (optax.sgd(jnp.nan), optax.sgd(0.1)),
        (optax.sgd(0.1), optax.chain(optax.scale(1e38), optax.scale(1e38))),  # logits
        (optax.sgd(0.1), optax.chain(optax.scale(1e25), optax.adam(0.1))),  # a moment: the logits would stand still
    ],
)
def test_what_comes_out_of_a_step_is_checked_too(step, weight_tx, policy_tx):
    """The gradients are finite, and the state that comes out is not: the search goes on from the one before."""
    searcher = gradient_search(SPACE, POLICY, exact(POLICY), weight_tx, policy_tx, loss=loss, step=step)
    state = searcher.init(KEY, batch())
    for _ in range(2):
        after, info = jax.jit(searcher.step)(KEY, state, batch())
        assert info.nonfinite == 1
        assert np.isfinite(info.policy_norm)
        chex.assert_trees_all_equal(after, rejected(state))
        state = after


def test_a_logit_of_minus_infinity_rules_an_operation_out_and_the_search_goes_on():
    searcher = gradient_search(SPACE, POLICY, exact(POLICY), optax.sgd(0.1), optax.sgd(0.1), loss=loss)
    state = searcher.init(KEY, batch())
    logits = jnp.array([[-jnp.inf, 0.0, 0.0], [0.0, 0.0, 0.0]])[:, : state.policy_params["edges"].shape[1]]
    state = state._replace(policy_params={"edges": logits})
    new, info = jax.jit(searcher.step)(KEY, state, batch())
    assert info.nonfinite == 0
    assert np.isfinite(info.entropy)
    assert new.policy_params["edges"][0, 0] == -jnp.inf
    assert new.policy_params["edges"][1, 0] != 0


# Labels


@pytest.mark.parametrize(
    "labels", [jnp.zeros((4, 1), jnp.int32), jnp.zeros(4), jnp.zeros(3, jnp.int32), jnp.zeros(4, bool)]
)
def test_labels_of_another_form_are_refused_when_traced(labels):
    space = SPACE._replace(apply=lambda params, paths, x, *, key=None: x)
    shape = str(labels.shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(
        ValueError, match=rf"labels must be integers of shape \(4,\), got {labels.dtype} of shape {shape}"
    ):
        jax.eval_shape(lambda y: classification_loss(space)(dense_paths({}), {}, (jnp.zeros((4, 3)), y)), labels)


@pytest.mark.parametrize("label", [-1, 3, 7])
def test_a_label_outside_of_the_classes_is_nan(label):
    space = SPACE._replace(apply=lambda params, paths, x, *, key=None: x)
    for smoothing in (0.0, 0.1):
        loss_fn = classification_loss(space, label_smoothing=smoothing)
        value, aux = jax.jit(loss_fn)(dense_paths({}), {}, (jnp.eye(3), jnp.array([0, label, 2])))
        assert np.isnan(value)
        assert np.isnan(aux["accuracy"])  # of which `reward_loss` makes a reward


# Scans and seeds


@EVERY
def test_one_loop_and_chunks_of_it_agree_bitwise(factory):
    """One program with the number of steps as an argument, as runs have it; a scan of another length is another one."""
    searcher, state, _ = start(factory, temperature=annealed(1.0, 0.5, epochs=6))

    @jax.jit
    def steps(state, count):
        def body(_, state):
            return searcher.step(jax.random.fold_in(KEY, state.step), state, batch())[0]

        return jax.lax.fori_loop(0, count, body, state)

    whole = steps(state, 6)
    chex.assert_trees_all_equal(whole, steps(steps(steps(state, 2), 2), 2))
    assert whole.step == 6
    scanned = jax.jit(lambda s: search(searcher, KEY, 6, s)[0])(state)
    chex.assert_trees_all_close(scanned, whole, rtol=1e-4, atol=1e-5)


@EVERY
def test_vmap_over_seeds_equals_a_loop(factory):
    searcher, _, _ = start(factory)
    run = functools.partial(search, searcher, length=4)
    keys = jax.random.split(KEY, 3)
    together, alone = jax.jit(jax.vmap(run))(keys), jax.jit(run)
    for i, key in enumerate(keys):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        chex.assert_trees_all_close(own, alone(key), rtol=1e-4, atol=1e-5)


# Convergence


GAP = 0.5
BEST = np.array([2, 0, 3, 1])
COSTS = np.random.default_rng(0).uniform(GAP, 3 * GAP, (4, 4))
COSTS[np.arange(4), BEST] = 0.0  # the best operation of every edge is better by the gap, whatever the others are
TABLE = table_space(sum(np.expand_dims(row, [i for i in range(4) if i != e]) for e, row in enumerate(COSTS)))


@pytest.mark.statistical
@pytest.mark.parametrize("factory", [darts, functools.partial(snas, temperature=annealed(1.0, 0.1, epochs=300))])
def test_every_seed_solves_every_edge_of_a_table_with_a_gap(factory):
    """Gap 0.5 per edge, 4 edges of 4 operations, 300 steps of Adam at 0.05: 64 seeds of 64."""

    def solved(sign):
        def signed(paths, params, data, key):
            return sign * TABLE.apply(params, paths), {"accuracy": jnp.zeros(())}

        searcher = factory(TABLE, loss=signed, policy_learning_rate=0.05)

        def run(key):
            return jnp.all(searcher.decode(search(searcher, key, 300)[0])["edges"] == BEST)

        return int(jax.jit(jax.vmap(run))(jax.random.split(KEY, 64)).sum())

    assert solved(1.0) >= 62
    assert solved(-1.0) == 0  # ascent


@EVERY
def test_weights_and_policy_are_learned_together(factory):
    """Operation 0 of either edge costs one, operation 1 has a weight; both weights have to add up to one."""
    space = function_space(lambda w, g: (g[:, 1] @ w - 1.0) ** 2 + jnp.sum(g[:, 0]), 2, 2, params=jnp.zeros(2))
    toy = functools.partial(loss, space=space)
    searcher = factory(space, loss=toy, learning_rate=0.05, policy_learning_rate=0.05)
    state, info = jax.jit(lambda key: search(searcher, key, 300))(KEY)
    np.testing.assert_array_equal(searcher.decode(state)["edges"], [1, 1])
    np.testing.assert_allclose(state.params.sum(), 1.0, atol=0.1)
    assert info.loss[-1] < 0.3 < info.loss[0]
    assert info.entropy[-1] < 0.3 < info.entropy[0]


# Other policies, losses, errors


def test_a_policy_that_cannot_say_its_entropy_and_decodes_by_its_mode():
    policy = Policy(
        SPACE.choices,
        init=lambda key: {"theta": jnp.zeros(())},
        sample=lambda key, theta: {"edges": jnp.zeros(2, jnp.int32)},
        log_prob=lambda theta, arch: jnp.zeros(()),
        mode=lambda theta: {"edges": jnp.ones(2, jnp.int32)},
        entropy=lambda theta: jnp.nan,
        decode=lambda theta, derive: {"edges": jnp.ones(2, jnp.int32)},
    )

    def estimate(key, state, policy_params, loss_fn, params):
        paths = sparse_paths(policy.sample(key, policy_params))
        (value, aux), grads = jax.value_and_grad(lambda p: loss_fn(paths, p), has_aux=True)(params)
        return state, Estimate(value, {"theta": value}, grads, paths, aux, {})

    estimator = Estimator(lambda key, policy_params: (), estimate)
    searcher = gradient_search(SPACE, policy, estimator, sgd_l2(0.1), adam_l2(0.1), loss=loss)
    state, info = jax.jit(searcher.step)(KEY, searcher.init(KEY, batch()), batch())
    np.testing.assert_array_equal(searcher.decode(state)["edges"], [1, 1])
    assert (info.nonfinite, state.step, state.policy_steps) == (0, 1, 1)
    assert np.isnan([info.entropy, info.temperature]).all()  # neither applies, which is no reason to reject a step
    assert state.policy_params["theta"] < 0


def test_classification_loss_is_mean_cross_entropy():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]], np.float32)
    space = SPACE._replace(apply=lambda params, paths, x, *, key=None: x)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    labels = np.array([0, 1])
    for smoothing in (0.0, 0.1):
        targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
        value, aux = classification_loss(space, label_smoothing=smoothing)(dense_paths({}), {}, (logits, labels))
        assert value == pytest.approx(-(targets * log_p).sum(-1).mean(), rel=1e-5)
        assert aux["accuracy"] == 0.5
        np.testing.assert_array_equal(aux["logits"], logits)


def test_a_step_does_not_keep_the_outputs_of_several_samples():
    space = chain_space({"tanh": jnp.tanh, "half": lambda x: x / 2}, 2)
    policy, half = categorical(space.choices), (jnp.ones((8, 5)), jnp.zeros(8, jnp.int32))
    estimator = reinforce(policy, num_samples=3)
    searcher = gradient_search(space, policy, estimator, optax.sgd(0.1), optax.sgd(0.1), step=joint)
    state = searcher.init(KEY, Batch(half, half))

    def estimate(key, logits):
        def loss_fn(paths, params):
            return classification_loss(space)(paths, params, half)

        return estimator.estimate(key, state.estimator, logits, loss_fn, state.params)[1]

    kept = jax.jit(estimate).lower(KEY, state.policy_params).as_text()
    dropped = jax.jit(searcher.step).lower(KEY, state, Batch(half, half)).as_text()
    assert ("tensor<3x8x5xf32>" in kept, "tensor<3x8x5xf32>" in dropped) == (True, False)


# Steps of one's own


def test_a_step_of_ones_own_is_made_of_the_parts_and_rests_when_it_likes():
    """Two steps of the weights, and one of the policy before them in every other step."""

    def step(parts, key, state, batch):
        def move(state):
            return policy_step(parts, key, state, batch.policy)

        def rest(state):
            return state, dict.fromkeys(("policy_loss", "penalty", "policy_norm"), jnp.float32(0))

        moved, policy_seen = jax.lax.cond(state.step % 2 == 0, move, rest, state)
        once, _ = weight_step(parts, key, moved, batch.weights)
        twice, weights_seen = weight_step(parts, key, once, batch.weights)
        return twice, policy_seen | weights_seen

    searcher = gradient_search(SPACE, POLICY, exact(POLICY), optax.sgd(0.1), optax.sgd(0.1), loss=loss, step=step)
    state = searcher.init(KEY, batch())
    for expected in (False, True, False):
        new, info = jax.jit(searcher.step)(KEY, state, batch())
        seen = [info.policy_loss, info.penalty, info.policy_norm]
        assert np.isnan(seen).tolist() == 3 * [expected]
        assert np.array_equal(new.policy_params["edges"], state.policy_params["edges"]) == expected
        assert info.nonfinite == 0
        state = new
    assert (state.step, state.bad, state.policy_steps) == (3, 0, 2)
    assert searcher.policy is POLICY


def test_a_step_may_leave_the_policy_alone():
    """As a warm-up does: what there is to say of the policy does not apply."""
    policy, txs = categorical(SPACE.choices), (optax.sgd(0.1), optax.sgd(0.1))
    searcher = gradient_search(
        SPACE,
        policy,
        pathwise(),
        *txs,
        loss=loss,
        step=lambda parts, key, state, x: weight_step(parts, key, state, x[0]),
    )
    state = searcher.init(KEY, batch())
    after, info = jax.jit(searcher.step)(KEY, state, batch())
    assert (int(after.step), int(after.policy_steps), float(info.nonfinite)) == (1, 0, 0.0)
    assert np.isnan([info.policy_loss, info.penalty, info.policy_norm]).all()
