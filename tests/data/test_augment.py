"""Augmentations against plain numpy: each output must be one of the results that numpy enumerates, equally often."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.data import cutout, random_crop, random_flip

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX

KEY = jax.random.key(0)


def _images(num: int, height: int = 5, width: int = 7, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (num, height, width, channels), dtype=np.uint8)


def _which(outcome: np.ndarray, candidates: list[np.ndarray]) -> int:
    """Returns the number of the only candidate that equals the outcome."""
    (found,) = (number for number, candidate in enumerate(candidates) if np.array_equal(outcome, candidate))
    return found


def _z_score(counts: np.ndarray) -> float:
    expected = counts.sum() / len(counts)
    degrees = len(counts) - 1
    return float((((counts - expected) ** 2).sum() / expected - degrees) / math.sqrt(2 * degrees))


def _cropped(image: np.ndarray, padding: int) -> list[np.ndarray]:
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    height, width = image.shape[:2]
    places = range(2 * padding + 1)
    return [padded[row : row + height, column : column + width] for row in places for column in places]


def _cut(image: np.ndarray, length: int) -> list[np.ndarray]:
    height, width = image.shape[:2]
    results = []
    for row in range(height):
        for column in range(width):
            result = image.copy()
            top, left = max(row - length // 2, 0), max(column - length // 2, 0)
            result[top : row + length // 2, left : column + length // 2] = 0
            results.append(result)
    return results


@pytest.mark.statistical
def test_random_crop():
    images = np.repeat(_images(1), 2000, axis=0)
    outcomes = np.asarray(random_crop(KEY, images, padding=2))
    candidates = _cropped(images[0], 2)
    counts = np.bincount([_which(outcome, candidates) for outcome in outcomes], minlength=25)
    assert abs(_z_score(counts)) < 4.5


@pytest.mark.statistical
def test_random_flip():
    images = np.repeat(_images(1), 1000, axis=0)
    candidates = [images[0], images[0][:, ::-1]]
    for probability in (0.5, 0.1):
        outcomes = np.asarray(random_flip(KEY, images, probability))
        share = np.mean([_which(outcome, candidates) for outcome in outcomes])
        assert abs(share - probability) < 4.5 * math.sqrt(probability * (1 - probability) / 1000)


@pytest.mark.statistical
def test_cutout():
    images = np.repeat(_images(1), 2000, axis=0).astype(np.float32)
    outcomes = np.asarray(cutout(KEY, images, length=4))
    candidates = _cut(images[0], 4)
    counts = np.bincount([_which(outcome, candidates) for outcome in outcomes], minlength=35)
    assert abs(_z_score(counts)) < 4.5


@pytest.mark.parametrize(("augment", "numpy"), [(random_crop, _cropped), (cutout, _cut)])
def test_each_image_is_treated_on_its_own(augment, numpy):
    images = _images(40)
    outcomes = np.asarray(augment(KEY, images, 4))
    places = [_which(outcome, numpy(image, 4)) for outcome, image in zip(outcomes, images)]
    assert len(set(places)) > 10


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])
@pytest.mark.parametrize("augment", [random_crop, random_flip, cutout])
def test_jit_shape_dtype_and_key(augment, dtype):
    images = jnp.asarray(_images(30, 20, 20), dtype)
    eager = augment(KEY, images)
    assert (eager.shape, eager.dtype) == (images.shape, images.dtype)
    np.testing.assert_array_equal(jax.jit(augment)(KEY, images), eager)
    np.testing.assert_array_equal(augment(KEY, images), eager)
    assert not np.array_equal(augment(jax.random.key(1), images), eager)


@pytest.mark.parametrize("augment", [random_crop, random_flip, cutout])
def test_zero_strength_changes_nothing(augment):
    images = _images(10)
    np.testing.assert_array_equal(augment(KEY, images, 0), images)


def test_full_strength():
    images = _images(4)
    np.testing.assert_array_equal(random_flip(KEY, images, 1.0), images[:, :, ::-1])
    np.testing.assert_array_equal(cutout(KEY, images, 14), 0 * images)


@pytest.mark.parametrize(
    ("augment", "value", "message"),
    [
        (random_crop, -1, "padding is -1, expected at least 0"),
        (random_flip, 1.5, "probability is 1.5, expected 0 to 1"),
        (cutout, -2, "length is -2, expected at least 0"),
    ],
)
def test_refused(augment, value, message):
    with pytest.raises(ValueError, match=message):
        augment(KEY, _images(2), value)
