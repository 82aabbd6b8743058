"""The learning rule of NAS-RL against numpy written by hand, with no setting at zero or at its default.

The toy has two decisions with three options each, whose logits are the parameters of the policy.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.errors import UserError
from jaxnas.policies import categorical, controller
from jaxnas.searchers import PPO, accuracy_cubed, depth_schedule, nas_rl
from tests.by_hand import Sgd, softmax

KEY = jax.random.key(3)
CHOICES = {"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
POLICY = categorical(CHOICES)
LOGITS = np.random.default_rng(8).normal(size=(2, 3))
ARCHS = np.array([[0, 1], [2, 0], [1, 1], [2, 2]])
ERRORS = np.array([[0.3, 0.9, np.nan, 0.5], [0.2, 0.4, 0.1, 0.6], [np.inf, 0.7, 0.8, 0.0], [np.nan] * 4])
RATE, MOMENTUM, DECAY = 0.4, 0.7, 0.8


def score(logits, arch):
    """The gradient of the log-probability of an architecture with respect to the logits."""
    return np.eye(3)[arch] - softmax(logits)


def log_prob(logits, arch):
    return np.log(softmax(logits)[np.arange(2), arch]).sum()


def uphill(logits, archs, advantages):
    """`1/m sum_k A_k grad log p(arch_k)`."""
    return np.mean([a * score(logits, arch) for arch, a in zip(archs, advantages, strict=True)], 0)


def advantages_by_hand(inclusive=False, corrected=True):
    """Advantages of each batch of `ERRORS`, and the average after it; the wrong variants are for comparison."""
    total, weight, rows, averages = 0.0, 0.0, [], []
    for errors in ERRORS:
        rewards = np.where(np.isfinite(errors), (1 - errors) ** 3, 0.0)
        after = DECAY * total + (1 - DECAY) * rewards.mean(), DECAY * weight + (1 - DECAY)
        used = after if inclusive else (total, weight)
        baseline = used[0] / (used[1] or 1) if corrected else used[0]
        (total, weight) = after
        rows.append(rewards - baseline)
        averages.append(after)
    return rows, averages


def at(state, logits):
    return state._replace(policy_params={"edges": jnp.asarray(logits, jnp.float32)})


def logits_of(tree):
    return np.asarray(tree["edges"], np.float64)


def asked(search, state, archs):
    """The state after an ask that answered with `archs`, at the present parameters."""
    state, _ = search.ask(KEY, state)
    slot = jnp.argmax(state.outstanding.first)
    return state._replace(outstanding=state.outstanding._replace(rows=state.outstanding.rows.at[slot].set(archs)))


def told(search, state, archs, errors):
    return jax.jit(search.tell)(KEY, state, {"edges": jnp.asarray(archs)}, jnp.asarray(errors, jnp.float32)[:, None])


@functools.cache
def make(**settings):
    settings = {"batch_size": 4, "reward": accuracy_cubed, "baseline_decay": DECAY, **settings}
    return nas_rl(POLICY, optax.sgd(RATE, momentum=MOMENTUM), **settings)


def test_steps_are_those_by_hand():
    """REINFORCE above the average of earlier batches; fitness that is not finite is a reward of 0 that teaches."""
    search = make()
    state = at(search.init(KEY), LOGITS)
    rights, averages = advantages_by_hand()
    wrongs = [advantages_by_hand(**wrong)[0] for wrong in ({"inclusive": True}, {"corrected": False})]
    np.testing.assert_allclose(rights[0], [0.343, 0.001, 0.0, 0.125])  # in the first batch the rewards, above 0
    sgd, logits = Sgd(MOMENTUM, 0.0), LOGITS
    for number, (errors, advantages, average) in enumerate(zip(ERRORS, rights, averages, strict=True)):
        state, info = told(search, asked(search, state, ARCHS), ARCHS, errors)
        grad, before = uphill(logits, ARCHS, advantages), logits
        logits = sgd.step({"": logits}, {"": -grad}, RATE)[""]
        np.testing.assert_allclose(logits_of(state.policy_params), logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.baseline, average, rtol=1e-5)
        assert int(info.bad) == np.sum(~np.isfinite(errors))
        # The same step with a baseline that counts the present batch, or is not corrected for its start.
        for wrong in [rows[number] for rows in wrongs][: 1 + (0 < number)]:
            assert np.abs(uphill(before, ARCHS, wrong) - grad).max() > 1e-4
    assert float(info.best) == 0.0
    assert search.decode(state)["edges"].tolist() == [2, 2]


def test_earlier_rewards_matter_through_the_baseline_alone():
    search = nas_rl(POLICY, optax.sgd(RATE), batch_size=1, reward=accuracy_cubed)
    start, moves, baselines = at(search.init(KEY), LOGITS), [], []
    for error in (0.1, 0.6):
        state, _ = told(search, asked(search, start, ARCHS[:1]), ARCHS[:1], [error])
        state = asked(search, at(state, LOGITS), ARCHS[1:2])
        after, _ = told(search, state, ARCHS[1:2], [0.3])
        moves.append(logits_of(after.policy_params) - LOGITS)
        baselines.append(float(state.baseline.total / state.baseline.weight))
    np.testing.assert_allclose(baselines, [0.9**3, 0.4**3], rtol=1e-5)
    for move, baseline in zip(moves, baselines, strict=True):
        np.testing.assert_allclose(move, RATE * (0.7**3 - baseline) * score(LOGITS, ARCHS[1]), rtol=1e-4, atol=1e-6)


def test_a_constant_reward_teaches_nothing_after_the_first_batch():
    search = make()
    state = search.init(KEY)
    for number in range(4):
        before = at(state, LOGITS)._replace(opt=search.init(KEY).opt)
        state, _ = told(search, asked(search, before, ARCHS), ARCHS, np.full(4, 0.25))
        moved = np.abs(logits_of(state.policy_params) - LOGITS).max()
        assert (moved > 0.03) if number == 0 else (moved < 1e-6), number


def bandit(search, gap, seeds=20, asks=150):
    """The more probable arm after a search among two of them, for each of `seeds`, side by side."""

    def one(key):
        def body(state, key):
            state, archs = search.ask(key, state)
            error = jnp.where(archs["arm"] == 1, 0.5 - gap, 0.5)
            return search.tell(key, state, archs, error)[0], None

        keys = jax.random.split(key, asks + 1)
        return jnp.argmax(jax.lax.scan(body, search.init(keys[0]), keys[1:])[0].policy_params["arm"][0])

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, seeds)))


@pytest.mark.parametrize("settings", [{}, {"ppo": PPO()}, {"staleness": 4}], ids=["plain", "ppo", "stale"])
def test_a_bandit_with_two_arms_is_solved_with_every_seed(settings):
    policy = categorical({"arm": jax.ShapeDtypeStruct((1, 2), jnp.float32)})
    search = nas_rl(policy, optax.adam(0.05), batch_size=4, reward=accuracy_cubed, **settings)
    assert bandit(search, 0.2).tolist() == [1] * 20
    assert bandit(search, -0.2).tolist() == [0] * 20
    wrong = nas_rl(policy, optax.adam(0.05), batch_size=4, reward=lambda error: -accuracy_cubed(error), **settings)
    assert bandit(wrong, 0.2).tolist() == [0] * 20


def test_an_option_whose_children_diverge_is_unlearned():
    search = nas_rl(POLICY, optax.adam(0.05), batch_size=8, reward=accuracy_cubed)

    def body(state, key):
        state, archs = search.ask(key, state)
        error = jnp.where(archs["edges"][:, 0] == 2, jnp.nan, 0.4)
        return search.tell(key, state, archs, error[:, None])

    run = jax.jit(lambda state: jax.lax.scan(body, state, jax.random.split(KEY, 120)))
    state, info = run(search.init(KEY))
    assert softmax(logits_of(state.policy_params))[0, 2] < 0.05
    assert float(info.best[-1]) == pytest.approx(0.4)
    assert int(info.bad.sum()) > 20
    assert int(info.bad[-20:].sum()) <= 20


# PPO


def test_the_first_step_of_ppo_is_that_of_reinforce():
    after = []
    for ppo in (None, PPO(clip=0.2, steps=1)):
        search = make(ppo=ppo)
        after.append(told(search, asked(search, at(search.init(KEY), LOGITS), ARCHS), ARCHS, ERRORS[1])[0])
    chex.assert_trees_all_close(after[0].policy_params, after[1].policy_params, rtol=1e-5, atol=1e-6)
    assert np.abs(logits_of(after[0].policy_params) - LOGITS).max() > 0.01


def test_further_steps_of_ppo_are_those_by_hand_and_the_clip_is_felt():
    """The gradient of a child is left out where its ratio has gone beyond the clip in the direction of its gain."""
    clip, rate, found = 0.1, 2.0, {}
    for used in (clip, 1e6):
        search = nas_rl(POLICY, optax.sgd(rate), batch_size=4, reward=accuracy_cubed, ppo=PPO(clip=used, steps=3))
        state = asked(search, at(search.init(KEY), LOGITS), ARCHS)
        state = state._replace(baseline=state.baseline._replace(total=jnp.float32(0.3), weight=jnp.float32(1.0)))
        found[used] = logits_of(told(search, state, ARCHS, ERRORS[1])[0].policy_params)
        advantages, logits = (1 - ERRORS[1]) ** 3 - 0.3, LOGITS
        for _ in range(3):
            ratios = np.exp([log_prob(logits, arch) - log_prob(LOGITS, arch) for arch in ARCHS])
            beyond = np.where(advantages > 0, ratios > 1 + used, ratios < 1 - used)
            logits = logits + rate * uphill(logits, ARCHS, np.where(beyond, 0, ratios * advantages))
        assert beyond.any() == (used == clip)
        np.testing.assert_allclose(found[used], logits, rtol=1e-4, atol=1e-5)
    assert np.abs(found[clip] - found[1e6]).max() > 0.01


# Growth


def test_growth_changes_no_shape_and_is_compiled_once():
    traces = []

    def policy(length):
        return controller({"ops": jax.ShapeDtypeStruct((4, 3), jnp.float32)}, length=length, num_units=4)

    growth = depth_schedule(start=1, by=1, every=4, most=3, tokens_per_layer=1)
    search = nas_rl(policy, optax.adam(0.01), batch_size=2, reward=accuracy_cubed, growth=growth)

    @jax.jit
    def step(key, state):
        traces.append(None)
        state, archs = search.ask(key, state)
        origins = search.origins(state)
        return search.tell(key, state, archs, jnp.full((2, 1), 0.5))[0], (archs, origins)

    state, lengths = search.init(KEY), []
    for number in range(8):
        before = state
        state, (archs, origins) = step(jax.random.fold_in(KEY, number), state)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, before)
        length = int(origins["length"][0])
        assert origins["length"].shape == (2,)
        assert not np.asarray(archs["ops"])[:, length:].any()
        lengths.append(length)
    assert lengths == [1, 1, 2, 2, 3, 3, 3, 3]
    assert len(traces) == 1


def test_children_that_are_told_late_are_judged_by_the_depth_at_which_they_were_asked():
    """At another depth a child of the first ask would have a probability of 0, or that of other decisions."""

    def policy(length):
        return controller({"ops": jax.ShapeDtypeStruct((3, 3), jnp.float32)}, length=length, num_units=4, scale=0.5)

    growth = depth_schedule(start=1, by=2, every=2, most=3, tokens_per_layer=1)
    search = nas_rl(policy, optax.sgd(0.1), batch_size=2, reward=accuracy_cubed, growth=growth, replicas=2)
    state = search.init(KEY)
    params, archs = state.policy_params, []
    for number in range(2):
        state, one = search.ask(jax.random.fold_in(KEY, number), state)
        archs.append(one)
    assert not np.asarray(archs[0]["ops"])[:, 1:].any()
    assert np.asarray(archs[1]["ops"])[:, 1:].any()
    for number, length in ((0, 1), (1, 3)):
        after, _ = jax.jit(search.tell)(KEY, state, archs[number], jnp.array([[0.2], [0.6]]))
        rewards = jnp.array([0.8**3, 0.4**3])

        def gain(params, length=length, number=number, rewards=rewards):
            return jnp.mean(rewards * jax.vmap(policy(length).log_prob, (None, 0))(params, archs[number]))

        wanted = jax.tree.map(lambda leaf, g: leaf + 0.1 * g, params, jax.jit(jax.grad(gain))(params))
        chex.assert_trees_all_close(after.policy_params, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"replicas": 0}, "replicas must be at least 1, got 0"),
        ({"staleness": -1}, "staleness must be at least 0, got -1"),
        ({"baseline_decay": 1.0}, r"baseline_decay must be at least 0 and below 1, got 1\.0"),
        ({"ppo": PPO(clip=0.0)}, "ppo must have a clip above 0 and at least 1 step"),
        ({"ppo": PPO(steps=0)}, "ppo must have a clip above 0 and at least 1 step"),
        ({"growth": depth_schedule()}, "policy must be a function of the number of tokens with growth"),
        ({"policy": lambda length: POLICY}, "policy must be a function of the number of tokens with growth"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        nas_rl(**{"policy": POLICY, "tx": optax.sgd(1.0), "batch_size": 2, "reward": accuracy_cubed, **settings})


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_reward_that_is_not_finite_moves_nothing_and_counts_the_batch_as_bad(staleness):
    search = make(reward=lambda error: 1 / (error - 0.5), staleness=staleness)
    start = asked(search, search.init(KEY), ARCHS)
    state, info = told(search, start, ARCHS, [0.5, 0.1, 0.2, 0.3])
    assert (int(info.bad), float(info.best)) == (4, pytest.approx(0.1))
    assert int(state.outstanding.first[0]) == -1  # they have been told all the same
    chex.assert_trees_all_equal(state._replace(best=start.best, outstanding=start.outstanding), start)


def test_a_reward_of_another_shape_is_refused():
    search = make(reward=lambda error: jnp.mean(error))
    with pytest.raises(UserError, match=r"reward must return an array of shape \(4,\), got \(\)"):
        told(search, asked(search, search.init(KEY), ARCHS), ARCHS, ERRORS[0])
