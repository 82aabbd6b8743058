"""What runs with `jax_numpy_dtype_promotion="strict"`, where no two types are mixed without saying so.

Left out is what optax mixes itself: in Adam a float is raised to the power of an integer count, in a cosine schedule
integers are compared with floats.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import costs
from jaxnas.base import Batch, CostTable, dense_paths, sparse_paths
from jaxnas.data import batches
from jaxnas.data.augment import cutout, random_crop, random_flip
from jaxnas.data.examples import Examples
from jaxnas.estimators import ESTIMATORS, build
from jaxnas.policies import categorical
from jaxnas.population import family_of
from jaxnas.population.member import Member, PopulationData, Recipe, train_member
from jaxnas.searchers import (
    PPO,
    accuracy_cubed,
    crowding_distance,
    gradient_search,
    hypervolume,
    inverse_square_perplexity,
    local_search,
    nas_rl,
    nsga2,
    pareto_front,
    pareto_ranks,
    policy_search,
    random_search,
    regularized_evolution,
)
from jaxnas.spaces import (
    gates,
)
from jaxnas.tabular import best_at, from_arrays, simulate, table_task
from jaxnas.train import stand_alone
from tests.dtypes.spaces import SPACES

CHOICES = {"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
LABELS = (np.arange(12) % 3).astype(np.int32)
FLOATS = IMAGES.astype(np.float32) / 255
TABLE = {"error": np.arange(9.0), "seconds": 1 + np.arange(9.0) % 3, "macs": 1000 + np.arange(9)}
HEAVY, SLOW = ("darts", "tree", "proxyless"), pytest.mark.slow
SGD = functools.partial(optax.sgd, 0.1, momentum=0.9)


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def key():
    return jax.random.key(0)


def test_data():
    examples = Examples(IMAGES, LABELS)
    jax.eval_shape(lambda k: batches.batch(k, examples, 3, 4, mean=np.full(3, 0.5), std=0.25), key())
    jax.eval_shape(lambda k: batches.batch_with_replacement(k, examples, 3, 4), key())
    for augment in (random_crop, random_flip, cutout):
        jax.eval_shape(augment, key(), FLOATS)


def loss_of(paths, params):
    """A smooth loss of gates `[2, K]`, in float32 whatever the types of gates and weights."""
    gate = gates(paths.select(lambda tree: tree["edges"]), params.shape[1]).astype(jnp.float32)
    return jnp.sum(jnp.tanh(jnp.einsum("ek,ekd->d", gate, params.astype(jnp.float32))) ** 2), {}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", [name for name, entry in ESTIMATORS.items() if not entry.supernet])
def test_estimators(name, dtype):
    options = 2 if ESTIMATORS[name].binary else 3
    logits, params = {"edges": jnp.zeros((2, options), dtype)}, jnp.ones((2, options, 4), dtype)
    estimator = build(name, categorical(logits))
    state = estimator.init(key(), logits)
    _, found = jax.eval_shape(lambda k, s, a, w: estimator.estimate(k, s, a, loss_of, w), key(), state, logits, params)
    assert found.policy_grads["edges"].dtype == dtype


@pytest.mark.parametrize("name", ["gumbel_softmax", "binary_gate", "reinforce_moving_average"])
def test_a_gradient_search_without_adam(name):
    space = SPACES["nasbench201"]()
    policy = categorical(space.choices)
    searcher = gradient_search(space, policy, build(name, policy), SGD(), SGD())
    half = (FLOATS[:6], LABELS[:6])
    state = jax.eval_shape(searcher.init, key(), Batch(half, half))
    jax.eval_shape(searcher.step, key(), state, Batch(half, half))


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(random_search, batch_size=3, archive_size=4),
        functools.partial(regularized_evolution, population_size=4, sample_size=2),
        local_search,
        lambda choices: policy_search(categorical(choices), SGD(), batch_size=2),
        lambda choices: nas_rl(categorical(choices), SGD(), batch_size=2, reward=accuracy_cubed, staleness=1),
        lambda choices: nas_rl(categorical(choices), SGD(), batch_size=2, reward=inverse_square_perplexity, ppo=PPO()),
        functools.partial(nsga2, population_size=4, num_objectives=1),
    ],
)
def test_black_boxes_on_a_table(make):
    table = from_arrays(CHOICES, TABLE)
    search = simulate(make(CHOICES), table_task(table, "-macs", cost="seconds", single_runs=True), 9.0)
    _, history = jax.eval_shape(search, key())
    jax.eval_shape(best_at, history, np.float32([1, 2]))


def test_fronts_and_costs():
    points = jax.ShapeDtypeStruct((5, 2), jnp.float32)
    for function in (pareto_front, pareto_ranks, lambda p: crowding_distance(p, pareto_ranks(p))):
        jax.eval_shape(function, points)
    jax.eval_shape(lambda p: hypervolume(p, np.float32([1, 1])), points)
    macs = CostTable(5, {"edges": np.arange(6).reshape(2, 3)})
    jax.eval_shape(lambda arch: costs.cost(macs, arch), {"edges": jax.ShapeDtypeStruct((2,), jnp.int32)})
    jax.eval_shape(lambda p: costs.expected_cost(macs, p), CHOICES)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("nasbench201-small", {}),
        ("nasbench201", {"dtype": "float32"}),
        ("nasbench201", {"dtype": "bfloat16"}),
        *((name, {"dtype": dtype}) for name in ("nas-rl", "nas-rl-strided") for dtype in ("float32", "bfloat16")),
        *(pytest.param(name, {"dtype": dtype}, marks=SLOW) for name in HEAVY for dtype in ("float32", "bfloat16")),
    ],
)
def test_spaces_and_their_networks(name, settings):
    space = SPACES[name](**settings)
    batch = (FLOATS[:6], LABELS[:6])
    params = jax.eval_shape(space.init, key(), batch[0])
    logits = jax.tree.map(lambda choice: jnp.zeros(choice.shape, choice.dtype), space.choices)
    jax.eval_shape(lambda p, a, x: space.apply(p, dense_paths(a), x), params, logits, batch[0])
    arch = jax.tree.map(lambda choice: np.zeros(choice.shape[0], np.int32), space.choices)
    jax.eval_shape(lambda p, x: space.apply(p, sparse_paths(arch), x), params, batch[0])
    if settings.get("dtype") == "bfloat16":
        return  # stand-alone networks compute in the type of their images
    trainer = stand_alone(space.about.network(arch), SGD(), label_smoothing=0.1)
    state = jax.eval_shape(trainer.init, key(), batch[0])
    jax.eval_shape(trainer.step, key(), state, batch)
    recipe, data = Recipe(SGD(), steps=4, batch_size=6), PopulationData(batch, {})
    jax.eval_shape(train_member(family_of(space), recipe), Member(key(), arch, None), data)


def test_a_member_of_a_population():
    recipe = Recipe(lambda rate: optax.sgd(rate, momentum=0.9), steps=4, batch_size=6, judge_at=(2,), judge_batch=5)
    data = PopulationData((FLOATS, LABELS), {"validation": (FLOATS[:7], LABELS[:7])})
    member = Member(key(), {"cell": np.zeros(6, np.int32)}, np.float32(0.1))
    jax.eval_shape(train_member(family_of(SPACES["nasbench201-small"]()), recipe), member, data)
