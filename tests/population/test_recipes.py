"""Families, losses, scores and rates of other kinds: what a population trains need not classify."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.population import Family, PopulationData, Recipe, train_population
from tests.population.families import ARCHS, DATA, FAMILY, KEY, trained

RNG = np.random.default_rng(3)
ONE = {"width": np.array([[0], [1], [2]])}


def test_a_regression_has_its_loss_and_its_score():
    """Least squares of `y = 2 x`: architectures choose the power of `x`, so that only the first can fit."""

    def init(key, arch, x):
        return {"slope": 0.1 * jax.random.normal(key, ()) + arch["width"][0]}

    def apply(params, arch, x):
        return params["slope"] * x ** (1 + arch["width"][0])

    x = RNG.uniform(1, 2, (50, 1)).astype(np.float32)
    squared = lambda outputs, targets: jnp.mean((outputs - targets) ** 2)  # noqa: E731
    recipe = Recipe(optax.sgd(0.02), steps=80, batch_size=10, loss=squared, judge_batch=7)
    scores = {"scalar": squared, "each": lambda outputs, targets: (outputs - targets)[:, 0] ** 2}
    data = PopulationData((x, 2 * x), {"held out": (x[:11] + 0.5, 2 * x[:11] + 1)})
    found = {
        name: train_population(
            KEY, Family(init, apply), ONE, data, recipe._replace(score=score), strategy="map", keep_params=True
        )
        for name, score in scores.items()
    }
    # The first weights know their architecture, the loss is in its own units and the right power wins.
    assert found["each"].score["held out"][0, 0] < 1e-3
    assert (found["each"].score["held out"][1:, 0] > 0.05).all()
    params = np.array(found["each"].params["slope"])[:, None, None]
    errors = (params * (x[:11] + 0.5) ** (1 + ONE["width"][..., None]) - 2 * x[:11] - 1) ** 2
    for population in found.values():  # 11 examples in batches of 7: the copies that fill the last one do not count
        np.testing.assert_allclose(population.score["held out"][:, 0], errors.mean((1, 2)), rtol=1e-4)


def test_text_is_trained_in_nats_and_judged_in_nats_and_bits():
    """Next-token prediction over a chain of tokens in which each is followed by the next one."""
    tokens = (np.arange(9)[None] + RNG.integers(0, 5, (40, 1))) % 5

    def init(key, arch, x):
        return 0.1 * jax.random.normal(key, (5, 5))

    def nats(outputs, targets):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, targets), -1)

    recipe = Recipe(
        optax.adam(0.3),
        steps=30,
        batch_size=8,
        loss=lambda outputs, targets: jnp.mean(nats(outputs, targets)),
        score=lambda outputs, targets: {"nats": nats(outputs, targets), "bits": nats(outputs, targets) / np.log(2)},
    )
    texts = jnp.asarray(tokens[:, :-1]), jnp.asarray(tokens[:, 1:])
    found = train_population(
        KEY, Family(init, lambda table, arch, x: table[x]), ONE, PopulationData(texts, {"text": texts}), recipe
    )
    assert found.good.all()
    score = found.score["text"]
    assert score["nats"].shape == (3, 1)
    perplexity = np.exp(score["nats"])
    assert (perplexity < 1.2).all()
    assert (found.loss < np.log(5)).all()
    np.testing.assert_allclose(score["bits"] * np.log(2), score["nats"], rtol=1e-5)


RATES = {
    "learning_rate": np.array([0.05, 0.05, 0.02, 0.05]),
    "decay": np.array([0.9, 0.5, 0.9, 0.9]),
    "epsilon": np.array([1e-3, 1e-3, 1e-3, 1e-1]),
    "momentum": np.array([0.9, 0.9, 0.9, 0.0]),
}


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_a_grid_of_four_settings_trains_every_member_by_its_own(strategy):
    def tx(rates):
        return optax.rmsprop(rates["learning_rate"], rates["decay"], rates["epsilon"], momentum=rates["momentum"])

    recipe = Recipe(tx, steps=20, batch_size=16)
    same = {"chain": np.tile(ARCHS["chain"][:1], (4, 1))}
    found = trained(same, recipe, rates=RATES, strategy=strategy, chunk=4)
    for i in range(4):
        plain = recipe._replace(tx=tx({name: values[i] for name, values in RATES.items()}))
        one = {"chain": same["chain"][:1]}
        alone = train_population(KEY, FAMILY, one, DATA, plain, strategy="map", keep_params=True)
        for expected, leaf in zip(*map(jax.tree.leaves, (alone.params, found.params)), strict=True):
            np.testing.assert_allclose(leaf[i], expected[0], rtol=1e-3, atol=1e-5)
    assert len(set(found.loss[:, 0].tolist())) == 4
