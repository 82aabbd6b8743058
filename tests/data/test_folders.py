"""Folders of image files: every image is loaded or counted, and parts are told from classes."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxnas.data import load


def _random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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


GREY = np.zeros([4, 4], np.uint8)


def _fill(root, *wheres: str) -> None:
    """Writes a small grey image to every path, and text to those that end in another way or begin with a dot."""
    for where in wheres:
        if where.endswith(".png") and not where.rpartition("/")[2].startswith("."):
            _write_image(root / where, GREY)
        else:
            (root / where).parent.mkdir(parents=True, exist_ok=True)
            (root / where).write_text("text")


def _line(capsys) -> str:
    """Returns the one line on standard error, without the name of the data."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxnas: folder:")
    return line.partition("not loaded: ")[2]


def test_nested_images_are_loaded_in_the_order_of_their_paths(tmp_path, capsys):
    images = _random_images(0, 12, 4, 4)
    wheres = ("a/0.png", "a/b/0.png", "a/b/c/0.png", "a/c.png", "a/d/0.png")
    for number, where in enumerate((*wheres, "z/0.png", "z/b.png")):
        _write_image(tmp_path / "train" / where, images[number])
        _write_image(tmp_path / "test" / where, images[number])
    data = load(f"folder:{tmp_path}")
    np.testing.assert_array_equal(data.train.images[..., 0], images[:7])
    assert data.train.labels.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert capsys.readouterr().err == ""


def test_all_that_is_not_loaded_is_counted_by_kind(tmp_path, capsys):
    _fill(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(5)))
    clean = load(f"folder:{tmp_path}")
    assert capsys.readouterr().err == ""
    _fill(
        tmp_path,
        "README",
        "loose.png",
        "a/x.txt",
        "b/y.TXT",
        "a/._0.png",
        "a/Thumbs.db",
        "b/desktop.ini",
        "b/.DS_Store",
    )
    _fill(
        tmp_path,
        "__MACOSX/a/._0.png",
        "@eaDir/0.png",
        "lost+found/0.png",
        ".ipynb_checkpoints/0.png",
        "a/__MACOSX/1.png",
    )
    os.mkfifo(tmp_path / "b" / "pipe.png")
    data = load(f"folder:{tmp_path}")
    assert _line(capsys) == (
        "5 hidden or system folders (.ipynb_checkpoints, ...), 1 file without an ending (README), "
        "1 image file outside of the class folders (loose.png), 4 hidden or system files (._0.png, ...), "
        "2 files ending in .txt (x.txt, ...), 1 pipe, socket or device (pipe.png)"
    )
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(data, part).labels, getattr(clean, part).labels)
    assert data.num_classes == 2


def test_links_are_followed_but_not_in_circles(tmp_path, capsys):
    _fill(tmp_path, "set/a/0.png", "set/b/0.png", "set/b/deep/0.png", "elsewhere/1.png", "elsewhere/2.png")
    (tmp_path / "set" / "a" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set" / "b" / "deep" / "up").symlink_to(tmp_path / "set" / "b", target_is_directory=True)
    (tmp_path / "set" / "b" / "top").symlink_to(tmp_path / "set", target_is_directory=True)
    _fill(tmp_path, *(f"set/{name}/more/{number}.png" for name in "ab" for number in range(5)))
    data = load(f"folder:{tmp_path / 'set'}")
    assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).tolist() == [8, 7]
    assert _line(capsys) == "2 links back to a folder above it (up, ...)"


def test_later_frames_are_counted(tmp_path, capsys):
    _fill(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(5)))
    frames = [Image.fromarray(image) for image in _random_images(0, 3, 4, 4)]
    frames[0].save(tmp_path / "a" / "x.gif", save_all=True, append_images=frames[1:])
    assert len(load(f"folder:{tmp_path}").train.labels) == 9
    assert _line(capsys) == "1 animated file beyond the first frame (x.gif)"


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("training", "testing"), ("TRAIN", "val"), ("train", "validation")],
)
def test_parts_are_understood(tmp_path, capsys, train, test):
    _fill(tmp_path, f"{train}/a/0.png", f"{train}/a/1.png", f"{train}/b/0.png", f"{test}/a/0.png", f"{test}/b/0.png")
    data = load(f"folder:{tmp_path}")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1], [0, 1])
    assert capsys.readouterr().err == ""


def test_a_training_part_alone_is_divided(tmp_path):
    _fill(tmp_path, *(f"train/{name}/{number}.png" for name in "ab" for number in range(5)))
    data = load(f"folder:{tmp_path}")
    assert (len(data.train.labels), len(data.test.labels)) == (8, 2)


def test_parts_that_are_not_used_are_counted(tmp_path, capsys):
    parts = [f"{part}/{name}/0.png" for part in ("train", "test") for name in "ab"]
    _fill(tmp_path, *parts, "val/a/0.png", "val/b/0.png", "extra/0.png")
    assert len(load(f"folder:{tmp_path}").train.labels) == 2
    assert _line(capsys) == (
        "1 image file below extra, which is not used (0.png), 2 image files below val, which is not used (0.png, ...)"
    )


def test_a_class_may_be_called_train(tmp_path):
    _fill(tmp_path, *(f"{name}/{number}.png" for name in ("bus", "car", "train") for number in range(5)))
    assert load(f"folder:{tmp_path}").num_classes == 3


def test_parts_under_other_names_are_pointed_out(tmp_path, capsys):
    wheres = [f"{part}/{name}/{number}.png" for part in ("my_set", "other_set") for name in "ab" for number in range(5)]
    _fill(tmp_path, *wheres)
    load(f"folder:{tmp_path}")
    expected = "the folders my_set, other_set are taken for classes, though each holds the folders a, b; parts"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wheres", "message"),
    [
        (["test/a/0.png", "val/a/0.png"], "has the folders test, val but none called train, expected one for each"),
        (
            ["train/a/0.png", "Training/a/0.png", "test/a/0.png"],
            "has the folders Training, train, expected one of them",
        ),
        (
            ["train/a/0.png", "train/b/0.png", "test/0.png"],
            "has 0 folders, expected one for each class with test images",
        ),
        (["train/a/0.png", "test/a/0.png"], "has 1 folder, expected one for each of at least 2 classes, directly or"),
        (["mine/a/0.png", "mine/b/0.png"], "; did you mean folder:{root}/mine?"),
        (["a/x.heic", "b/0.png"], "a has no image file; known are"),
        (["train/a/0.png", "train/b/0.png", "test/a/x.txt"], "test/a has no image file; known are"),
    ],
)
def test_other_layouts_are_refused_in_one_line(tmp_path, capsys, wheres, message):
    _fill(tmp_path, *wheres)
    with pytest.raises(ValueError, match="folder:") as caught:
        load(f"folder:{tmp_path}")
    assert message.format(root=tmp_path) in str(caught.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("size", ["0", "-1", "x", "", "1e3", "100000"])
def test_sizes_that_are_no_number_of_pixels(tmp_path, size):
    with pytest.raises(ValueError, match=f"size is '{size}', expected a whole number of pixels from 1 to 9999"):
        load(f"folder:{tmp_path},size={size}")


def test_a_dangling_link_and_a_missing_home(tmp_path):
    _fill(tmp_path, "a/0.png", "b/0.png")
    (tmp_path / "a" / "1.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"1\.png cannot be decoded"):
        load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="cannot be looked for"):
        load("folder:~nobody-of-this-name/set")
