"""Parallel training in NAS-RL: parameters that are some updates old, and several asks that have not been told yet."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.errors import UserError
from jaxnas.policies import categorical
from jaxnas.searchers import PPO, accuracy_cubed, nas_rl
from tests.by_hand import softmax

KEY = jax.random.key(4)
POLICY = categorical({"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)})
RATE = 0.5


def make(batch_size=2, **settings):
    return nas_rl(POLICY, optax.sgd(RATE), batch_size=batch_size, reward=accuracy_cubed, **settings)


def logits_of(tree):
    return np.asarray(tree["edges"], np.float64)


def uphill(logits, archs, advantages):
    """`1/m sum_k A_k grad log p(arch_k)` of independent softmaxes."""
    rows = zip(np.asarray(archs["edges"]), advantages, strict=True)
    return np.mean([a * (np.eye(3)[arch] - softmax(logits)) for arch, a in rows], 0)


def tell(search, state, archs, errors):
    return jax.jit(search.tell)(KEY, state, archs, jnp.asarray(errors, jnp.float32)[:, None])[0]


def run(search, steps=6):
    """What a search that is told at once asks, and its states before each ask and after the last tell."""

    @jax.jit
    def step(key, state):
        state, archs = search.ask(key, state)
        errors = jnp.mean(archs["edges"], -1, keepdims=True) / 2
        return search.tell(key, state, archs, errors)[0], archs

    states, asked = [search.init(KEY)], []
    for number in range(steps):
        state, archs = step(jax.random.fold_in(KEY, number), states[-1])
        states.append(state)
        asked.append(np.asarray(archs["edges"]))
    return np.stack(asked), states


def test_told_at_once_any_number_of_replicas_is_the_same_search():
    archs, states = run(make())
    for replicas in (2, 3):
        others, ends = run(make(replicas=replicas))
        np.testing.assert_array_equal(archs, others)
        chex.assert_trees_all_close(states[-1].policy_params, ends[-1].policy_params, rtol=1e-6, atol=1e-7)
        chex.assert_trees_all_close(states[-1].baseline, ends[-1].baseline, rtol=1e-6)


# Staleness


def test_a_search_remembers_the_parameters_before_its_last_updates():
    _, states = run(make(staleness=3))
    for number, state in enumerate(states):
        for age in (1, 2, 3):
            wanted = states[max(number - age, 0)].policy_params  # before the start there are those of the start
            np.testing.assert_array_equal(state.earlier["edges"][age - 1], wanted["edges"])
    assert np.abs(logits_of(states[1].policy_params) - logits_of(states[2].policy_params)).max() > 1e-3


def aged(search):
    """A state whose parameters of 0, 1 and 2 updates ago choose the options 0, 1 and 2."""
    levels = 30 * jnp.eye(3)[:, None, :] * jnp.ones((3, 2, 1))
    return search.init(KEY)._replace(policy_params={"edges": levels[0]}, earlier={"edges": levels[1:]})


def test_every_age_up_to_the_greatest_is_equally_frequent():
    search, count = make(batch_size=1, staleness=2), 6000
    state = aged(search)
    asks = jax.jit(jax.vmap(lambda key: search.ask(key, state)[1]["edges"][0, 0]))
    seen = np.bincount(np.asarray(asks(jax.random.split(KEY, count))), minlength=3)

    def chi_square(probabilities):
        expected = count * np.asarray(probabilities)
        return ((seen - expected) ** 2 / expected).sum()

    assert chi_square([1 / 3] * 3) < 20  # two degrees of freedom: exceeded with a probability of 5e-5
    assert chi_square([0.4, 0.3, 0.3]) > 100  # the wrong variant


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_a_gradient_is_taken_at_the_parameters_of_its_ask_and_moves_the_present_ones(staleness):
    """For every age, by the parameters that the ask says it was sampled with."""
    search = make(staleness=staleness)
    levels = np.random.default_rng(0).normal(size=(staleness + 1, 2, 3))
    tree = {"edges": jnp.asarray(levels, jnp.float32)}
    start = search.init(KEY)._replace(policy_params={"edges": tree["edges"][0]}, earlier={"edges": tree["edges"][1:]})
    ages = set()
    for number in range(12):
        state, archs = search.ask(jax.random.fold_in(KEY, number), start)
        used = logits_of(state.outstanding.policy_params)[0]
        (age,) = [age for age in range(staleness + 1) if np.allclose(used, levels[age], atol=1e-6)]
        ages.add(age)
        after = tell(search, state, archs, [0.1, 0.5])
        wanted = levels[0] + RATE * uphill(levels[age], archs, [0.9**3, 0.5**3])
        np.testing.assert_allclose(logits_of(after.policy_params), wanted, rtol=1e-5, atol=1e-6)
        for other in set(range(staleness + 1)) - {age}:
            wrong = levels[0] + RATE * uphill(levels[other], archs, [0.9**3, 0.5**3])
            assert np.abs(wrong - wanted).max() > 1e-3
    assert ages == set(range(staleness + 1))


def test_ppo_weighs_stale_children_by_the_ratio_of_their_probabilities():
    search = make(batch_size=1, staleness=1, ppo=PPO(clip=1e6, steps=1))
    now, old = np.random.default_rng(1).normal(size=(2, 2, 3))
    start = search.init(KEY)._replace(
        policy_params={"edges": jnp.asarray(now, jnp.float32)}, earlier={"edges": jnp.asarray(old, jnp.float32)[None]}
    )
    for number in range(6):
        state, archs = search.ask(jax.random.fold_in(KEY, number), start)
        sampled_with, arch = logits_of(state.outstanding.policy_params)[0], np.asarray(archs["edges"])[0]
        chances = [softmax(logits)[np.arange(2), arch].prod() for logits in (now, sampled_with)]
        wanted = now + RATE * uphill(now, archs, [0.8**3 * chances[0] / chances[1]])
        after = tell(search, state, archs, [0.2])
        np.testing.assert_allclose(logits_of(after.policy_params), wanted, rtol=1e-4, atol=1e-6)


# Several asks at a time


def outstanding(search, number):
    """A state with some asks made at different parameters, their architectures, and those parameters."""
    state, archs, params = search.init(KEY), [], []
    for n in range(number):
        params.append(np.random.default_rng(n).normal(size=(2, 3)))
        state = state._replace(policy_params={"edges": jnp.asarray(params[-1], jnp.float32)})
        state, asked = search.ask(jax.random.fold_in(KEY, n), state)
        archs.append(asked)
    return state, archs, params


def moved(search, state, archs, params, advantages=(0.9**3, 0.5**3)):
    """Whether a tell takes its gradient at `params`; the rewards are those of the errors 0.1 and 0.5."""
    after = tell(search, state, archs, [0.1, 0.5])
    wanted = logits_of(state.policy_params) + RATE * uphill(params, archs, advantages)
    return after, np.allclose(logits_of(after.policy_params), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_asks_are_told_in_any_order_each_at_its_own_parameters(order):
    search = make(replicas=3)
    state, archs, params = outstanding(search, 3)
    assert len({tuple(one["edges"].ravel().tolist()) for one in archs}) == 3
    for place, number in enumerate(order):
        state = state._replace(baseline=search.init(KEY).baseline)
        for other in set(order) - {number}:
            assert not moved(search, state, archs[number], params[other])[1]
        state, right = moved(search, state, archs[number], params[number])
        assert right
        assert int(np.sum(np.asarray(state.outstanding.first) >= 0)) == 2 - place


def test_of_two_asks_with_the_same_architectures_the_older_is_told():
    search = make(replicas=3)
    state, archs, params = outstanding(search, 3)
    rows = state.outstanding.rows
    state = state._replace(outstanding=state.outstanding._replace(rows=rows.at[1].set(rows[2])))
    state, right = moved(search, state, archs[2], params[1])
    assert right
    state = state._replace(baseline=search.init(KEY).baseline)
    assert moved(search, state, archs[2], params[2])[1]


def test_an_ask_too_many_overwrites_the_oldest_which_then_teaches_nothing():
    search = make(replicas=2)
    state, archs, params = outstanding(search, 3)
    assert sorted(np.asarray(state.outstanding.first).tolist()) == [2, 4]
    assert int(state.forgotten) == 1
    after, info = search.tell(KEY, state, archs[0], jnp.array([[0.1], [0.5]]))
    chex.assert_trees_all_equal(after._replace(best=state.best), state)  # no slot of another ask was taken either
    assert (int(info.bad), float(info.best)) == (2, np.float32(0.1))
    # The asks that are still outstanding teach with their own parameters; one tell makes no second one known.
    for number in (1, 2):
        after = after._replace(baseline=state.baseline)
        after, right = moved(search, after, archs[number], params[number])
        assert right
    assert int(search.tell(KEY, after, archs[0], jnp.array([[0.1], [0.5]]))[1].bad) == 2


def test_architectures_that_were_changed_belong_to_the_oldest_ask():
    search = make(replicas=2)
    state, archs, params = outstanding(search, 2)
    changed = {"edges": jnp.array([[0, 0], [0, 1]])}
    assert not any(np.array_equal(one["edges"], changed["edges"]) for one in archs)
    state, right = moved(search, state, changed, params[0])
    assert right
    state = state._replace(baseline=search.init(KEY).baseline)
    state, right = moved(search, state, changed, params[1])
    assert right
    # With nothing outstanding they teach at the present parameters.
    state = state._replace(baseline=search.init(KEY).baseline)
    assert moved(search, state, changed, logits_of(state.policy_params))[1]


def test_another_number_of_architectures_than_were_asked_for_is_refused():
    search = make()
    state, archs = search.ask(KEY, search.init(KEY))
    with pytest.raises(UserError, match="archs must be the 2 architectures of one ask, got 1"):
        tell(search, state, jax.tree.map(lambda leaf: leaf[:1], archs), [0.5])
