"""The data of a script: sizes that are no sizes are refused, and images of every shape can be shrunk."""

import dataclasses

import numpy as np
import pytest

from experiments import batches
from experiments.configs.parts import DataConfig
from jaxnas import data


def _config(**changes) -> DataConfig:
    return dataclasses.replace(DataConfig("synthetic:n=40,size=4,classes=2,channels=1"), **changes)


@pytest.mark.parametrize(
    ("sizes", "expected"), [((0.5, 0.25), (20, 10)), ((30, 10), (30, 10)), ((30.0, 1), (30, 1)), ((1, 39.0), (1, 39))]
)
def test_two_fractions_or_two_counts(sizes, expected, capsys):
    config = _config(weights=sizes[0], policy=sizes[1])
    search = batches.split_data(batches.load_data(config), config, 0)
    assert (len(search.weights.labels), len(search.policy.labels)) == expected
    assert len(capsys.readouterr().err.splitlines()) == (1 in expected)  # one example is of one class


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1.5, 0.5), "data.weights is 1.5, expected a count of at least 1, or two fractions below 1"),
        ((0.5, 20), "data.weights is 0.5, expected a count"),
        ((20, 0.5), "data.policy is 0.5, expected a count"),
        ((20, -1), "data.policy is -1, expected a count"),
        ((20, 0), "data.policy is 0, expected a count"),
        ((20, float("nan")), "data.policy is nan, expected a count"),
        ((float("inf"), 20), "data.weights is inf, expected a count"),
        ((float("nan"), 20), "sizes is .*nan"),
        ((1, 1), "sizes is .1.0, 1.0., expected two counts"),
        ((0.6, 0.5), "sizes is .0.6, 0.5., expected two counts"),
        ((0.0, 0.5), "sizes is .0.0, 0.5., expected two counts"),
        ((30, 20), "sizes is .30, 20., expected two counts"),
    ],
)
def test_sizes_that_are_neither(sizes, message):
    config = _config(weights=sizes[0], policy=sizes[1])
    with pytest.raises(ValueError, match=message):
        batches.split_data(batches.load_data(config), config, 0)


def test_images_that_are_wider_than_high_are_padded_to_a_square(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.full([20, 4, 6, 1], 8, np.uint8), labels=np.arange(20) % 2)
    loaded = batches.load_data(_config(name=f"npz:{tmp_path / 'a.npz'}", shrink=2))
    assert loaded.image_shape == (3, 3, 1)
    np.testing.assert_array_equal(loaded.train.images[0, :, :, 0], [[4] * 3, [8] * 3, [4] * 3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shrink": 0}, "factor is 0"),
        ({"shrink": -2}, "factor is -2"),
        ({"shrink": 3}, "factor is 3, expected a divisor of pad_to=4"),
        ({"pad_to": 0}, "pad_to is 0, expected at least 4"),
        ({"pad_to": -8, "shrink": 2}, "pad_to is -8, expected at least 4"),
    ],
)
def test_shrinking_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batches.load_data(_config(**changes))


def test_nothing_is_changed_by_default():
    plain, loaded = data.load("digits"), batches.load_data(DataConfig("digits"))
    np.testing.assert_array_equal(plain.train.images, loaded.train.images)
