"""Batches cover an epoch, are a pure function of key and step, and come in a uniformly random order."""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas.data import (
    Examples,
    batch,
    batch_indices,
    batch_with_replacement,
    batches,
    load,
    random_indices,
    split,
    to_float,
)

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX

KEY = jax.random.key(0)
BOTH = pytest.mark.parametrize("draw", [batch, batch_with_replacement])


def _numbered(num: int) -> Examples:
    images = np.arange(num, dtype=np.uint8)[:, None, None, None] + np.zeros([num, 2, 3, 1], np.uint8)
    return Examples(images, np.arange(num, dtype=np.int32))


@pytest.mark.parametrize(("num", "batch_size"), [(1, 1), (7, 7), (20, 5), (23, 5), (64, 1), (1000, 96), (50000, 64)])
def test_every_example_once_in_an_epoch(num, batch_size):
    steps = num // batch_size
    indices = jax.jit(jax.vmap(lambda step: batch_indices(KEY, num, step, batch_size)))
    for epoch in range(2):
        chosen = np.asarray(indices(jnp.arange(steps) + epoch * steps))
        assert chosen.dtype == np.int32
        assert chosen.min() >= 0
        assert chosen.max() < num
        assert len(np.unique(chosen)) == steps * batch_size


def test_epochs_keys_and_dropped_examples_differ():
    def epoch(key, number):
        return np.concatenate([batch_indices(key, 103, 10 * number + step, 10) for step in range(10)])

    first, second = epoch(KEY, 0), epoch(KEY, 1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, epoch(jax.random.key(1), 0))
    dropped = {tuple(set(range(103)) - set(epoch(KEY, number).tolist())) for number in range(4)}
    assert len(dropped) == 4
    np.testing.assert_array_equal(first, epoch(KEY, 0))


def _chi_square(num: int, rounds: int = batches.ROUNDS, num_keys: int = 12_000) -> float:
    """Tests the orders of `num` examples against the uniform distribution; returns the z-score of chi square."""
    keys = jax.random.split(jax.random.key(1), num_keys)
    orders = jax.vmap(lambda key: batches._shuffled(key, num, jnp.arange(num), rounds))(keys)
    codes = {order: code for code, order in enumerate(itertools.permutations(range(num)))}
    counts = np.bincount([codes[tuple(order)] for order in np.asarray(orders).tolist()], minlength=math.factorial(num))
    expected = num_keys / math.factorial(num)
    degrees = math.factorial(num) - 1
    return float((((counts - expected) ** 2).sum() / expected - degrees) / math.sqrt(2 * degrees))


@pytest.mark.statistical
@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_all_orders_are_equally_likely(num):
    assert abs(_chi_square(num)) < 4.5


@pytest.mark.statistical
def test_too_few_rounds_would_be_noticed():
    assert _chi_square(4, rounds=3) > 20


@pytest.mark.statistical
def test_neighbours_in_a_large_set_do_not_stay_together():
    num, num_keys = 1000, 2000
    keys = jax.random.split(jax.random.key(2), num_keys)

    def shuffled_neighbours(rounds):
        pairs = jax.vmap(lambda key: batches._shuffled(key, num, jnp.array([6, 7]), rounds))(keys)
        distances = (pairs[:, 1] - pairs[:, 0]) % num  # uniform on 1 ... num - 1
        return np.asarray(pairs), np.asarray(distances)

    def z_score(mean, expected):
        return np.abs(mean - expected).max() / (num / math.sqrt(12 * num_keys))

    pairs, distances = shuffled_neighbours(batches.ROUNDS)
    assert z_score(pairs.mean(axis=0), (num - 1) / 2) < 4.5
    assert z_score(distances.mean(), num / 2) < 4.5
    share_close = 18 / 999
    bound = 4.5 * math.sqrt(share_close / num_keys)
    assert abs(np.mean((distances < 10) | (distances > num - 10)) - share_close) < bound
    _, distances = shuffled_neighbours(4)  # too few rounds: the test notices
    assert np.mean((distances < 10) | (distances > num - 10)) - share_close > bound


@pytest.mark.statistical
def test_random_indices_are_uniform_and_independent_of_the_step():
    draws = np.asarray(jax.vmap(lambda step: random_indices(KEY, 10, step, 50))(jnp.arange(200)))
    counts = np.bincount(draws.ravel(), minlength=10)
    z = (((counts - 1000) ** 2).sum() / 1000 - 9) / math.sqrt(18)
    assert abs(z) < 4.5
    assert not np.array_equal(draws[0], draws[1])
    assert random_indices(KEY, 3, 0, 50).shape == (50,)  # more than there are


@BOTH
def test_a_batch_is_the_examples_at_its_indices(draw):
    examples = _numbered(30)
    images, labels = draw(KEY, examples, 2, 8, mean=[0.5], std=[0.25])
    choose = batch_indices if draw is batch else random_indices
    np.testing.assert_array_equal(labels, choose(KEY, 30, 2, 8))
    expected = (examples.images[np.asarray(labels)].astype(np.float64) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)
    assert (images.dtype, labels.dtype) == (jnp.float32, jnp.int32)


@BOTH
def test_jit_scan_and_vmap_agree_with_eager_calls(draw):
    chex.clear_trace_counter()
    examples = jax.tree.map(jnp.asarray, _numbered(30))
    eager = [draw(KEY, examples, step, 8) for step in range(6)]
    eager = jax.tree.map(lambda *leaves: jnp.stack(leaves), *eager)
    traced = jax.jit(chex.assert_max_traces(lambda given, step: draw(KEY, given, step, 8), n=1))
    jitted = [traced(examples, step) for step in range(6)]
    chex.assert_trees_all_close(jax.tree.map(lambda *leaves: jnp.stack(leaves), *jitted), eager)
    scanned = lax.scan(lambda step, _: (step + 1, draw(KEY, examples, step, 8)), 0, length=6)[1]
    chex.assert_trees_all_close(scanned, eager)
    mapped = jax.vmap(lambda step: draw(KEY, examples, step, 8))(jnp.arange(6))
    chex.assert_trees_all_close(mapped, eager)


def test_vmap_over_keys_equals_a_loop():
    keys = jax.random.split(KEY, 3)
    mapped = jax.vmap(lambda key: batch_indices(key, 30, 1, 8))(keys)
    np.testing.assert_array_equal(mapped, jnp.stack([batch_indices(key, 30, 1, 8) for key in keys]))


def test_normalised_batches_have_mean_zero_and_deviation_one():
    data = load("synthetic:n=200,size=8")
    search = split(data)
    images = to_float(data.train.images, search.mean, search.std)
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=1e-5)


def test_to_float_takes_any_leading_axes_and_scalars():
    images = jnp.full([2, 3], 51, jnp.uint8)
    np.testing.assert_allclose(to_float(images), 0.2, rtol=1e-6)
    np.testing.assert_allclose(to_float(images, 0.1, jnp.array([0.1, 0.2, 0.5]))[1], [1, 0.5, 0.2], rtol=1e-5)
    np.testing.assert_allclose(to_float(images[0], 0.1), 0.1, rtol=1e-5)
    with pytest.raises(ValueError, match="images have dtype float32, expected uint8"):
        to_float(images / 255)


@pytest.mark.parametrize("batch_size", [0, 31])
def test_a_batch_larger_than_the_set_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}, expected 1 to 30"):
        batch(KEY, _numbered(30), 0, batch_size)
    with pytest.raises(ValueError, match="batch_size is 0 and num_examples 30"):
        batch_with_replacement(KEY, _numbered(30), 0, 0)
