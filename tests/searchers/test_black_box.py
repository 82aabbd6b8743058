"""What every black-box searcher has in common, checked for one table of all of them.

To add a searcher, add a row to `ROWS`: a name, a factory that takes the choices of a space, and its number of
objectives. What is special to it goes into a test file named after its file.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.architectures import arch_like
from jaxnas.base import BlackBox, Tree
from jaxnas.policies import categorical, controller
from jaxnas.run import Run, search
from jaxnas.searchers import (
    PPO,
    BlackBoxInfo,
    PolicySearchState,
    depth_schedule,
    local_search,
    nas_rl,
    nsga2,
    policy_search,
    random_search,
    regularized_evolution,
)
from jaxnas.tabular import Task, simulate, task_evaluator

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX


class Row(NamedTuple):
    name: str
    factory: Callable[[Tree], BlackBox]
    objectives: int = 1


def reinforce(choices, **settings):
    # With the usual eps of 1e-8 one rounding error would move a logit as far as any other gradient.
    return policy_search(categorical(choices), optax.adam(0.3, eps=1e-3), **settings)


def policy_gradient(choices, policy=None, **settings):
    policy = policy or categorical(choices)
    return nas_rl(policy, optax.adam(0.3, eps=1e-3), reward=lambda fitness: 13 - fitness, **settings)


def growing(choices):
    growth = depth_schedule(start=2, by=1, every=4, most=5, tokens_per_layer=1)
    return policy_gradient(
        choices, lambda length: controller(choices, length=length, num_units=6), batch_size=2, growth=growth
    )


ROWS = [
    Row("random search", random_search),
    Row("random search, batches", lambda choices: random_search(choices, batch_size=4, archive_size=3)),
    Row("random search, front", lambda choices: random_search(choices, num_objectives=2, archive_size=6), 2),
    Row("regularised evolution", lambda c: regularized_evolution(c, population_size=8, sample_size=3)),
    Row("regularised evolution, batches", lambda c: regularized_evolution(c, population_size=8, batch_size=4)),
    Row("local search, best", local_search),
    Row("local search, first", lambda choices: local_search(choices, rule="first")),
    Row("reinforce", reinforce),
    Row("reinforce, batches", lambda choices: reinforce(choices, batch_size=4)),
    Row("nas-rl", lambda choices: policy_gradient(choices, batch_size=2)),
    Row("nas-rl, ppo", lambda choices: policy_gradient(choices, batch_size=2, ppo=PPO(steps=2))),
    Row("nas-rl, stale replicas", lambda choices: policy_gradient(choices, batch_size=1, staleness=2, replicas=3)),
    Row("nas-rl, growing controller", growing),
    Row("nsga2", lambda choices: nsga2(choices, population_size=6), 2),
    Row("nsga2, one objective", lambda c: nsga2(c, population_size=6, num_objectives=1, tournament="dominance")),
]
EVERY = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
EAGER = {"random search", "regularised evolution", "local search, best", "reinforce", "nas-rl"}  # an eager step is slow
CHOICES = {
    "normal": jax.ShapeDtypeStruct((3, 4), jnp.float32),
    "reduce": jax.ShapeDtypeStruct((2, 3), jnp.float32),
}
KEY = jax.random.key(0)
STEPS = 60


def fitness_of(archs, objectives):
    """Two sums that pull in opposite directions; the first alone is least where every decision is zero."""
    total = sum(jnp.sum(leaf, -1) for leaf in jax.tree.leaves(archs)).astype(jnp.float32)
    return jnp.stack([total, (total - 13) ** 2], -1)[:, :objectives]


@functools.cache
def programs(row):
    """The searcher and one step of it as a program that refuses to be traced twice."""
    searcher, traces = row.factory(CHOICES), []

    def step(key, state):
        traces.append(None)
        assert len(traces) == 1, f"{row.name} was traced {len(traces)} times"
        return one_step(searcher, row.objectives, key, state)

    return searcher, jax.jit(step)


def one_step(searcher, objectives, key, state, spoil=None):
    key_ask, key_tell = jax.random.split(key)
    state, archs = searcher.ask(key_ask, state)
    fitness = fitness_of(archs, objectives)
    if spoil is not None:
        fitness = jnp.where(spoil, jnp.nan, fitness)
    state, info = searcher.tell(key_tell, state, archs, fitness)
    return state, (archs, info)


@EVERY
def test_parameter_names(row):
    searcher, _ = programs(row)
    names = {
        "init": ["key"],
        "ask": ["key", "state"],
        "tell": ["key", "state", "archs", "fitness"],
        "decode": ["state"],
    }
    found = {name: list(inspect.signature(getattr(searcher, name)).parameters) for name in names}
    assert found == names


@pytest.mark.leaks
@EVERY
def test_state_is_a_fixed_point_and_architectures_belong_to_the_space(row):
    searcher, step = programs(row)
    state = searcher.init(KEY)
    after, (archs, info) = jax.eval_shape(functools.partial(one_step, searcher, row.objectives), KEY, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert isinstance(info, BlackBoxInfo)
    assert all(leaf.shape == () for leaf in info)
    for i in range(3):
        state, (archs, _) = step(jax.random.fold_in(KEY, i), state)
        for j in range(len(archs["normal"])):
            arch_like(CHOICES, jax.tree.map(lambda leaf, j=j: np.asarray(leaf)[j], archs))
    assert arch_like(CHOICES, jax.tree.map(np.asarray, searcher.decode(state)))


@EVERY
def test_jit_equals_eager_and_a_loop_equals_scan_and_vmap(row):
    searcher, step = programs(row)
    keys = jax.random.split(KEY, 4)
    loop, eager, infos = searcher.init(KEY), searcher.init(KEY), []
    for i, key in enumerate(keys):
        loop, info = step(key, loop)
        infos.append(info)
        if i == 0 and row.name in EAGER:
            eager, other = one_step(searcher, row.objectives, key, eager)
            chex.assert_trees_all_close(info, other, rtol=1e-6)
    scanned, rows = jax.jit(lambda s: jax.lax.scan(lambda s, k: one_step(searcher, row.objectives, k, s), s, keys))(
        searcher.init(KEY)
    )
    chex.assert_trees_all_close(scanned, loop, rtol=1e-6)
    chex.assert_trees_all_close(rows, jax.tree.map(lambda *leaves: jnp.stack(leaves), *infos), rtol=1e-6)
    seeds = jax.random.split(KEY, 2)
    many = jax.jit(jax.vmap(lambda key: one_step(searcher, row.objectives, key, searcher.init(key))))(seeds)
    alone = [step(key, searcher.init(key)) for key in seeds]
    # Two programs: where the gradient of a logit is zero, Adam divides a rounding error of 1e-7 by its eps.
    alone = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    chex.assert_trees_all_close(many, alone, rtol=1e-6, atol=1e-4)


@EVERY
def test_decode_is_the_best_of_everything_told(row):
    searcher, step = programs(row)
    state, told = searcher.init(KEY), []
    for i in range(STEPS):
        state, (archs, info) = step(jax.random.fold_in(KEY, i), state)
        told.append(np.asarray(fitness_of(archs, 1))[:, 0])
    best = np.concatenate(told).min()
    assert float(info.best) == best
    decoded = jax.tree.map(lambda leaf: leaf[None], searcher.decode(state))
    assert float(fitness_of(decoded, 1)[0, 0]) == best


@EVERY
def test_what_is_not_finite_never_wins(row):
    searcher, _ = programs(row)
    state, told = searcher.init(KEY), []
    spoiled = jax.jit(lambda key, state, spoil: one_step(searcher, row.objectives, key, state, spoil))
    bad = 0
    for i in range(12):
        spoil = np.random.default_rng(i).random() < 0.5
        state, (archs, info) = spoiled(jax.random.fold_in(KEY, i), state, spoil)
        bad += int(info.bad)
        told += [] if spoil else np.asarray(fitness_of(archs, 1))[:, 0].tolist()
    assert bad > 0
    assert not any(bool(jnp.isnan(leaf).any()) for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32)
    decoded = jax.tree.map(lambda leaf: leaf[None], searcher.decode(state))
    assert float(fitness_of(decoded, 1)[0, 0]) == min(told)


@EVERY
def test_the_driver_on_the_host_proposes_and_finds_what_the_traced_one_does(row, tmp_path):
    def evaluate(key, archs):
        fitness = fitness_of(archs, row.objectives)
        return fitness, jnp.ones(len(fitness))

    searcher, _ = programs(row)
    task, asks = Task(CHOICES, evaluate, 1.0, 1.0), 8
    with Run(tmp_path, writers=()) as run:
        key = run.key("search")
        state, history = search(run, "search", searcher, task_evaluator(key, task), asks)
    traced_state, traced = jax.jit(simulate(searcher, task, len(history.ids)))(key)
    chex.assert_trees_all_equal((history.archs, history.fitness.astype(np.float32)), (traced.archs, traced.fitness))
    chex.assert_trees_all_equal(searcher.decode(state), searcher.decode(traced_state))
    chex.assert_trees_all_close(state, traced_state, rtol=1e-6, atol=1e-4)


@EVERY
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_bad_generation_then_good_ones(row, bad):
    """It is counted, nothing of it stays, nothing has been found until something was good, and the search goes on."""
    searcher, step = programs(row)
    key_ask, key_tell = jax.random.split(KEY)
    start, archs = searcher.ask(key_ask, searcher.init(KEY))
    count = len(archs["normal"])
    state, info = jax.jit(searcher.tell)(key_tell, start, archs, jnp.full((count, row.objectives), bad))
    assert (int(info.bad), float(info.best)) == (count, np.inf)
    assert not any(bool(jnp.isnan(leaf).any()) for leaf in jax.tree.leaves(state))
    with pytest.raises(ValueError, match="operations must lie in 0"):
        arch_like(CHOICES, searcher.decode(state))
    if isinstance(state, PolicySearchState):  # a child that has diverged teaches NAS-RL that its reward is 0
        learned = [(one.policy_params, one.opt, one.total, one.weight) for one in (state, start)]
        chex.assert_trees_all_equal(*learned)
    told = []
    for i in range(STEPS):
        state, (archs, info) = step(jax.random.fold_in(KEY, i), state)
        assert int(info.bad) == 0
        told.append(np.asarray(fitness_of(archs, 1))[:, 0])
    assert min(told[0].min(), told[-1].min()) < np.inf
    assert float(info.best) == np.concatenate(told).min()
    assert float(info.best) <= 4  # of at most 13, and 6.5 on average
    assert float(fitness_of(jax.tree.map(lambda leaf: leaf[None], searcher.decode(state)), 1)[0, 0]) == float(info.best)


def test_a_policy_step_that_is_not_finite_is_not_taken_and_counted():
    searcher = policy_search(categorical(CHOICES), optax.sgd(3e38), batch_size=2)
    start = searcher.init(KEY)
    state, archs = searcher.ask(KEY, start)
    state, info = jax.jit(searcher.tell)(KEY, state, archs, jnp.array([[1e3], [-1e3]]))
    assert (int(info.bad), float(info.best)) == (2, -1e3)  # the best is data, whatever becomes of the policy
    chex.assert_trees_all_equal(state._replace(best=start.best), start)
    big = jnp.array([[3e38], [3e38]])  # finite, but their sum is not
    state, info = jax.jit(searcher.tell)(KEY, start, archs, big)
    assert int(info.bad) == 2
    chex.assert_trees_all_equal((state.total, state.weight), (start.total, start.weight))


def test_nsga2_descends_from_nobody_as_long_as_nothing_is_finite():
    """Otherwise the first generation of a failing evaluation would breed from rows that stand for nothing."""
    searcher = nsga2(CHOICES, population_size=40, mutation=lambda key, row: row, crossover_rate=0.0, attempts=1)
    state = searcher.init(KEY)
    for i in range(3):
        key_ask, key_tell = jax.random.split(jax.random.fold_in(KEY, i))
        state, archs = searcher.ask(key_ask, state)
        assert len({tuple(row) for row in np.asarray(archs["normal"]).tolist()}) > 20  # of 64
        state, _ = searcher.tell(key_tell, state, archs, jnp.full((40, 2), jnp.nan))
    fitness = jnp.full((40, 2), jnp.nan).at[0].set(1.0)
    state, _ = searcher.tell(KEY, state, archs, fitness)
    children = np.asarray(searcher.ask(KEY, state)[1]["normal"])
    assert len({tuple(row) for row in children.tolist()}) > 5  # what fills up the population is no single architecture
    assert (children == np.asarray(archs["normal"])[0]).all(1).any()


@EVERY
def test_objectives_are_checked(row):
    searcher, _ = programs(row)
    state = searcher.init(KEY)
    state, archs = searcher.ask(KEY, state)
    with pytest.raises(ValueError, match="fitness must have shape"):
        searcher.tell(KEY, state, archs, jnp.zeros((len(archs["normal"]), row.objectives + 1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: regularized_evolution(CHOICES, population_size=0),
        lambda: regularized_evolution(CHOICES, population_size=2, batch_size=3),
        lambda: regularized_evolution(CHOICES, sample_size=0),
        lambda: random_search(CHOICES, archive_size=0),
        lambda: nsga2(CHOICES, population_size=0),
        lambda: nsga2(CHOICES, crossover_rate=1.5),
        lambda: nsga2(CHOICES, tournament="best"),
        lambda: local_search(CHOICES, rule="worst"),
        lambda: reinforce(CHOICES, baseline_decay=1.0),
        lambda: random_search({"edges": jax.ShapeDtypeStruct((2, 1), jnp.float32)}),
        lambda: random_search({}),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(ValueError, match=r"must|need"):
        make()
