"""Golden first steps of everything that trains what was found: numpy by hand, no setting at zero or at its default."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import exhaustive
from experiments.configs.exhaustive import PRESETS
from jaxnas import data
from jaxnas.base import Network
from jaxnas.population import Family, PopulationData, Recipe, family_of, train_population
from jaxnas.searchers import sgd_l2
from jaxnas.train import stand_alone
from tests.by_hand import Sgd, cross_entropy
from tests.linear_toy import NAMES, SPACE, W, X, Y, by_hand

KEY = jax.random.key(0)
BATCH = jnp.asarray(X, jnp.float32), jnp.asarray(Y)
STEPS = 3


def rate_at(step):
    return 0.2 / (1 + step)


def close(found, expected, tolerance=3e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_children():
    """Each is clipped by its own norm; what a child does not have is moved by decay and momentum."""
    tx = sgd_l2(rate_at, momentum=0.6, weight_decay=0.3, clip=0.05, nesterov=True)
    recipe = Recipe(tx, STEPS, len(X), judge_at=tuple(range(1, STEPS)))
    archs = {"chain": np.array([[1], [0]])}
    data = PopulationData(BATCH, {"train": BATCH})
    settings = {"strategy": "map", "keep_params": True}
    found = train_population(KEY, family_of(SPACE), archs, data, recipe, **settings)
    for n, k in enumerate((1, 0)):
        params, sgd = W, Sgd(0.6, 0.3, clip=0.05, nesterov=True)
        for i in range(STEPS):
            loss, grads, _ = by_hand(params, k, X, Y)
            params = sgd.step(params, {name: grads.get(name, 0 * W[name]) for name in W}, rate_at(i))
            output = X @ params[NAMES[k]] @ params["head"]
            close([found.loss[n, i], found.score["train"][n, i]], [loss, np.mean(output.argmax(-1) == Y)])
        for name in ("a", "b"):
            close(found.params["blocks"][name][n, 0], params[name])
        close(found.params["head"][n], params["head"])


def headed(auxiliary):
    """`x W (1 - drop path)` with an auxiliary head `x A` and a statistic that counts the training steps."""

    def init(key, x):
        params = {"w": jnp.asarray(W["head"], jnp.float32), "a": jnp.asarray(W["head"][::-1] / 2, jnp.float32)}
        return {"params": params, "statistics": jnp.zeros(())}

    def apply(variables, x, *, key=None, train=False, drop_path=0.0):
        assert train
        assert key is not None
        logits = x @ variables["params"]["w"] * (1 - drop_path)
        after = {**variables, "statistics": variables["statistics"] + 1}
        return ((logits, x @ variables["params"]["a"]) if auxiliary else logits), after

    return Network(init, apply)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_stand_alone(auxiliary):
    """Smoothed labels in both losses, a factor for the auxiliary one, drop path that rises with the step."""
    trainer = stand_alone(
        headed(auxiliary),
        sgd_l2(rate_at, momentum=0.6, weight_decay=0.3, clip=0.05),
        drop_path=lambda step: 0.1 + 0.2 * step,
        auxiliary_weight=0.7,
        label_smoothing=0.35,
    )
    state, step = trainer.init(KEY, BATCH[0]), jax.jit(trainer.step)
    params, sgd = {"w": W["head"], "a": W["head"][::-1] / 2}, Sgd(0.6, 0.3, clip=0.05)
    for i in range(STEPS):
        state, info = step(jax.random.fold_in(KEY, i), state, BATCH)
        kept = 1 - (0.1 + 0.2 * i)
        loss, to_logits = cross_entropy(X @ params["w"] * kept, Y, 0.35)
        extra, to_extra = cross_entropy(X @ params["a"], Y, 0.35)
        grads = {"w": kept * X.T @ to_logits, "a": 0.7 * X.T @ to_extra * auxiliary}
        close(info["loss"], loss + 0.7 * extra * auxiliary)
        close(info["accuracy"], np.mean((X @ params["w"]).argmax(-1) == Y))
        params = sgd.step(params, grads, rate_at(i))
        for name in params:
            close(state.variables["params"][name], params[name])
        assert float(state.variables["statistics"]) == i + 1
        assert int(state.step) == i + 1


# The recipe of the exhaustive table, on a linear classifier of four pixels with the whole data set as a batch

IMAGES = np.random.default_rng(5).integers(0, 256, (2, 10, 2, 2, 1)).astype(np.uint8)
LABELS = np.random.default_rng(6).integers(0, 4, (2, 10)).astype(np.int32)
START = np.random.default_rng(7).normal(size=(4, 4))


def test_population_recipe():
    """Nesterov's momentum 0.9, coupled decay, clip 5, a cosine by steps; the loss is the mean between judgements."""
    config = dataclasses.replace(
        PRESETS["digits"],
        data=dataclasses.replace(PRESETS["digits"].data, crop=0, flip=False),
        epochs=5,
        judge_epochs=(2,),
        batch_size=10,
        learning_rate=0.6,
        weight_decay=0.3,
    )
    mean, std = 0.4, 0.02  # pixels far from zero, so that the clip of 5 is felt
    parts = [data.Examples(*map(jnp.asarray, part)) for part in zip(IMAGES, LABELS, strict=True)]
    images = data.SearchData(*parts, jnp.array([mean]), jnp.array([std]), num_classes=4, image_shape=(2, 2, 1))
    family = Family(
        lambda key, arch, x: {"w": jnp.asarray(START, jnp.float32)},
        lambda params, arch, x: x.reshape(len(x), -1) @ params["w"],
    )
    found = train_population(
        KEY,
        family,
        {"edges": np.array([[0]])},
        PopulationData(tuple(images.weights), {"validation": tuple(images.policy)}),
        exhaustive.make_recipe(config, images),
        strategy="map",
        keep_params=True,
    )
    x, held = ((part.reshape(10, -1) / 255 - mean) / std for part in IMAGES)
    params, sgd, losses, shares = {"w": START}, Sgd(0.9, 0.3, clip=5.0, nesterov=True), [], {}
    for i in range(5):
        loss, to_logits = cross_entropy(x @ params["w"], LABELS[0])
        losses.append(loss)
        rate = 0.6 * 0.5 * (1 + np.cos(np.pi * i / 5))
        params = sgd.step(params, {"w": x.T @ to_logits}, rate)
        shares[i + 1] = np.mean((held @ params["w"]).argmax(-1) == LABELS[1])
    close(found.params["w"][0], params["w"], 1e-4)
    close(found.loss[0], [np.mean(losses[:2]), np.mean(losses[2:])], 1e-4)
    close(found.score["validation"][0], [shares[2], shares[5]])
