"""With 64-bit JAX everything keeps the types it is given: states, gradients, batches and counts of 32 bits stay so.

JAX's defaults become float64 and int64 then, so that one array made without a type widens all that it touches. Programs
are mostly traced and not run here; `JAX_ENABLE_X64=1 pytest` on the conformance tables runs them.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import costs
from jaxnas.base import Batch, CostTable, SearchSpace, sparse_paths
from jaxnas.data import batches
from jaxnas.data.augment import cutout, random_crop, random_flip
from jaxnas.data.examples import Examples
from jaxnas.derive import recalibrate
from jaxnas.estimators import ESTIMATORS, build, reinforce, relax
from jaxnas.judge import judge
from jaxnas.policies import categorical
from jaxnas.population import family_of
from jaxnas.population.member import Member, PopulationData, Recipe, train_member
from jaxnas.run.loop import compiled_steps
from jaxnas.searchers import (
    PPO,
    accuracy_cubed,
    darts,
    gradient_search,
    hypervolume,
    local_search,
    nas_rl,
    nsga2,
    policy_search,
    proxyless,
    random_search,
    regularized_evolution,
    snas,
)
from jaxnas.spaces import (
    gates,
)
from jaxnas.tabular import from_arrays, incumbents, simulate, table_task
from jaxnas.train import stand_alone
from tests.dtypes.spaces import SPACES

CHOICES = {"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)
LABELS = (np.arange(30) % 3).astype(np.int32)
FLOATS = IMAGES.astype(np.float32) / 255
HEAVY, SLOW = ("darts", "tree", "proxyless"), pytest.mark.slow


@pytest.fixture(autouse=True)
def _sixty_four_bits():
    with jax.enable_x64(True):
        yield


def key():
    return jax.random.key(0)


def assert_narrow(tree):
    """No leaf has 64 bits."""
    wide = [
        f"{jax.tree_util.keystr(path)}: {leaf.dtype}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if leaf.dtype in (jnp.float64, jnp.int64, jnp.uint64)
    ]
    assert not wide, wide


def assert_fixed(step, state, *rest):
    """`step(key, state, ...)` gives a state of the shapes and dtypes of the one it got, and nothing of 64 bits."""
    new, *outputs = jax.eval_shape(step, key(), state, *rest)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, jax.eval_shape(lambda: state))
    assert_narrow((new, outputs))


# Data


def test_batches_and_augmentations_are_those_of_32_bits():
    examples = Examples(IMAGES, LABELS)

    def all_of_them():
        images = jnp.asarray(IMAGES)
        return {
            "indices": batches.batch_indices(key(), 100, 3, 8),
            "of a traced step": jax.jit(lambda step: batches.batch_indices(key(), 100, step, 8))(np.int64(40)),
            "random": batches.random_indices(key(), 100, 3, 8),
            "batch": batches.batch(key(), examples, 3, 8, mean=np.full(3, 0.5), std=0.25),
            "with replacement": batches.batch_with_replacement(key(), examples, 3, 8),
            "crop": random_crop(key(), images, 2),
            "flip": random_flip(key(), images, 0.3),
            "cutout": cutout(key(), jnp.asarray(FLOATS), 3),
        }

    wide = all_of_them()
    assert_narrow(wide)
    with jax.enable_x64(False):
        narrow = all_of_them()
    chex.assert_trees_all_equal_dtypes(wide, narrow)
    chex.assert_trees_all_close(wide, narrow, rtol=1e-6)


# Estimators


def loss_of(paths, params):
    """A smooth loss of gates `[2, K]`."""
    gate = gates(paths.select(lambda tree: tree["edges"]), params["ops"].shape[1])
    x = jnp.tanh(jnp.einsum("ek,ekd->d", gate, params["ops"]) + params["bias"])
    return jnp.sum(x**2), {"accuracy": jnp.mean(x)}


ESTIMATES = {name: functools.partial(build, name) for name, entry in ESTIMATORS.items() if not entry.supernet} | {
    "relax, learned": lambda policy: relax(tx=optax.adam(1e-2)),
    "moving average": lambda policy: reinforce(policy, baseline="moving_average", num_samples=2),
}


@pytest.mark.leaks
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ESTIMATES)
def test_estimators_give_what_they_get(name, dtype):
    options = 2 if name in ESTIMATORS and ESTIMATORS[name].binary else 3
    logits = {"edges": np.zeros((2, options), dtype)}
    params = {"ops": np.ones((2, options, 4), dtype), "bias": np.zeros((), dtype)}
    estimator = ESTIMATES[name](categorical(logits))
    state = jax.eval_shape(estimator.init, key(), logits)
    new, found = jax.eval_shape(
        lambda k, s, a, w: estimator.estimate(k, s, a, loss_of, w), key(), state, logits, params
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal_dtypes(found.policy_grads, logits)
    chex.assert_trees_all_equal_dtypes(found.weight_grads, params)
    assert {leaf.dtype for leaf in (found.value, *found.info.values())} == {np.dtype(dtype)}
    if dtype is np.float32:
        assert_narrow((new, found))


# Searches


def space_of(dtype):
    """Linear operations on points, two decisions."""
    weights = {"ops": np.ones((2, 3, 4, 4)), "head": np.ones((4, 3))}

    def apply(params, paths, x, *, key=None):
        gate = gates(paths.select(lambda tree: tree["edges"]), 3)
        return jnp.tanh(jnp.einsum("bi,ek,ekij->bj", x, gate, params["ops"])) @ params["head"]

    return SearchSpace(
        lambda key, x: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), weights),
        apply,
        used=lambda params, paths: jax.tree.map(lambda leaf: True, params),
        derive=lambda scores: jax.tree.map(lambda leaf: jnp.argmax(leaf, -1).astype(jnp.int32), scores),
        choices={"edges": jax.ShapeDtypeStruct((2, 3), dtype)},
    )


COSINE = optax.cosine_decay_schedule(0.1, 100)  # of an integer count: float64 with 64-bit JAX
PROXYLESS = {"policy_every": 2, "skip_zero_sampled": False, "num_samples": 2, "learning_rate": COSINE}
SEARCHERS = {
    "darts": lambda space: darts(space, learning_rate=COSINE),
    "darts second": lambda space: darts(space, order="second", learning_rate=COSINE),
    "darts finite": lambda space: darts(space, order="finite_difference", learning_rate=COSINE),
    "snas": lambda space: snas(space, learning_rate=COSINE),
    "learned control variate": lambda space: gradient_search(
        space, categorical(space.choices), relax(tx=optax.adam(0.01)), optax.adam(COSINE), optax.adam(COSINE)
    ),
    **{
        f"proxyless {mode}": functools.partial(proxyless, mode=mode, **PROXYLESS)
        for mode in ("full_v2", "two", "full", "reinforce")
    },
}


@pytest.mark.leaks
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SEARCHERS)
def test_gradient_searches_keep_their_state(name, dtype):
    searcher = SEARCHERS[name](space_of(dtype))
    half = (np.ones((6, 4), dtype), np.zeros(6, np.int32))
    batch = Batch(half, half)
    state = jax.eval_shape(searcher.init, key(), batch)
    new, info = jax.eval_shape(searcher.step, key(), state, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert {leaf.dtype for leaf in info} == {np.dtype(np.float32)}
    floating = {leaf.dtype for leaf in jax.tree.leaves((new.params, new.policy_params, new.weight_opt, new.policy_opt))}
    assert floating - {np.dtype(np.int32)} == {np.dtype(dtype)}
    if dtype is np.float32:
        assert_narrow(new)
    assert_narrow(jax.eval_shape(searcher.decode, state))


BLACK_BOXES = {
    "random": functools.partial(random_search, batch_size=3, archive_size=4),
    "evolution": functools.partial(regularized_evolution, population_size=4, sample_size=2, batch_size=2),
    "local, best": local_search,
    "local, first": functools.partial(local_search, rule="first"),
    "reinforce": lambda choices: policy_search(categorical(choices), optax.adam(0.3), batch_size=2),
    "nas-rl": lambda c: nas_rl(categorical(c), optax.adam(0.3), batch_size=2, reward=accuracy_cubed, staleness=1),
    "nas-rl, ppo": lambda c: nas_rl(categorical(c), optax.adam(0.3), batch_size=2, reward=accuracy_cubed, ppo=PPO()),
    "nsga2": functools.partial(nsga2, population_size=4, num_objectives=1),
}
TABLE = {"error": np.arange(9.0), "seconds": 1 + np.arange(9.0) % 3, "macs": 1000 + np.arange(9)}


def table():
    return from_arrays({"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)}, TABLE)


@pytest.mark.leaks
@pytest.mark.parametrize("name", BLACK_BOXES)
def test_black_boxes_and_a_simulated_search_keep_their_types(name):
    searcher = BLACK_BOXES[name](CHOICES)
    state = jax.eval_shape(searcher.init, key())
    asked, archs = jax.eval_shape(searcher.ask, key(), state)
    fitness = jax.ShapeDtypeStruct((len(archs["edges"]), 1), jnp.float32)
    told, info = jax.eval_shape(searcher.tell, key(), asked, archs, fitness)
    chex.assert_trees_all_equal_shapes_and_dtypes(asked, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(told, state)
    assert_narrow((archs, told, info, jax.eval_shape(searcher.decode, told)))
    task = table_task(table(), ("error",), cost="seconds", single_runs=True)
    final, history = jax.eval_shape(simulate(searcher, task, 12.0), key())
    chex.assert_trees_all_equal_shapes_and_dtypes(final, state)
    assert_narrow((history, jax.eval_shape(incumbents, history)))


def test_a_simulated_search_is_that_of_32_bits():
    def run():
        task = table_task(table(), "error", cost="macs")
        return jax.jit(simulate(random_search(CHOICES, batch_size=2), task, 12_000.0))(key())

    wide = run()
    with jax.enable_x64(False):
        narrow = run()
    chex.assert_trees_all_equal_dtypes(wide, narrow)
    chex.assert_trees_all_close(wide, narrow, rtol=1e-6)


@pytest.mark.leaks
def test_costs_and_volumes_keep_their_types():
    macs = CostTable(5, {"edges": np.arange(6).reshape(2, 3)})
    archs = {"edges": jax.ShapeDtypeStruct((2,), jnp.int32)}
    share = {"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    assert_narrow(jax.eval_shape(lambda arch: costs.cost(macs, arch), archs))
    assert_narrow(jax.eval_shape(lambda p: costs.expected_cost(macs, p), share))
    points = jax.ShapeDtypeStruct((5, 2), jnp.float32)
    assert_narrow(jax.eval_shape(lambda points: hypervolume(points, np.ones(2)), points))


# Training


@pytest.mark.parametrize(
    "name",
    [
        "nasbench201",
        "nasbench201-small",
        "nas-rl",
        "nas-rl-strided",
        *(pytest.param(name, marks=SLOW) for name in HEAVY),
    ],
)
def test_spaces_and_the_training_of_their_networks_keep_float32(name):
    space = SPACES[name]()
    batch = (FLOATS[:6], LABELS[:6])
    params = jax.eval_shape(space.init, key(), batch[0])
    arch = jax.tree.map(lambda choice: np.zeros(choice.shape[0], np.int32), space.choices)
    assert_narrow((params, jax.eval_shape(lambda p, x: space.apply(p, sparse_paths(arch), x), params, batch[0])))
    trainer = stand_alone(space.about.network(arch), optax.sgd(COSINE, momentum=0.9), label_smoothing=0.1)
    state = jax.eval_shape(trainer.init, key(), batch[0])
    new, info = jax.eval_shape(trainer.step, key(), state, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert_narrow((new, info))
    recipe, data = Recipe(optax.sgd(COSINE, momentum=0.9), steps=4, batch_size=6), PopulationData(batch, {})
    assert_narrow(jax.eval_shape(train_member(family_of(space), recipe), Member(key(), arch, None), data))


def test_running_averages_stay_float32_beside_wider_images():
    space = SPACES["nasbench201"]()
    network = space.about.network(jax.tree.map(lambda c: np.zeros(c.shape[0], np.int32), space.choices))
    variables = jax.eval_shape(network.init, key(), FLOATS[:6])
    wide = np.stack([FLOATS[:6]] * 2).astype(np.float64)
    _, after = jax.eval_shape(lambda v, x: network.apply(v, x, train=True), variables, wide[0])
    chex.assert_trees_all_equal_dtypes(after["batch_stats"], variables["batch_stats"])
    measured = jax.eval_shape(functools.partial(recalibrate, network), variables, wide)
    chex.assert_trees_all_equal_dtypes(measured["batch_stats"], variables["batch_stats"])


def test_a_member_of_a_population_keeps_float32():
    space = SPACES["nasbench201-small"]()
    recipe = Recipe(lambda rate: optax.sgd(rate, momentum=0.9), steps=4, batch_size=6, judge_at=(2,), judge_batch=5)
    data = PopulationData((FLOATS, LABELS), {"validation": (FLOATS[:7], LABELS[:7])})
    arch = jax.tree.map(lambda choice: np.zeros(choice.shape[0], np.int32), space.choices)
    member = Member(key(), arch, np.float32(0.1))
    assert_narrow(jax.eval_shape(train_member(family_of(space), recipe), member, data))
    assert_narrow(jax.eval_shape(judge(lambda params, paths, x: x[:, 0, 0], batch_size=7), None, None, FLOATS, LABELS))


@pytest.mark.leaks
def test_the_loop_of_a_run_takes_states_as_they_are():
    state = {"count": np.zeros((), np.int32), "narrow": np.ones(3, np.float32), "wide": np.ones(3, np.float64)}

    def step(key, state, data):
        state = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), state)
        return state, {"loss": jnp.sum(state["narrow"]) + data}

    advance = compiled_steps(step, key(), state, np.float32(1), chunk=4)
    after, rows = advance.run(state, 0, 3)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert [row["loss"] for row in rows] == [7.0, 10.0, 13.0]
