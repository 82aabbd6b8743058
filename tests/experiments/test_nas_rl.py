"""NAS-RL on images: what is asked for, how children are trained and rewarded, and what comes after the search."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import common, nas_rl, nas_rl_children
from experiments.configs.nas_rl import PRESETS, Config
from jaxnas.errors import UserError
from jaxnas.policies import controller
from jaxnas.population import Record
from jaxnas.run import Run, search
from jaxnas.spaces.nas_rl import LayerPlan, layer_plan
from tests.by_hand import Sgd

SMALL = nas_rl.smoke(PRESETS["digits"])
KEY = jax.random.key(0)


def changed(part: str, config: Config = SMALL, **fields) -> Config:
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **fields)})


@pytest.fixture(scope="module")
def setting():
    return nas_rl.prepare(SMALL)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("search", children=10), "search.children is 10, expected a multiple of batch, 4"),
        (changed("layers", last_layers=1), "layers.last_layers is 1, expected at least the 2 of first_layers"),
        (changed("search", replicas=2, route="canvas"), "search.replicas is 2, which needs the route farm, got canvas"),
        (changed("layers", kernels=(1, 2)), "kernels must be odd"),
        (changed("search", batch_size=49), "search.batch_size is 49, expected 1 to the 48"),
        (changed("grid", batch_size=49), "grid.batch_size is 49, expected 1 to the 48"),
        (changed("skips", batch_size=97), "skips.batch_size is 97, expected 1 to the 96"),
        (changed("retrain", batch_size=97), "retrain.batch_size is 97, expected 1 to the 96"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        nas_rl.prepare(config)


@pytest.mark.parametrize(
    ("fields", "route"),
    [
        ({}, "canvas"),
        ({"workers": 2}, "farm"),
        ({"replicas": 3}, "farm"),
        ({"workers": 2, "route": "canvas"}, "canvas"),
        ({"route": "farm"}, "farm"),
    ],
)
def test_the_route_is_the_farm_where_several_children_can_be_out(fields, route):
    assert nas_rl_children.route_of(changed("search", **fields)) == route


def test_every_setting_of_a_layer_reaches_the_space_of_each_depth(setting):
    variant = {
        "strides": (1, 2),
        "order": "conv_relu_bn",
        "pooling": (1, 2),
        "convolutions": 2,
        "more_filters": 3,
    }
    config = changed("layers", **variant)
    for depth in (2, 3):
        plan = layer_plan(nas_rl_children.build(config, 5, depth))
        assert plan == LayerPlan(depth, 5, filters=(2, 3), kernels=(1, 3), **variant)
    # Strides are two more tokens of each layer, by which networks grow.
    (lengths, _), *_ = searched(
        nas_rl.setting_of(config, setting.loaded, setting.images, 3), "nas_rl", lambda ids: ids
    )[0]
    assert lengths == [12] * 4
    # A farm sends the configuration as JSON.
    sent = {name: dataclasses.asdict(getattr(config, name)) for name in ("data", "layers", "search")}
    assert nas_rl_children._parts_of(json.dumps({**sent, "seed": 0}))[0].layers == config.layers


# What is asked for


def searched(setting, method, fitness):
    """What a search asks for when its children have `fitness(ids) -> [n]`, batch by batch, and its last state."""
    searcher, form, asked = nas_rl.make_searcher(method, setting.config, setting.space), setting.config.search, []
    state, ask, tell = searcher.init(KEY), jax.jit(searcher.ask), jax.jit(searcher.tell)
    for number in range(form.children // form.batch):
        key_ask, key_tell = jax.random.split(jax.random.fold_in(KEY, number))
        state, archs = ask(key_ask, state)
        asked.append((np.asarray(searcher.origins(state)["length"]).tolist(), jax.device_get(archs)))
        ids = number * form.batch + np.arange(form.batch)
        state, _ = tell(key_tell, state, archs, jnp.asarray(fitness(ids), jnp.float32)[:, None])
    return asked, state


@pytest.fixture(scope="module")
def searches(setting):
    """Both searches with networks of one to four layers."""
    layers = {"first_layers": 1, "more_layers": 2, "grow_every": 8, "last_layers": 4}
    config = changed("search", changed("layers", **layers), children=24)
    deep = nas_rl.setting_of(config, setting.loaded, setting.images, 4)
    return {method: searched(deep, method, lambda ids: 1 / (1 + ids)) for method in nas_rl.METHODS}


@pytest.mark.parametrize("method", nas_rl.METHODS)
def test_networks_grow_on_their_schedule(searches, method):
    asked, _ = searches[method]
    assert [lengths for lengths, _ in asked] == [[4] * 4, [4] * 4, [12] * 4, [12] * 4, [16] * 4, [16] * 4]
    for lengths, archs in asked:
        num_layers = lengths[0] // 4
        for kind, leaf in archs.items():
            used = num_layers * (num_layers - 1) // 2 if kind == "skip" else num_layers
            assert not leaf[:, used:].any(), "decisions of layers that are not there yet"


def test_random_search_has_the_same_budget_and_depths_and_never_learns(searches):
    budgets = {method: [lengths for lengths, _ in asked] for method, (asked, _) in searches.items()}
    assert budgets["random_search"] == budgets["nas_rl"]
    moved = {
        method: any(np.any(leaf) for leaf in jax.tree.leaves(state.policy_params))
        for method, (_, state) in searches.items()
    }
    assert moved == {"nas_rl": True, "random_search": False}


def uniformity(rows):
    """The greatest z-scores of single decisions with two options, and of the correlations of pairs: `[n, D]` in."""
    single = np.abs(rows.mean(0) - 0.5).max() * 2 * np.sqrt(len(rows))
    pairs = np.corrcoef(rows.T)[np.triu_indices(rows.shape[1], 1)]
    return single, np.abs(pairs).max() * np.sqrt(len(rows))


def test_random_search_draws_every_architecture_alike(setting, monkeypatch):
    config = changed("search", changed("layers", first_layers=3), children=400, batch=400)
    many = setting._replace(config=config)
    [(lengths, archs)], _ = searched(many, "random_search", lambda ids: 0 * ids)
    rows = np.concatenate(jax.tree.leaves(archs), 1)
    assert (rows.shape, lengths[0]) == ((400, 12), 12)
    assert max(uniformity(rows)) < 4.5
    # A controller that starts away from zero is found out.
    scaled = lambda *given, scale, **settings: controller(*given, scale=1.0, **settings)  # noqa: E731
    monkeypatch.setattr(nas_rl, "controller", scaled)
    [(_, archs)], _ = searched(many, "random_search", lambda ids: 0 * ids)
    assert max(uniformity(np.concatenate(jax.tree.leaves(archs), 1))) > 6


def test_every_setting_of_the_controller_reaches_it(setting, monkeypatch):
    called = {}
    monkeypatch.setattr(nas_rl, "nas_rl", lambda policy, tx, **settings: called.update(settings, tx=tx))
    form = {
        "batch": 2,
        "controller_rate": 0.3,
        "baseline_decay": 0.8,
        "ppo_steps": 3,
        "ppo_clip": 0.1,
        "staleness": 5,
        "replicas": 6,
    }
    nas_rl.make_searcher("nas_rl", changed("search", **form), setting.space)
    update, _ = called["tx"].update(jnp.ones(2), called["tx"].init(jnp.ones(2)))
    np.testing.assert_allclose(update, [-0.3, -0.3], rtol=1e-5)  # the first step of Adam is its rate
    assert called["ppo"] == nas_rl.PPO(0.1, 3)
    assert {name: called[name] for name in ("batch_size", "baseline_decay", "staleness", "replicas")} == {
        "batch_size": 2,
        "baseline_decay": 0.8,
        "staleness": 5,
        "replicas": 6,
    }
    np.testing.assert_allclose(called["reward"](jnp.array([0.5, jnp.nan])), [0.125, 0.0])
    nas_rl.make_searcher("random_search", changed("search", **form), setting.space)
    assert (called["batch_size"], called["staleness"], called["ppo"], called["replicas"]) == (2, 0, None, 6)
    assert not np.any(called["tx"].update(jnp.ones(2), called["tx"].init(jnp.ones(2)))[0])


# How children are trained


def test_children_are_judged_after_their_last_five_epochs_and_trained_with_nesterov(setting):
    config = changed("search", epochs=7, batch_size=10, learning_rate=0.3, weight_decay=0.11)
    recipe = nas_rl_children.make_recipe(config, setting.images)
    assert (recipe.steps, recipe.batch_size) == (28, 10)
    assert recipe.moments == (12, 16, 20, 24, 28)
    params, grads = {"w": np.array([0.5, -2.0])}, {"w": np.array([6.0, -3.0])}
    found, state, by_hand = params, recipe.tx.init(jax.tree.map(jnp.float32, params)), Sgd(0.9, 0.11, nesterov=True)
    for _ in range(3):
        updates, state = recipe.tx.update(jax.tree.map(jnp.float32, grads), state, jax.tree.map(jnp.float32, found))
        found = optax.apply_updates(jax.tree.map(jnp.float32, found), updates)
        params = by_hand.step(params, grads, 0.3)
        np.testing.assert_allclose(found["w"], params["w"], rtol=1e-5)


def test_the_error_is_that_of_the_best_of_the_last_five_judgements():
    accuracy = np.array([[0.9, 0.1, 0.2, 0.6, 0.5, 0.4], [0.9, 0.8, np.nan, np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(nas_rl_children.error_of(accuracy), [0.4, np.nan])


def test_a_batch_is_trained_in_the_space_of_its_depth_and_a_diverged_child_has_no_fitness(setting, monkeypatch):
    calls, kept = [], {}

    def train(run, name, family, archs, examples, recipe, **settings):
        calls.append((name, archs, sorted(examples.parts), settings))
        scores = np.array([[0.25, 0.75], [0.5, np.nan], [0.5, 0.25]])
        return SimpleNamespace(score={"validation": scores}, seconds=np.array([1.0, 2.0, 3.0]))

    monkeypatch.setattr(common, "train_networks", train)
    run = SimpleNamespace(once=lambda name, fn: kept.update({name: fn()}))
    trainer = nas_rl_children.canvas_trainer(run, setting)
    with nas_rl_children.evaluator(run, setting, "nas_rl", trainer) as (evaluate, _):
        archs = {
            kind: np.ones((3, leaf.shape[0]), np.int32) * (np.arange(leaf.shape[0]) < 2)
            for kind, leaf in setting.space.choices.items()
        }
        fitness = evaluate(np.array([4, 5, 6]), archs, {"length": np.array([8, 8, 8])})
    np.testing.assert_array_equal(fitness, [[0.25], [np.nan], [0.5]])
    run.once = lambda name, fn: kept[name]
    config = changed("search", setting.config, batch=3)
    with nas_rl_children.evaluator(run, setting._replace(config=config), "nas_rl", trainer) as (_, seconds):
        np.testing.assert_array_equal(seconds(SimpleNamespace(ids=np.array([4, 5, 6]))), [2.0, 2.0, 2.0])
    (name, cut, parts, settings) = calls[0]
    assert (name, parts, kept) == ("nas_rl/4", ["validation"], {"seconds/nas_rl/4": 6.0})
    assert {kind: leaf.shape for kind, leaf in cut.items()} == {
        "filters": (3, 2), "height": (3, 2), "skip": (3, 1), "width": (3, 2)
    }  # fmt: skip
    assert settings["choices"]["filters"].shape == (2, 2)
    assert settings["seeds"].tolist() == [4, 5, 6]
    assert settings["strategy"] == setting.config.search.strategy
    # The children's key is not the one that the search of that name draws with.
    expected, of_search = (
        jax.random.key_data(Run.key(SimpleNamespace(seed=setting.config.seed), name))
        for name in ("children/nas_rl", "nas_rl")
    )
    np.testing.assert_array_equal(jax.random.key_data(settings["key"]), expected)
    assert (expected != of_search).any()


def test_a_diverged_child_stays_in_the_history_with_reward_0_and_is_never_the_best(setting, tmp_path):
    fitness = np.array([0.5, np.nan, 0.25, 0.75, np.nan, 0.5, 0.5, 0.5])
    searcher = nas_rl.make_searcher("nas_rl", setting.config, setting.space)
    with Run(tmp_path, writers=()) as run:
        state, history = search(run, "nas_rl", searcher, lambda ids, archs, origins: fitness[ids][:, None], 2)
    np.testing.assert_array_equal(history.fitness[:, 0], fitness)
    assert history.good.tolist() == [True, False, True, True, False, True, True, True]
    # The average of two batches' mean rewards, of 0 for the diverged ones: b = 0.05 (0.95 r_1 + r_2) / its weight.
    rewards = np.nan_to_num((1 - fitness) ** 3).reshape(2, 4).mean(1)
    mean = (0.95 * rewards[0] + rewards[1]) / 1.95
    np.testing.assert_allclose(state.baseline.total / state.baseline.weight, mean, rtol=1e-5)
    shallow, arch = nas_rl.best_child(setting, history)
    assert shallow.space.choices["filters"].shape[0] == 2
    np.testing.assert_array_equal(arch["filters"], history.archs["filters"][2][:2])
    assert sorted(arch) == sorted(shallow.space.choices)


def test_the_seconds_of_a_farm_are_those_of_training_also_after_a_search_is_resumed(setting, tmp_path, monkeypatch):
    def quick(arch, seed, config, *, child_id, origin):
        return {"error": 0.5, "seconds": 1.0 + child_id}

    monkeypatch.setattr(nas_rl_children, "train_child", quick)
    monkeypatch.setattr(nas_rl_children, "local_processes", lambda workers: None)
    farm = setting._replace(config=changed("search", route="farm", workers=2))
    searcher = nas_rl.make_searcher("nas_rl", farm.config, farm.space)
    for _ in range(2):
        with Run(tmp_path, writers=()) as run, nas_rl_children.evaluator(run, farm, "nas_rl", None) as both:
            _, history = search(run, "nas_rl", searcher, both[0], 2)
            np.testing.assert_array_equal(both[1](history), (1.0 + np.arange(8)) / 2)
        # The second time nothing is left to train, and no child may be.
        monkeypatch.setattr(nas_rl_children, "train_child", None)


def test_a_child_that_failed_counts_with_the_time_until_it_failed():
    records = [Record({}, {"seconds": 3.0}, None, 9.0, 1), Record({}, None, "no memory", 5.0, 2)]
    np.testing.assert_array_equal(nas_rl_children.seconds_of(records, 2), [1.5, 2.5])


@pytest.mark.slow
def test_a_child_has_the_same_error_on_the_canvas_and_on_a_farm(setting, tmp_path):
    config = changed("search", changed("layers", first_layers=2, last_layers=2), epochs=6)
    short = nas_rl.setting_of(config, setting.loaded, setting.images, 2)
    archs = {kind: np.arange(2 * leaf.shape[0]).reshape(2, -1) % 2 for kind, leaf in short.space.choices.items()}
    origins, ids = {"length": np.array([8, 8])}, np.array([4, 5])
    found = {}
    for route in ("canvas", "farm"):
        there = short._replace(config=changed("search", config, route=route))
        with Run(tmp_path / route, seed=config.seed, writers=()) as run:
            trainer = nas_rl_children.canvas_trainer(run, there)
            with nas_rl_children.evaluator(run, there, "nas_rl", trainer) as (evaluate, _):
                found[route] = evaluate(ids, archs, origins)[:, 0]
    # Rounding may turn an example or two of the 48.
    np.testing.assert_allclose(found["canvas"], found["farm"], atol=0.05)
    assert 0 < found["canvas"].min() < 0.67
    records = sorted((tmp_path / "farm" / "farm" / "nas_rl").glob("child_*.json"))
    assert [path.name for path in records] == ["child_4.json", "child_5.json"]
