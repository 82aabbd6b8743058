"""Texts of the scripts: where they come from, which windows are used, and what a recipe makes of its settings."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import text as texts
from experiments.configs.text import TextConfig, TextRecipeConfig
from jaxnas.data.text import text_of
from jaxnas.errors import UserError

TEXT = text_of("abcdefghij" * 20, fractions=(0.5, 0.3, 0.2))


def test_a_path_may_name_variables_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("one two three four " * 10)
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    config = TextConfig("$SOME_FOLDER/words.txt", unit="words", fractions=(0.5, 0.25, 0.25), min_count=2)
    text = texts.load_text_data(config)
    assert (text.vocabulary, len(text.train), text.unit) == (("<unk>", "four", "one", "three", "two"), 20, "words")
    monkeypatch.delenv("SOME_FOLDER")
    with pytest.raises(UserError, match=r"data.path is \$SOME_FOLDER/words.txt: the environment has no such variable"):
        texts.load_text_data(config)


def test_the_made_up_text_is_the_same_at_every_call():
    one, other = (texts.load_text_data(TextConfig(texts.SYNTHETIC)) for _ in range(2))
    assert one.train.tolist() == other.train.tolist()
    assert len(one.train) > 2000


def test_windows_that_judge_are_spread_over_their_part():
    data = texts.text_population_data(TEXT, 4, validation_windows=5, test_windows=2, parts=("validation", "test"))
    assert data.train[0].shape == data.train[1].shape == (24, 4)
    np.testing.assert_array_equal(data.train[1][0], TEXT.train[1:5])
    # Of the 14 windows of 60 tokens those with the numbers 0, 2, 5, 8 and 11; of the 9 of 40 the first and the fifth.
    starts = [4 * number for number in (0, 2, 5, 8, 11)]
    np.testing.assert_array_equal(data.parts["validation"][0], [TEXT.validation[i : i + 4] for i in starts])
    np.testing.assert_array_equal(data.parts["test"][1], [TEXT.test[i + 1 : i + 5] for i in (0, 16)])
    everything = texts.text_population_data(TEXT, 4)
    assert list(everything.parts) == ["validation"]
    assert len(everything.parts["validation"][0]) == 14
    assert len(texts.text_population_data(TEXT, 4, validation_windows=99).parts["validation"][0]) == 14


def test_nats_by_hand():
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    targets = np.random.default_rng(1).integers(0, 5, (3, 4)).astype(np.int32)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = [np.mean([-math.log(p[b, t, targets[b, t]]) for t in range(4)]) for b in range(3)]
    np.testing.assert_allclose(texts.token_nats(jnp.asarray(logits), jnp.asarray(targets)), expected, rtol=1e-5)
    recipe = texts.text_recipe(TextRecipeConfig())
    np.testing.assert_allclose(recipe.loss(jnp.asarray(logits), jnp.asarray(targets)), np.mean(expected), rtol=1e-5)
    assert recipe.score is texts.token_nats


def moves(tx, gradient, steps):
    """The updates of one weight whose gradient is the same at every step."""
    state, found = tx.init(jnp.zeros(2)), []
    for _ in range(steps):
        update, state = jax.jit(tx.update)(jnp.asarray(gradient), state, jnp.zeros(2))
        found.append(np.asarray(update))
    return np.array(found)


def test_the_rate_is_constant_and_then_falls_to_zero_and_gradients_are_clipped():
    form = TextRecipeConfig(steps=8, optimiser="sgd", learning_rate=0.5, decay_from=0.25, clip=1.0, judgements=1)
    rates = [0.5, 0.5, 0.5, 5 / 12, 4 / 12, 3 / 12, 2 / 12, 1 / 12]
    found = moves(texts.text_recipe(form).tx, [0.0, 0.5], 8)
    np.testing.assert_allclose(found[:, 1], -0.5 * np.array(rates), rtol=1e-5)
    found = moves(texts.text_recipe(form).tx, [3.0, 4.0], 1)  # a norm of 5 becomes 1
    np.testing.assert_allclose(found[0], [-0.3, -0.4], rtol=1e-5)
    # A member's rates take the place of the recipe's; Adam's first step has the length of the rate.
    found = moves(texts.grid_recipe(form).tx({"learning_rate": 0.2, "decay_from": 0.5}), [0, 1.0], 6)
    np.testing.assert_allclose(found[:, 1], [-0.2] * 5 + [-0.15], rtol=1e-5)
    adam = dataclasses.replace(form, optimiser="adam")
    np.testing.assert_allclose(moves(texts.text_recipe(adam).tx, [0.1, -0.1], 1)[0], [-0.5, 0.5], rtol=1e-3)


def test_judgements_are_the_last_ones():
    recipe = texts.text_recipe(TextRecipeConfig(steps=30, batch_size=7, judgements=4, judge_every=3))
    assert (recipe.moments, recipe.steps, recipe.batch_size) == ((21, 24, 27, 30), 30, 7)
    with pytest.raises(UserError, match=r"^child\.steps is 9, expected at least 10 for 4 judgements 3 steps apart$"):
        texts.text_recipe(TextRecipeConfig(steps=9, judgements=4, judge_every=3), name="child")
    assert texts.text_recipe(TextRecipeConfig(steps=10, judgements=4, judge_every=3)).moments == (1, 4, 7, 10)
