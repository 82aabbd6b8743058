"""Every source that needs no data library, and the rules they share."""

import dataclasses

import numpy as np
import pytest

from jaxnas.data import Data, Examples, hold_out, load, shrink, tfds


def _equal(left: Examples, right: Examples) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right))


def _random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_digits_are_scaled_and_divided_by_the_documented_rules():
    from sklearn.datasets import load_digits

    data, bunch = load("digits"), load_digits()
    assert (data.num_classes, data.image_shape, data.name) == (10, (8, 8, 1), "digits")
    assert [part.images.dtype for part in (data.train, data.test)] == [np.uint8, np.uint8]
    assert [part.labels.dtype for part in (data.train, data.test)] == [np.int32, np.int32]
    is_test = np.zeros(1797, bool)
    seen = dict.fromkeys(range(10), 0)
    for position, label in enumerate(bunch.target.tolist()):
        seen[label] += 1
        is_test[position] = seen[label] % 5 == 0
    scaled = np.floor(bunch.images * 255 / 16 + 0.5)[..., None]
    for part, mask, num in ((data.train, ~is_test, 1442), (data.test, is_test, 355)):
        assert len(part.labels) == num
        np.testing.assert_array_equal(part.images, scaled[mask])
        np.testing.assert_array_equal(part.labels, bunch.target[mask])


@pytest.mark.parametrize("name", ["digits", "synthetic:n=40,size=8,classes=4"])
def test_loading_twice_gives_the_same(name):
    first, second = load(name), load(name)
    assert _equal(first.train, second.train)
    assert _equal(first.test, second.test)


def test_synthetic_options():
    data = load("synthetic:n=50,size=9,classes=3,channels=2,seed=7")
    assert data.train.images.shape == (50, 9, 9, 2)
    assert data.test.images.shape == (12, 9, 9, 2)
    assert np.bincount(data.train.labels).tolist() == [17, 17, 16]
    other = load("synthetic:n=50,size=9,classes=3,channels=2,seed=8")
    assert not _equal(data.train, other.train)
    assert load("synthetic").image_shape == (16, 16, 3)


def test_synthetic_can_be_learnt_but_not_from_shuffled_labels():
    data = load("synthetic:n=400,size=8,classes=4")
    train, test = (part.images.reshape(len(part.labels), -1) / 255 - 0.5 for part in (data.train, data.test))

    def accuracy(labels: np.ndarray) -> float:
        weights = np.linalg.lstsq(train.T @ train + 5 * np.eye(train.shape[1]), train.T @ np.eye(4)[labels])[0]
        return float(np.mean((test @ weights).argmax(1) == data.test.labels))

    assert accuracy(data.train.labels) > 0.7
    assert accuracy(np.random.default_rng(0).permutation(data.train.labels)) < 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("synthetic:", "'' is not OPTION=INTEGER"),
        ("synthetic:m=3", "'m=3' is not OPTION=INTEGER with an option of"),
        ("synthetic:n=x", "'n=x' is not OPTION=INTEGER"),
        ("synthetic:classes=1", "classes is 1, expected at least 2"),
        ("synthetic:n=9", "n is 9, expected at least 10"),
        ("synthetic:size=3", "size is 3, expected at least 4"),
    ],
)
def test_synthetic_refuses(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("digit", "digits"),
        ("cifra10", "cifar10"),
        ("fashion-mnits", "fashion-mnist"),
        ("fashion_mnist", "tfds:fashion_mnist"),
        ("cifar100", "tfds:cifar100"),
        ("tdfs:mnist", "tfds:mnist"),
        ("npz", "npz:FILE"),
        ("folder:", "folder:DIR"),
        ("synthetc:n=5", "synthetic:n=5"),
    ],
)
def test_unknown_name_is_named_with_the_closest(name, suggestion):
    with pytest.raises(ValueError, match="expected one of digits, synthetic, ") as caught:
        load(name)
    assert str(caught.value).startswith(f"name is {name!r}")
    assert str(caught.value).endswith(f"; did you mean {suggestion!r}?")


def test_unknown_name_without_a_close_one():
    with pytest.raises(ValueError, match=r"folder:DIR$"):
        load("xyzzy")


@pytest.mark.parametrize(
    ("name", "builder"), [("fashion-mnist", "fashion_mnist"), ("cifar10", "cifar10"), ("tfds:emnist/a", "emnist/a")]
)
def test_short_names_stand_for_builders(monkeypatch, name, builder):
    seen = []
    data = load("synthetic:n=20,size=4,classes=2")
    monkeypatch.setattr(tfds, "load", lambda *args, **options: seen.append((args, options)) or data)
    assert load(name, data_dir="D", download=True) is data
    assert seen == [((name, builder), {"data_dir": "D", "download": True})]


IMAGES, LABELS = np.zeros([10, 4, 4, 1], np.uint8), np.arange(10) // 5


def test_hold_out_is_disjoint_complete_and_even():
    labels = np.random.default_rng(0).integers(0, 3, 100).astype(np.int32)
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    rest, held_out = hold_out(Examples(images, labels), every=4)
    numbers = [part.images.ravel().tolist() for part in (rest, held_out)]
    assert sorted(numbers[0] + numbers[1]) == list(range(100))
    assert all(part == sorted(part) for part in numbers)
    np.testing.assert_array_equal(np.bincount(held_out.labels), np.bincount(labels) // 4)
    with pytest.raises(ValueError, match="every is 1, expected at least 2"):
        hold_out(rest, every=1)


def test_data_refuses_an_empty_part_and_is_frozen():
    some, none = Examples(IMAGES, LABELS), Examples(IMAGES[:0], LABELS[:0])
    with pytest.raises(ValueError, match="mine: the test part has no examples"):
        Data(some, none, num_classes=2, name="mine")
    data = Data(some, some, num_classes=2, name="mine")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.train = none  # type: ignore[misc]


@pytest.mark.parametrize(("height", "width", "pad_to", "factor"), [(28, 28, 32, 2), (5, 6, 9, 3), (4, 4, 4, 1)])
def test_shrink_against_loops(height, width, pad_to, factor):
    images = _random_images(0, 3, height, width, 2)
    top, left = (pad_to - height) // 2, (pad_to - width) // 2
    expected = np.zeros([3, pad_to // factor, pad_to // factor, 2])
    for row in range(height):
        for column in range(width):
            expected[:, (row + top) // factor, (column + left) // factor] += images[:, row, column]
    result = shrink(images, pad_to=pad_to, factor=factor)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, np.floor(expected / factor**2 + 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_to": 3, "factor": 1}, "pad_to is 3, expected at least 4 for images of 4x4"),
        ({"pad_to": 8, "factor": 3}, "factor is 3, expected a divisor of pad_to=8"),
        ({"pad_to": 8, "factor": 0}, "factor is 0"),
    ],
)
def test_shrink_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        shrink(IMAGES, **options)
    with pytest.raises(ValueError, match="images have dtype float64, expected uint8"):
        shrink(IMAGES / 2, pad_to=4, factor=1)


def test_transform_applies_to_both_parts():
    plain = load("digits")
    small = load("digits", transform=lambda images: shrink(images, pad_to=8, factor=2))
    assert small.image_shape == (4, 4, 1)
    for part in ("train", "test"):
        before, after = getattr(plain, part), getattr(small, part)
        assert _equal(after, Examples(shrink(before.images, pad_to=8, factor=2), before.labels))
    with pytest.raises(ValueError, match=r"transform returned float64 .*, expected uint8 of shape \[1442, H, W, C\]"):
        load("digits", transform=lambda images: images / 255)
