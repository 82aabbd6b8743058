"""Every setting of a script reaches the recipe it belongs to, with its batches, its schedules and its units."""

import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import batches, common, darts, outcome, proxyless, random_search, snas
from experiments.configs import darts as darts_configs
from experiments.configs import proxyless as proxyless_configs
from experiments.configs import random_search as random_configs
from experiments.configs import snas as snas_configs
from experiments.configs.parts import DataConfig, NetworkConfig, TrainConfig
from jaxnas import data
from jaxnas.base import CostTable
from tests.by_hand import Sgd

KEY = jax.random.key(0)
DATA = DataConfig("synthetic:n=96,size=8,classes=3,channels=1", weights=40, policy=20)
NETWORK = NetworkConfig(channels=2, cells=2, nodes=1, operations=("none", "skip_connect", "avg_pool_3x3"))
RETRAIN = TrainConfig(batch_size=8)
PER_EPOCH = 5  # 40 examples in batches of 8


class Called(Exception):
    """Raised in place of what a script would build, with its settings."""


def settings_of(monkeypatch, module, name, run):
    """The keyword arguments with which `module` calls `name`."""

    def called(*args, **settings):
        raise Called(settings)

    monkeypatch.setattr(module, name, called)
    with pytest.raises(Called) as found:
        run()
    return found.value.args[0]


def fake_run(tmp_path):
    return SimpleNamespace(path=tmp_path, key=lambda name: KEY)


def cosine(first, last, t):
    """A cosine from `first` to `last`, at the fraction `t` of its length."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * t))


def follows(schedule, expected):
    """Whether a schedule has the values of `{step: value}`."""
    np.testing.assert_allclose([schedule(jnp.int32(step)) for step in expected], list(expected.values()), rtol=1e-5)


def test_darts(monkeypatch):
    search = darts_configs.SearchConfig(
        epochs=4,
        batch_size=8,
        learning_rate=0.3,
        last_learning_rate=0.02,
        weight_decay=0.11,
        policy_learning_rate=0.12,
        policy_weight_decay=0.13,
        order="second",
        last_temperature=0.4,
    )
    config = darts_configs.Config(DATA, NETWORK, search, RETRAIN)
    found = settings_of(monkeypatch, darts, "darts", lambda: darts.prepare(config))
    follows(found.pop("learning_rate"), {0: 0.3, 4: 0.3, 5: cosine(0.3, 0.02, 0.25), 19: cosine(0.3, 0.02, 0.75)})
    follows(found.pop("temperature"), {0: 0.85, 5: 0.7, 15: 0.4, 19: 0.4})
    assert found == {
        "weight_decay": 0.11,
        "policy_learning_rate": 0.12,
        "policy_weight_decay": 0.13,
        "order": "second",
    }


def test_snas(monkeypatch):
    search = snas_configs.SearchConfig(
        epochs=4,
        batch_size=8,
        learning_rate=0.3,
        last_learning_rate=0.02,
        weight_decay=0.11,
        policy_learning_rate=0.12,
        policy_weight_decay=0.13,
        first_temperature=0.9,
        last_temperature=0.1,
        resource_weight=0.14,
        resource_mode="discrete",
    )
    config = snas_configs.Config(DATA, NETWORK, search, RETRAIN)
    found = settings_of(monkeypatch, snas, "snas", lambda: snas.prepare(config))
    follows(found.pop("learning_rate"), {0: 0.3, 4: 0.3, 5: cosine(0.3, 0.02, 0.25), 19: cosine(0.3, 0.02, 0.75)})
    follows(found.pop("temperature"), {0: 0.7, 5: 0.5, 15: 0.1, 19: 0.1})
    assert callable(found.pop("resource"))
    assert found == {
        "weight_decay": 0.11,
        "policy_learning_rate": 0.12,
        "policy_weight_decay": 0.13,
        "resource_weight": 0.14,
        "resource_mode": "discrete",
    }


@pytest.mark.parametrize("mode", ["two", "reinforce"])
def test_proxyless(monkeypatch, mode):
    search = proxyless_configs.SearchConfig(
        mode=mode,
        warmup_epochs=3,
        rest_epochs=2,
        epochs=6,
        batch_size=8,
        learning_rate=0.3,
        weight_decay=0.11,
        label_smoothing=0.12,
        policy_learning_rate=0.13,
        policy_every=7,
        skip_zero_sampled=False,
        num_samples=4,
        baseline="leave_one_out",
    )
    latency = proxyless_configs.LatencyConfig(form="add#linear", weight=0.7)
    config = proxyless_configs.Config(DATA, proxyless_configs.NetworkConfig(), search, latency)
    examples = data.Examples(np.zeros((40, 2, 2, 1), np.uint8), np.zeros(40, np.int32))
    setting = SimpleNamespace(config=config, space=None, images=SimpleNamespace(weights=examples))
    table = CostTable(4.0, {"chain": np.array([[3.0, 7.0]])})
    monkeypatch.setattr(proxyless, "reward_loss", lambda space, table, target: (table, target))
    found = settings_of(monkeypatch, proxyless, "proxyless", lambda: proxyless.make_searcher(setting, table, 5.0))
    follows(found.pop("learning_rate"), {0: 0.3, 1: cosine(0.3, 0, 1 / 30), 29: cosine(0.3, 0, 29 / 30)})
    if mode == "reinforce":
        assert found.pop("reward") == (table, 5.0)
    else:
        charged = found.pop("objective")(jnp.float32(2), {"chain": jnp.zeros((1, 2))}, None)
        np.testing.assert_allclose(charged, 2 + 0.7 * (9 - 5) / 5, rtol=1e-6)
    assert found == {
        "mode": mode,
        "weight_decay": 0.11,
        "label_smoothing": 0.12,
        "policy_learning_rate": 0.13,
        "policy_every": 7,
        "warmup_steps": 3 * PER_EPOCH,
        "rest_steps": 2 * PER_EPOCH,
        "skip_zero_sampled": False,
        "num_samples": 4,
        "baseline": "leave_one_out",
    }


# Training of what was found


def check_sgd(tx, steps, rate, weight_decay, clip):
    """That `tx` is SGD with momentum 0.9 and a cosine by steps down to zero, coupled decay and the clip."""
    start = {"w": np.array([0.5, -2.0, 1.0])}
    grads = {"w": np.array([6.0, -3.0, 4.0])}
    params, state = jax.tree.map(jnp.float32, start), tx.init(jax.tree.map(jnp.float32, start))
    expected, sgd = start, Sgd(0.9, weight_decay, clip=clip)
    for i in range(steps):
        updates, state = tx.update(jax.tree.map(jnp.float32, grads), state, params)
        params = optax.apply_updates(params, updates)
        expected = sgd.step(expected, grads, cosine(rate, 0, i / steps))
        np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-4)


def test_children_are_trained_on_all_examples_with_the_recipe_of_the_configuration(monkeypatch):
    parts = [data.Examples(jnp.full((n, 2, 2, 1), n, jnp.uint8), jnp.full(n, n)) for n in (4, 6)]
    recipe = TrainConfig(epochs=3, batch_size=2, learning_rate=0.3, weight_decay=0.11, clip=0.4, random_children=2)
    setting = SimpleNamespace(
        space=None, images=SimpleNamespace(weights=parts[0], policy=parts[1]),
        config=SimpleNamespace(retrain=recipe),
    )  # fmt: skip

    def called(*args):
        raise Called(args)

    monkeypatch.setattr(outcome, "random_archs", lambda key, space, count: {"e": jnp.full((count, 1), 7)})
    monkeypatch.setattr(common, "train_children", called)
    with pytest.raises(Called) as found:
        outcome.compare(fake_run(None), setting, {"e": np.array([3])})
    _, _, name, archs, examples, used, tx = found.value.args[0]
    assert (name, used) == ("retrain", recipe)
    assert archs["e"].tolist() == [[3], [7], [7]]
    assert sorted(examples.labels.tolist()) == [4] * 4 + [6] * 6
    check_sgd(tx(5), 5, 0.3, 0.11, 0.4)


def test_random_candidates_are_trained_on_the_examples_for_the_weights(monkeypatch, tmp_path):
    config = random_configs.PRESETS["digits"]
    search = dataclasses.replace(config.search, candidates=3, epochs=2, batch_size=8, learning_rate=0.3)
    config = dataclasses.replace(config, data=DATA, network=NETWORK, search=search, retrain=RETRAIN)

    def called(run, setting, name, archs, examples, recipe, tx):
        assert examples is setting.images.weights
        assert recipe is search
        assert {len(leaf) for leaf in jax.tree.leaves(archs)} == {3}
        check_sgd(tx(5), 5, 0.3, 3e-4, 5.0)
        raise Called

    monkeypatch.setattr(common, "train_children", called)
    with pytest.raises(Called):
        random_search.main(fake_run(tmp_path), random_search.prepare(config))


# Batches


def numbered(count, first):
    """Images that hold their own number, which is their label too."""
    numbers = np.arange(first, first + count)
    return data.Examples(
        jnp.asarray(np.tile(numbers[:, None, None, None], (1, 2, 2, 1)), jnp.uint8), jnp.asarray(numbers)
    )


def test_weights_and_policy_have_batches_of_their_own_parts():
    """The weights see every example of their part once in an epoch, the policy draws anew from its own."""
    images = data.SearchData(
        numbered(12, 0), numbered(6, 100), jnp.array([0.5]), jnp.array([0.25]), num_classes=200, image_shape=(2, 2, 1)
    )
    draw = jax.jit(lambda step: batches.search_batch(jax.random.split(KEY), step, 4, images, DATA))
    found = [draw(step) for step in range(6)]
    for epoch in (found[:3], found[3:]):
        assert sorted(np.concatenate([batch.weights[1] for batch in epoch]).tolist()) == list(range(12))
    policy = np.stack([batch.policy[1] for batch in found])
    assert policy.min() >= 100
    assert len(np.unique(policy)) > 3
    assert any(len(set(row)) < 4 for row in policy.tolist()), "drawn with replacement"
    for batch in found:
        for x, y in batch:
            np.testing.assert_allclose(x[:, 0, 0, 0], (np.asarray(y) / 255 - 0.5) / 0.25, rtol=1e-5)
