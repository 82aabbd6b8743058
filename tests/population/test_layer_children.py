"""A child of NAS-RL's convolutional space is one and the same on the canvas, in a program of its own and on a farm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import random_archs
from jaxnas.base import sparse_paths
from jaxnas.errors import UserError
from jaxnas.population import Farm, PopulationData, Recipe, layer_family, own_family, train_population
from jaxnas.searchers import sgd_l2
from jaxnas.spaces import table_space
from jaxnas.spaces.nas_rl import layer_plan, nas_rl_space
from jaxnas.spaces.nas_rl.canvas import canvas_cut, canvas_used

KEY = jax.random.key(3)
SPACE = nas_rl_space(3, 3, filters=(2, 3), kernels=(1, 3))
PLAN = layer_plan(SPACE)
ARCHS = jax.tree.map(np.asarray, random_archs(jax.random.key(5), SPACE, 3))
SEEDS = np.array([4, 0, 7])
REFERENCE = 8
# Decay, momentum and a norm over all weights: each would tell a canvas whose masked weights move.
TX = sgd_l2(0.05, weight_decay=0.01, clip=0.5, nesterov=True)


def examples(count, seed):
    """Images of three classes, each with a bright row of its own."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    images = random.standard_normal((count, 5, 4, 2)) + 2 * (np.arange(5)[:, None, None] == labels[:, None, None, None])
    return jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)


DATA = PopulationData(examples(40, 0), {"validation": examples(30, 1)})


def wide_score(logits, labels):
    """The negative logarithm of the right class's probability: a score in which every rounding shows."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]


RECIPE = Recipe(TX, steps=6, batch_size=10, judge_at=(2,), score=wide_score)


def child(number):
    return jax.tree.map(lambda leaf: leaf[number], ARCHS)


def trained(family, archs, seeds):
    """The population of some children, weights and all."""
    settings = {"seeds": seeds, "keep_params": True, "strategy": "map"}
    return train_population(KEY, family, archs, DATA, RECIPE, **settings)


@functools.cache
def on_canvas():
    """All children on the canvas."""
    return trained(layer_family(SPACE, reference=REFERENCE), ARCHS, SEEDS)


def alone(number, seed, **settings):
    """One child in a program of its own."""
    arch = child(number)
    family = own_family(SPACE, arch, **{"reference": REFERENCE, **settings})
    return trained(family, jax.tree.map(lambda leaf: leaf[None], arch), [seed])


def train_child(arch, seed, config):
    """The child function of a farm: the score of one of `ARCHS` after all steps."""
    number = next(n for n in range(len(SEEDS)) if all(np.array_equal(child(n)[kind], arch[kind]) for kind in arch))
    score = alone(number, seed, reference=config["reference"]).score["validation"]
    return {"score": float(score[0, -1])}


def close(found, wanted, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), found, wanted)


def differ(found, wanted, least):
    return np.abs(np.asarray(found) - np.asarray(wanted)).max() > least


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_both_routes_start_from_the_same_weights(number):
    arch, x = child(number), DATA.train[0][:4]
    first = layer_family(SPACE).init(KEY, arch, x)
    cut = canvas_cut(PLAN, first, arch)
    close(own_family(SPACE, arch).init(KEY, None, x), cut, 1e-7)
    # Nothing is there but the child.
    outside = jax.tree.map(lambda leaf, used: np.where(used, 0, leaf), first, used_by(arch, first))
    close(outside, jax.tree.map(np.zeros_like, outside), 0)


def used_by(arch, params):
    return canvas_used(PLAN, params, sparse_paths(arch))


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_a_child_is_the_same_on_both_routes(number):
    there, here = on_canvas(), alone(number, SEEDS[number])
    close(here.score["validation"][0], there.score["validation"][number], 1e-4)
    close(here.loss[0], there.loss[number], 1e-4)
    params, arch = jax.tree.map(lambda leaf: leaf[number], there.params), child(number)
    close(jax.tree.map(lambda leaf: leaf[0], here.params), canvas_cut(PLAN, params, arch), 1e-4)
    # Decay, momentum and clipping have left alone what the child does not have.
    outside = jax.tree.map(lambda leaf, used: np.where(used, 0, leaf), params, used_by(arch, params))
    close(outside, jax.tree.map(np.zeros_like, outside), 0)
    assert differ(alone(number, SEEDS[number] + 1).loss[0], there.loss[number], 1e-2)


def test_a_farm_gives_the_scores_of_the_population():
    with Farm(train_child, ("score",), config={"reference": REFERENCE}) as farm:
        seeds = np.array([farm.seed_of(number) for number in range(len(SEEDS))])
        scores = farm.evaluate(range(len(SEEDS)), ARCHS)
    there = trained(layer_family(SPACE, reference=REFERENCE), ARCHS, seeds)
    close(scores[:, 0], there.score["validation"][:, -1], 1e-4)


def test_children_are_judged_with_reference_examples():
    scores = {count: alone(0, SEEDS[0], reference=count).score["validation"][0] for count in (0, REFERENCE)}
    assert differ(scores[0], scores[REFERENCE], 1e-3)


@pytest.mark.parametrize("changes", [{}, {"strides": (1, 2)}], ids=["plain", "strides"])
def test_both_routes_take_the_number_that_normalisation_adds(changes):
    space = nas_rl_space(2, 3, filters=(2, 3), kernels=(1, 3), **changes)
    x, outputs = DATA.train[0][:8], {}
    arch = jax.tree.map(lambda leaf: np.arange(leaf.shape[0]) % 2, space.choices)
    for eps in (1e-5, 0.5):
        canvas, own = layer_family(space, reference=4, eps=eps), own_family(space, arch, reference=4, eps=eps)
        params = canvas.init(KEY, arch, x)
        cut = own.init(KEY, None, x)
        for there, here in ((canvas.apply, own.apply), (canvas.judge, own.judge)):
            outputs[eps] = there(params, arch, x)
            close(here(cut, None, x), outputs[eps], 1e-5)
    assert differ(outputs[0.5], outputs[1e-5], 1e-2)


def test_a_child_may_have_more_filters():
    x, arch = DATA.train[0][:4], child(1)
    more = own_family(SPACE, arch, more_filters=5)
    params = more.init(KEY, None, x)
    chosen = PLAN.filters[arch["filters"][0]]
    assert params["layer0"]["conv0"]["kernel"].shape[3] == chosen + 5
    assert more.apply(params, None, x).shape == (4, 3)


def test_the_reference_of_a_space_is_not_used_for_training():
    space = nas_rl_space(3, 3, filters=(2, 3), kernels=(1, 3), reference=4)
    x, arch = DATA.train[0][:8], child(0)
    canvas, own = layer_family(space), own_family(space, arch)
    params, cut = canvas.init(KEY, arch, x), own.init(KEY, None, x)
    whole = layer_family(SPACE).apply(params, arch, x)
    for there, here in ((canvas.apply, own.apply), (canvas.judge, own.judge)):
        close(there(params, arch, x), whole, 1e-5)
        close(here(cut, None, x), whole, 1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": -1}, "reference must be a number of examples, at least 0, got -1"),
        ({"eps": 0.0}, "eps must be above 0, got 0.0"),
        ({"eps": float("nan")}, "eps must be above 0, got nan"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_on_both_routes(settings, message):
    for family in (layer_family, lambda space, **given: own_family(space, child(0), **given)):
        with pytest.raises(UserError, match=message):
            family(SPACE, **settings)


def test_another_space_is_refused():
    for family in (layer_family, lambda space: own_family(space, {})):
        with pytest.raises(UserError, match="space must be one of nas_rl_space"):
            family(table_space(np.zeros((2, 2))))
