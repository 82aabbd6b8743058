"""Files of arrays, under the names of this library and of Keras."""

import numpy as np
import pytest

from jaxnas.data import Examples, load


def _equal(left: Examples, right: Examples) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right))


def _random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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
        ({"labels": LABELS}, r"has the array labels, expected images and labels or x_train and y_train$"),
        ({"images": IMAGES / 255, "labels": LABELS}, "images have dtype float64, expected uint8"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, r"images have shape \(4, 1\), expected \[N, H, W, C\]"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "10 images but 9 labels"),
        ({"images": IMAGES, "labels": LABELS / 2}, r"labels are float64 \(10,\), expected integers"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels range from -1 to 0, expected 0 to"),
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


def _refusal(name: str) -> str:
    with pytest.raises(ValueError, match="npz:") as caught:
        load(name)
    return str(caught.value)


def test_the_names_of_keras_mean_the_same(tmp_path, capsys):
    images, labels = _random_images(0, 20, 4, 4), np.arange(20) % 2
    ours = {"images": images, "labels": labels, "test_images": images[::-1], "test_labels": labels}
    theirs = dict(zip(("x_train", "y_train", "x_test", "y_test"), ours.values()))
    for number in (2, 4):
        loaded = []
        for arrays in (ours, theirs):
            np.savez(tmp_path / "a.npz", **dict(list(arrays.items())[:number]))
            loaded.append(load(f"npz:{tmp_path / 'a.npz'}"))
        assert all(_equal(getattr(loaded[0], part), getattr(loaded[1], part)) for part in ("train", "test"))
    assert capsys.readouterr().err == ""


def test_arrays_that_are_not_loaded_are_named(tmp_path, capsys):
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES, labels=LABELS, x_train=IMAGES, val_images=IMAGES, num_classes=2)
    assert load(f"npz:{path}").num_classes == 2
    assert capsys.readouterr().err == f"jaxnas: npz:{path}: not loaded: arrays val_images, x_train\n"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has no arrays, expected images and labels or x_train and y_train"),
        ({"x_train": IMAGES}, "has the array x_train, expected"),
        ({"a": LABELS, "images": IMAGES, "y_train": LABELS}, "has the arrays a, images, y_train, expected"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES}, "has only one of x_test and y_test"),
    ],
)
def test_a_missing_array_is_told_from_those_there_are(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert f"npz:{path}: {path} {message}" in _refusal(f"npz:{path}")


@pytest.mark.parametrize("num_classes", [2.0, [2, 2], "2", True, -3, 2**40])
def test_num_classes_is_one_integer(tmp_path, num_classes):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, num_classes=num_classes)
    assert "classes" in _refusal(f"npz:{tmp_path / 'a.npz'}")


def test_paths_that_cannot_be_files(tmp_path):
    np.save(tmp_path / "single.npy", IMAGES)
    assert "is a folder" in _refusal(f"npz:{tmp_path}")
    assert "there is no file" in _refusal(f"npz:{tmp_path / 'a.npz'}")
    assert "not a readable .npz file" in _refusal(f"npz:{tmp_path / 'single.npy'}")
    assert "cannot be looked for" in _refusal("npz:~nobody-of-this-name/a.npz")
    assert "cannot be looked for" in _refusal(f"npz:{'long' * 1000}.npz")
