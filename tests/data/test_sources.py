"""Every source that needs no data library, and the rules they share."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

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
    monkeypatch.setattr(tfds, "load", lambda *args, **options: seen.append((args, options)))
    load(name, data_dir="D", download=True)
    assert seen == [((name, builder), {"data_dir": "D", "download": True})]


def test_npz_with_test_arrays(tmp_path):
    arrays = {
        "images": _random_images(0, 6, 4, 5, 3),
        "labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": _random_images(1, 3, 4, 5, 3),
        "test_labels": np.array([2, 1, 0], np.uint8),
    }
    np.savez(tmp_path / "a,b.npz", num_classes=5, **arrays)
    data = load(f"npz:{tmp_path}/a,b.npz")
    assert (data.num_classes, data.image_shape) == (5, (4, 5, 3))
    assert _equal(data.train, Examples(arrays["images"], arrays["labels"]))
    assert _equal(data.test, Examples(arrays["test_images"], arrays["test_labels"]))


def test_npz_without_test_arrays_holds_out_every_fifth_of_each_class(tmp_path):
    images = _random_images(0, 20, 4, 4)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) % 2)
    data = load(f"npz:{tmp_path / 'a.npz'}")
    test = [8, 9, 18, 19]
    np.testing.assert_array_equal(data.test.images, images[test][..., None])
    np.testing.assert_array_equal(data.train.images, np.delete(images, test, axis=0)[..., None])
    assert data.num_classes == 2


IMAGES, LABELS = np.zeros([10, 4, 4, 1], np.uint8), np.arange(10) // 5


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, r"has no array \['images'\]; it has \['labels'\]"),
        ({"images": IMAGES / 255, "labels": LABELS}, "images have dtype float64, expected uint8"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, r"images have shape \(4, 1\), expected \[N, H, W, C\]"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "10 images but 9 labels"),
        ({"images": IMAGES, "labels": LABELS / 2}, r"labels are float64 \(10,\), expected integers"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels range from -1 to 0, expected 0 to 0|num_classes is 1"),
        ({"images": IMAGES, "labels": 0 * LABELS}, "num_classes is 1, expected at least 2"),
        ({"images": IMAGES, "labels": LABELS, "num_classes": 1}, "num_classes is 1"),
        ({"images": IMAGES, "labels": 4 * LABELS, "num_classes": 4}, "labels range from 0 to 4, expected 0 to 3"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "no class has 5 examples"),
        ({"images": IMAGES[3:7], "labels": LABELS[3:7]}, "no class has 5 examples"),
        ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "only one of test_images and test_labels"),
        (
            {"images": IMAGES, "labels": LABELS, "test_images": IMAGES[:, :3], "test_labels": LABELS},
            r"test images have shape \(3, 4, 1\), train images \(4, 4, 1\)",
        ),
        ({"images": IMAGES, "labels": LABELS.astype(object)}, "not a readable .npz file of plain arrays"),
    ],
)
def test_npz_refuses(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(f"npz:{tmp_path / 'a.npz'}")


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "flipped"])
def test_npz_refuses_a_damaged_file(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez(path, images=_random_images(0, 50, 8, 8, 3), labels=np.arange(50) % 2)
    content = bytearray(path.read_bytes())
    content[3000] ^= 255
    new = {"text": b"hello", "truncated": bytes(content[:-2000]), "flipped": bytes(content)}
    path.unlink()
    if damage in new:
        path.write_bytes(new[damage])
    with pytest.raises(ValueError, match=r"there is no file|not a readable \.npz file"):
        load(f"npz:{path}")


def _write_image(path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_folder_holds_out_and_keeps_the_order_of_names(tmp_path):
    images = _random_images(0, 2, 10, 4, 6, 3)
    for label, name in enumerate(("cat", "dog")):
        for number in range(10):
            _write_image(tmp_path / name / f"{number}.png", images[label, number])
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    data = load(f"folder:{tmp_path}")
    assert (data.num_classes, data.image_shape) == (2, (4, 6, 3))
    np.testing.assert_array_equal(data.test.images, images[:, [4, 9]].reshape(4, 4, 6, 3))
    np.testing.assert_array_equal(data.train.images, np.delete(images, [4, 9], axis=1).reshape(16, 4, 6, 3))
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_folder_with_train_and_test_in_grey(tmp_path):
    images = _random_images(0, 4, 5, 5)
    for number, where in enumerate(("train/a/x.png", "train/b/x.png", "train/c/x.png", "test/b/x.png")):
        _write_image(tmp_path / where, images[number])
    (tmp_path / "test" / "a").mkdir()
    _write_image(tmp_path / "test/a/x.png", images[0])
    data = load(f"folder:{tmp_path}")
    np.testing.assert_array_equal(data.train.images, images[:3, ..., None])
    np.testing.assert_array_equal(data.test.images, images[[0, 3], ..., None])
    assert data.train.labels.tolist() == [0, 1, 2]
    assert data.test.labels.tolist() == [0, 1]
    assert data.num_classes == 3


def test_folder_mixing_grey_and_colour_becomes_rgb(tmp_path):
    grey, colour = _random_images(0, 4, 4), _random_images(1, 4, 4, 4)
    for part in ("train", "test"):
        _write_image(tmp_path / part / "a" / "x.png", grey)
        _write_image(tmp_path / part / "b" / "x.png", colour)
    data = load(f"folder:{tmp_path}")
    np.testing.assert_array_equal(data.train.images[0], np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(data.train.images[1], colour[..., :3])


def test_folder_scales_the_centre_square(tmp_path):
    wide = np.zeros([8, 16, 3], np.uint8)
    wide[:, 4:12] = 200  # the centre square
    for part in ("train", "test"):
        for name in ("a", "b"):
            _write_image(tmp_path / part / name / "x.png", wide if name == "a" else wide.transpose(1, 0, 2))
    data = load(f"folder:{tmp_path},size=4")
    assert data.image_shape == (4, 4, 3)
    np.testing.assert_array_equal(data.train.images, np.full([2, 4, 4, 3], 200))


def _no_folder(root):
    root.rmdir()


def _no_classes(root):
    _write_image(root / "x.png", np.zeros([4, 4], np.uint8))


def _empty_class(root):
    _write_image(root / "a" / "x.png", np.zeros([4, 4], np.uint8))
    (root / "b").mkdir()


def _two_sizes(root):
    _write_image(root / "a" / "x.png", np.zeros([4, 4], np.uint8))
    _write_image(root / "b" / "x.png", np.zeros([4, 5], np.uint8))


def _broken(root):
    _empty_class(root)
    (root / "b" / "x.png").write_bytes((root / "a" / "x.png").read_bytes()[:40])


def _deep(root):
    _empty_class(root)
    _write_image(root / "b" / "x.png", np.zeros([4, 4], np.uint16))


def _new_class(root):
    for where in ("train/a", "train/b", "test/a", "test/c"):
        _write_image(root / where / "x.png", np.zeros([4, 4], np.uint8))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_no_folder, "there is no folder"),
        (_no_classes, "has 0 folders, expected one for each of at least 2 classes"),
        (_empty_class, "has no image file; known are"),
        (_two_sizes, r"has 4x5 pixels, files before it 4x4; add ',size=SIDE'"),
        (_broken, r"x\.png cannot be decoded"),
        (_deep, "mode I;16 has more than 8 bits a channel"),
        (_new_class, r"has classes \['c'\] that the training part lacks"),
    ],
)
def test_folder_refuses(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(f"folder:{tmp_path}")


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
