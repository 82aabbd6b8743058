"""Retraining: every space's found architecture, in every form, with the recipe of its paper, traced and not trained."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import outcome, pictures, retrain
from experiments.configs.retrain import PRESETS, RECIPES, RecipeConfig
from jaxnas import data, export
from jaxnas.architecture_files import read_source
from jaxnas.costs import count_parameters
from jaxnas.describe import network_costs
from jaxnas.spaces import registry
from jaxnas.spaces.darts import PUBLISHED

SMALL = {
    "darts": {"channels": 4, "cells": 2},
    "snas": {"channels": 4, "cells": 2},
    "nasbench201": {"channels": 4, "cells": 1},
    "nasbench201-small": {"channels": 4},
    "proxyless": {"widths": (8, 16), "blocks": (2, 1), "strides": (1, 2), "stem_stride": 1, "last_channels": 8},
    "proxyless-tree": {"blocks": 1, "stages": 2, "stem_channels": 4, "alpha": 4.0, "bottleneck": 2},
    "nas-rl": {"num_layers": 3, "filters": (2, 3), "strides": (1, 2)},
}
CELL = "|skip_connect~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|none~1|avg_pool_3x3~2|"
EXAMPLES = data.Examples(np.zeros((64, 8, 8, 1), np.uint8), np.zeros(64, np.int32))


def config(architecture, recipe=None, preset="digits", **changes):
    """A configuration of the smoke."""
    small = retrain.smoke(PRESETS[preset])
    if recipe is not None:
        changes["recipe"] = dataclasses.replace(small.recipe, **recipe)
    return dataclasses.replace(small, architecture=str(architecture), **changes)


def found(tmp_path, name):
    """The work directory of a search in a space, as far as it matters here."""
    space = registry.build(name, **SMALL[name], num_classes=7)
    scores = jax.tree.map(lambda c: np.random.default_rng(0).normal(size=c.shape).astype(c.dtype), space.choices)
    arch = jax.tree.map(np.asarray, jax.jit(space.derive)(scores))
    record = export.architecture_record(space, arch, image_shape=(8, 8, 1), num_classes=7, mean=[0], std=[1])
    (tmp_path / "architecture.json").write_text(json.dumps(record))
    return tmp_path


def zeros(shapes):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def test_every_space_with_a_network_has_a_recipe():
    assert set(RECIPES) == set(SMALL)
    for recipe in RECIPES.values():
        assert None not in dataclasses.asdict(recipe).values()


@pytest.mark.parametrize("name", SMALL)
def test_found_architecture_is_set_up_and_counted_as_it_is_saved(name, tmp_path, monkeypatch):
    training = retrain.prepare(config(found(tmp_path, name)))  # traces a whole step
    plan = training.plan
    assert plan.space.about.name == name
    settings = plan.space.about.config
    own = {**SMALL[name], **({"channels": 4, "cells": 3} if name in ("darts", "snas") else {}), "num_classes": 3}
    assert {setting: settings[setting] for setting in own} == json.loads(json.dumps(own))

    variables = zeros(jax.eval_shape(plan.network.init, jax.random.key(0), jnp.zeros((4, 8, 8, 1))))
    monkeypatch.setattr(outcome, "draw_curves", lambda run: None)
    monkeypatch.setattr(pictures, "draw", lambda *arguments: None)
    run = types.SimpleNamespace(path=tmp_path / "run", save_json=lambda name, content: None)
    record = retrain.write(run, plan, variables, training.loaded, training.images)
    saved = export.load_variables(tmp_path / "run" / "network.safetensors")
    assert record["parameters"] == count_parameters(saved["params"]) == record["parameters_retrained"]
    (tmp_path / "run" / "architecture.json").write_text(json.dumps(record))
    again = retrain.make_plan(config(tmp_path / "run"), 3, EXAMPLES)
    jax.tree.map(np.testing.assert_array_equal, again.arch, plan.arch)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("darts_v2", "darts"),
        ("snas_moderate", "snas"),
        (json.dumps(PUBLISHED["darts_v1"]), "darts"),
        (CELL, "nasbench201"),
        ("[1, 4, 3, 3, 0, 4]", "nasbench201"),
    ],
)
def test_bare_architecture_is_read(architecture, name):
    plan = retrain.make_plan(config(architecture), 3, EXAMPLES)
    assert plan.space.about.name == name
    assert plan.space.about.config["num_classes"] == 3


def test_space_and_settings_of_a_bare_architecture():
    chosen = config('["zero", "5x5_e6"]', space="proxyless", settings=("widths=16,8", "blocks=1,1", "strides=1,2"))
    assert retrain.make_plan(chosen, 3, EXAMPLES).space.about.config["widths"] == [16, 8]
    small = config(CELL, space="nasbench201-small", settings=("channels=2",))
    assert retrain.make_plan(small, 3, EXAMPLES).space.about.config["channels"] == 2


# The form and the recipe of the papers


def test_darts_is_retrained_without_normalised_pools_and_snas_with():
    names = {}
    for architecture in ("darts_v2", "snas_moderate"):
        plan = retrain.make_plan(config(architecture), 3, EXAMPLES)
        params = jax.eval_shape(plan.network.init, jax.random.key(0), jnp.zeros((4, 8, 8, 1)))["params"]
        names[architecture] = {name for name in params if "pool" in name}
        affine = {name for name in params if "sep_conv" in name and "norm" in str(jax.tree.structure(params[name]))}
        assert affine, "normalisation outside of pools learns a scale"
        counts = network_costs(plan.space, plan.arch, (8, 8, 1), **plan.form)
        assert counts["parameters"] == count_parameters(params)
    assert names["darts_v2"] == set()
    assert names["snas_moderate"]


def test_auxiliary_head_is_trained_and_not_saved(tmp_path, monkeypatch):
    recipe = {"auxiliary": True, "auxiliary_weight": None}
    big = {"data": dataclasses.replace(config("darts_v2").data, name="synthetic:n=96,size=32,classes=3,channels=1")}
    training = retrain.prepare(config("darts_v2", recipe, **big))
    plan = training.plan
    assert plan.recipe.auxiliary_weight == 0.4
    variables = zeros(jax.eval_shape(plan.network.init, jax.random.key(0), jnp.zeros((4, 32, 32, 1))))
    assert {"auxiliary"} < set(variables["params"])
    monkeypatch.setattr(outcome, "draw_curves", lambda run: None)
    monkeypatch.setattr(pictures, "draw", lambda *arguments: None)
    run = types.SimpleNamespace(path=tmp_path, save_json=lambda name, content: None)
    record = retrain.write(run, plan, variables, training.loaded, training.images)
    saved = export.load_variables(tmp_path / "network.safetensors")
    assert "auxiliary" not in {**saved["params"], **saved["batch_stats"]}
    assert record["parameters"] == count_parameters(saved["params"])
    with_head = network_costs(plan.space, plan.arch, (32, 32, 1), **plan.form, auxiliary=True)
    assert with_head["parameters"] == count_parameters(variables["params"])


@pytest.mark.parametrize("name", SMALL)
def test_published_recipe_by_hand(name):
    """Two steps of the optimiser: decay, clipping, momentum and learning rate, in numpy."""
    whole = retrain.recipe_of(name, RecipeConfig(epochs=2))
    steps = 2  # per epoch; the third step is the first of the second epoch
    tx = retrain.optimiser(whole, epochs=2, steps_per_epoch=steps)
    if whole.drop_path:
        assert retrain.drop_path(whole, 2, steps)(3) == whole.drop_path / 2
    published = {
        "darts": (0.025, 3e-4, True, False, 5.0, "epoch"),
        "snas": (0.025, 3e-4, True, False, 5.0, "epoch"),
        "nasbench201": (0.1, 5e-4, True, True, None, "step"),
        "nasbench201-small": (0.1, 5e-4, True, True, None, "step"),
        "proxyless": (0.05, 4e-5, False, True, None, "step"),
        "proxyless-tree": (0.1, 1e-4, True, True, None, "step"),
        "nas-rl": (0.1, 1e-4, True, True, None, "step"),
    }
    first, decay, decay_norms, nesterov, clip, schedule = published[name]
    rng = np.random.default_rng(0)
    weights = {
        "conv": {"kernel": rng.normal(size=3), "norm": {"scale": rng.normal(size=2), "bias": rng.normal(size=2)}}
    }
    weights["classifier"] = {"kernel": rng.normal(size=2), "bias": rng.normal(size=2)}
    params = jax.tree.map(jnp.float32, weights)
    trace, state = jax.tree.map(np.zeros_like, weights), tx.init(params)
    for step in range(3):
        grads = jax.tree.map(lambda leaf: 10 * rng.normal(size=leaf.shape), weights)
        updates, state = tx.update(jax.tree.map(jnp.float32, grads), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grads)))
        scale = 1.0 if clip is None else min(1.0, clip / norm)
        progress = step / (2 * steps) if schedule == "step" else step // steps / 2
        rate = first * 0.5 * (1 + np.cos(np.pi * progress))
        decayed = jax.tree.map(lambda leaf: decay, weights)
        if not decay_norms:
            decayed["conv"]["norm"] = {"scale": 0.0, "bias": 0.0}
        grads = jax.tree.map(lambda g, w, d, scale=scale: scale * g + d * w, grads, weights, decayed)
        trace = jax.tree.map(lambda m, g: 0.9 * m + g, trace, grads)
        moves = jax.tree.map(lambda m, g: 0.9 * m + g, trace, grads) if nesterov else trace
        weights = jax.tree.map(lambda w, m, rate=rate: w - rate * m, weights, moves)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), params, weights)


def test_epochs_batches_and_regularisation_of_the_papers():
    found = {
        name: (
            recipe.epochs,
            recipe.batch_size,
            recipe.label_smoothing,
            recipe.drop_path,
            recipe.dropout,
            recipe.cutout,
        )
        for name, recipe in RECIPES.items()
    }
    assert found["darts"] == found["snas"] == (600, 96, 0.0, 0.2, 0.0, 16)
    assert found["nasbench201"] == found["nasbench201-small"] == (200, 256, 0.0, 0.0, 0.0, 0)
    assert found["proxyless"] == (300, 256, 0.1, 0.0, 0.1, 0)
    assert found["proxyless-tree"] == (300, 64, 0.0, 0.0, 0.0, 16)
    assert found["nas-rl"] == (50, 64, 0.0, 0.0, 0.0, 0)
    assert [name for name, recipe in RECIPES.items() if recipe.auxiliary] == ["darts", "snas"]


def test_the_rest_of_the_recipe_reaches_the_training(monkeypatch):
    given = {}
    monkeypatch.setattr(retrain.train, "stand_alone", lambda *arguments, **settings: given.update(settings))
    recipe = {"label_smoothing": 0.2, "auxiliary_weight": 0.3, "drop_path": 0.6, "epochs": 3, "batch_size": 16}
    plan = retrain.make_plan(config("darts_v2", recipe), 3, EXAMPLES)
    assert (plan.steps, given["label_smoothing"], given["auxiliary_weight"]) == (12, 0.2, 0.3)
    np.testing.assert_allclose([given["drop_path"](step) for step in (0, 3, 4, 11)], [0.0, 0.0, 0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_of_proxyless_draws_in_training(tmp_path, dropout):
    plan = retrain.make_plan(config(found(tmp_path, "proxyless"), {"dropout": dropout}), 3, EXAMPLES)
    x, y = jnp.ones((4, 8, 8, 1)), jnp.zeros(4, jnp.int32)
    state = jax.eval_shape(plan.trainer.init, jax.random.key(0), x)
    traced = str(jax.make_jaxpr(plan.trainer.step)(jax.random.key(0), state, (x, y)))
    assert ("random_bits" in traced) == (dropout > 0)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "nowhere.json"}, "nowhere.json: cannot be read: No such file"),
        ({"architecture": '{"space": "table", "arch": [0]}'}, "space 'table' has no recipe, only darts, snas"),
        ({"architecture": "darts_v2", "space": "snas"}, "architecture of space 'darts', not of 'snas'"),
        ({"architecture": CELL, "space": "nasbench"}, "space 'nasbench' has no recipe"),
        ({"architecture": CELL, "settings": ("channels=a",)}, "setting channels: expected a whole number"),
        ({"architecture": CELL, "recipe": RecipeConfig(auxiliary=True)}, "recipe.auxiliary: networks of 'nasbench201'"),
        ({"architecture": CELL, "recipe": RecipeConfig(dropout=0.1)}, "recipe.dropout: networks of 'nasbench201' have"),
        ({"architecture": "[0, 1]"}, "of no space with its default settings"),
        ({"architecture": "darts_v2", "recipe": RecipeConfig(batch_size=65)}, "batch_size is 65, expected"),
    ],
)
def test_mistakes_are_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        retrain.make_plan(dataclasses.replace(retrain.smoke(PRESETS["digits"]), **changes), 3, EXAMPLES)
    assert "\n" not in str(caught.value)


def test_head_that_does_not_fit_the_images_is_refused_before_the_run():
    with pytest.raises(ValueError, match=r"auxiliary head: needs 8x8 inputs \(32x32 images\), got 2x2"):
        retrain.prepare(config("darts_v2", {"auxiliary": True}))


def test_published_names_say_their_space():
    assert {read_source(name).space for name in PUBLISHED} == {"darts", "snas"}
