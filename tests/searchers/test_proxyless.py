"""ProxylessNAS on a small space: what moves, what stays bit for bit, and what latency does to the choice."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Batch, CostTable, sparse_paths
from jaxnas.costs.latency import latency_objective
from jaxnas.searchers import proxyless, reward_loss
from jaxnas.spaces import chain_space, proxyless_space

KEY = jax.random.key(4)
SPACE = chain_space(
    {"small": nn.Dense(4), "large": nn.Dense(4), "zero": jnp.zeros_like}, 4, stem=nn.Dense(4), head=nn.Dense(3)
)
NAMES = SPACE.about.operations["chain"]
TABLE = CostTable(5.0, {"chain": np.array([[1.0, 4.0, 0.0]] * 4)})
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.standard_normal((8, 5)), jnp.float32), jnp.asarray(RNG.integers(0, 3, 8))
BATCH = Batch((X, Y), (X[::-1], Y[::-1]))


@functools.cache
def started(mode, **settings):
    """A searcher with its first state and its step, compiled once."""
    searcher = proxyless(SPACE, mode=mode, policy_every=1, policy_learning_rate=0.05, num_samples=2, **settings)
    traces = []

    def step(key, state, batch):
        traces.append(key)
        assert len(traces) == 1, "one compilation for a whole search"
        return searcher.step(key, state, batch)

    return searcher, jax.jit(searcher.init)(KEY, BATCH), jax.jit(step)


def spread(state):
    """The state with logits apart from each other, so that probabilities differ."""
    logits = jax.tree.map(lambda leaf: jnp.sin(jnp.arange(float(leaf.size))).reshape(leaf.shape), state.policy_params)
    return state._replace(policy_params=logits)


def moved_operations(before, after):
    """Of every operation the places of the chain whose weights changed."""
    changed = {}
    for name in before["blocks"]:
        leaves = zip(jax.tree.leaves(before["blocks"][name]), jax.tree.leaves(after["blocks"][name]), strict=True)
        flags = [np.any(np.asarray(a) != np.asarray(b), tuple(range(1, a.ndim))) for a, b in leaves]
        if flags:
            changed[name] = np.any(flags, 0)
    return changed


@pytest.mark.parametrize("mode", ["full_v2", "two"])
def test_what_did_not_run_keeps_weights_and_momentum_bit_for_bit(mode):
    _, state, step = started(mode)
    for i in range(6):
        new, info = step(jax.random.fold_in(KEY, i), state, BATCH)
        assert info.nonfinite == 0
        weights = moved_operations(state.params, new.params)
        momentum = moved_operations(optax.tree.get(state.weight_opt, "trace"), optax.tree.get(new.weight_opt, "trace"))
        assert (sum(flags.astype(int) for flags in weights.values()) <= 1).all(), "at most one operation of a place"
        chex.assert_trees_all_equal(weights, momentum)
        state = new
    assert all(flags.any() for flags in moved_operations(started(mode)[1].params, state.params).values())


@pytest.mark.parametrize("skips", [True, False])
def test_full_and_full_v2_are_one_gradient_with_other_memory(skips):
    results = []
    for mode in ("full_v2", "full"):
        _, state, step = started(mode, skip_zero_sampled=skips)
        results.append(step(KEY, spread(state), BATCH))
    (one, info), (other, shown) = results
    chex.assert_trees_all_close(one.policy_params, other.policy_params, atol=1e-5)
    chex.assert_trees_all_close(one.params, other.params, atol=1e-5)
    chex.assert_trees_all_close(info.policy_norm, shown.policy_norm, rtol=1e-4)


def test_two_paths_leave_the_probabilities_of_the_others_alone():
    _, state, step = started("two", skip_zero_sampled=False)
    state = spread(state)
    for i in range(5):
        new, _ = step(jax.random.fold_in(KEY, i), state, BATCH)
        for before, after in zip(jax.tree.leaves(state.policy_params), jax.tree.leaves(new.policy_params), strict=True):
            moved = np.asarray(before != after)
            assert (moved.sum(-1) <= 2).all()
            apart = np.abs(jax.nn.softmax(after) - jax.nn.softmax(before))
            assert apart[~moved].max(initial=0) < 1e-7
        state = new


@pytest.mark.parametrize("mode", ["full_v2", "full", "two"])
def test_a_sampled_zero_learns_nothing_and_its_optimiser_stands_still(mode):
    """With nearly all weight on zero it is drawn everywhere; latency alone would move the logits."""
    objective = latency_objective(TABLE, 10.0, "add#linear", weight=5.0)
    for skips in (True, False):
        searcher = proxyless(SPACE, mode=mode, policy_every=1, objective=objective, skip_zero_sampled=skips)
        state = jax.jit(searcher.init)(KEY, BATCH)
        logits = jnp.array([[0.0, 12.0, 0.0]] + [[0.0, 0.0, 12.0]] * 3)
        opt = optax.tree.set(state.policy_opt, nu={"chain": jnp.ones((4, 3))})
        state = state._replace(policy_params={"chain": logits}, policy_opt=opt)
        new, _ = jax.jit(searcher.step)(KEY, state, BATCH)
        still = np.array_equal(new.policy_params["chain"][1:], logits[1:])
        moments = optax.tree.get(new.policy_opt, "nu")["chain"]
        assert still == skips
        assert bool((moments[1:] == 1).all()) == skips
        assert not np.array_equal(new.policy_params["chain"][0], logits[0])
        assert bool((moments[0] != 1).any())


def test_the_architecture_rests_through_the_warm_up_and_moves_every_fifth_step():
    searcher = proxyless(SPACE, warmup_steps=3, rest_steps=2, policy_every=2)
    state, moved = searcher.init(KEY, BATCH), []
    step = jax.jit(searcher.step)
    for i in range(9):
        new, info = step(jax.random.fold_in(KEY, i), state, BATCH)
        moved.append(not np.array_equal(new.policy_params["chain"], state.policy_params["chain"]))
        assert np.isfinite(float(info.policy_loss)) == moved[-1]
        state = new
    assert moved == [False] * 6 + [True, False, True]


def test_reinforce_climbs_a_reward_of_latency_alone():
    """With accuracy the same for all, the fastest operations win."""
    searcher = proxyless(
        SPACE,
        mode="reinforce",
        policy_every=1,
        policy_learning_rate=0.2,
        num_samples=4,
        reward=lambda paths, params, batch, key: (
            -reward_of(paths),
            {"accuracy": jnp.zeros(())},
        ),
    )
    state, step = searcher.init(KEY, BATCH), jax.jit(searcher.step)
    for i in range(40):
        state, _ = step(jax.random.fold_in(KEY, i), state, BATCH)
    assert {NAMES[k] for k in searcher.decode(state)["chain"].tolist()} == {"zero"}


def reward_of(paths):
    costs = [jnp.sum(jnp.asarray(TABLE.table[kind])[jnp.arange(len(i)), i[:, 0]]) for kind, i in paths.index.items()]
    return 5.0 / (5.0 + sum(costs))


def test_the_reward_is_accuracy_times_a_power_of_latency():
    loss = reward_loss(SPACE, TABLE, 10.0, exponent=0.5)
    params = SPACE.init(KEY, X)
    paths = sparse_paths({"chain": jnp.array([1, 0, 1, 2])})
    value, aux = jax.jit(lambda p: loss(paths, p, (X, Y), None))(params)
    assert float(value) == pytest.approx(-float(aux["accuracy"]) * (10 / 14) ** 0.5, rel=1e-5)


@pytest.mark.slow
def test_opposite_tables_flip_the_kernels():
    """Two places of the same network: where 7x7 is dear 3x3 is chosen, and the other way round."""
    sizes = {"stem_channels": 4, "stem_stride": 1, "first_channels": 4, "last_channels": 8, "num_classes": 3}
    space = proxyless_space((4, 6), (1, 1), (2, 2), **sizes, kernels=(3, 7), expansions=(2,))
    assert space.about.operations["entry"] == ("3x3_e2", "7x7_e2")
    table = CostTable(2.0, {"entry": np.array([[1.0, 9.0], [9.0, 1.0]])})
    searcher = proxyless(
        space,
        policy_every=1,
        policy_learning_rate=0.1,
        objective=latency_objective(table, 10.0, "add#linear", weight=10.0),
    )
    images = jnp.asarray(RNG.standard_normal((8, 8, 8, 1)), jnp.float32)
    batch = Batch((images, Y), (images, Y))
    state, step = jax.jit(searcher.init)(KEY, batch), jax.jit(searcher.step)
    for i in range(25):
        state, _ = step(jax.random.fold_in(KEY, i), state, batch)
    assert searcher.decode(state)["entry"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "three"},
        {"warmup_steps": -1},
        {"policy_every": 0},
        {"reward": lambda *args: None},
        {"mode": "reinforce", "num_samples": 1},
        {"mode": "reinforce", "baseline": "mean"},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be|needs"):
        proxyless(SPACE, **settings)
