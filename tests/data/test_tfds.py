"""TFDS sets are read without TensorFlow, from a small builder of our own that is prepared in a temporary folder."""

import importlib.util
import json
import shutil
import socket
import sys

import numpy as np
import pytest

from jaxnas.data import hold_out, load, tfds
from tests.data.tiny import CONTENT, in_order, prepare

WITHOUT_TENSORFLOW = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared set called `tiny_shapes`, to be copied by tests that change it."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder, "tiny_shapes")
    return folder


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_reads_every_example_in_the_order_of_tfds(copy):
    import tensorflow_datasets

    data = load("tfds:tiny_shapes", data_dir=copy)
    assert (data.num_classes, data.image_shape, data.name) == (3, (6, 5, 3), "tfds:tiny_shapes")
    for split, part in (("train", data.train), ("test", data.test)):
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int32)
        assert in_order(*part) == in_order(*CONTENT[split])
        rows = list(tensorflow_datasets.data_source("tiny_shapes", split=split, data_dir=str(copy), download=False))
        np.testing.assert_array_equal(part.images, np.stack([row["image"] for row in rows]))
        np.testing.assert_array_equal(part.labels, [row["label"] for row in rows])
    assert "tensorflow" not in sys.modules


def test_the_second_time_nothing_is_decoded(copy, monkeypatch):
    first = load("tfds:tiny_shapes", data_dir=copy)
    monkeypatch.setattr(tfds, "_decode", lambda name, builder: pytest.fail("decoded again"))
    second = load("tfds:tiny_shapes", data_dir=copy)
    for before, after in zip((*first.train, *first.test), (*second.train, *second.test)):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype


@pytest.mark.parametrize("damage", ["flipped", "truncated", "text", "another set", "touched records"])
def test_a_cache_that_does_not_fit_is_made_again(copy, damage):
    first = load("tfds:tiny_shapes", data_dir=copy)
    folder = copy / "tiny_shapes" / "1.0.0"
    cache = folder / tfds.CACHE
    content = bytearray(cache.read_bytes())
    if damage == "touched records":
        record = next(folder.glob("*train*record*"))
        record.write_bytes(record.read_bytes())
    elif damage == "another set":
        np.savez(cache, fingerprint="0", **dict.fromkeys(tfds.PARTS, np.zeros(1)))
    else:
        content[len(content) // 4] ^= 255
        cache.write_bytes({"flipped": content, "truncated": content[:-500], "text": b"text"}[damage])
    second = load("tfds:tiny_shapes", data_dir=copy)
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert tfds._read_cache(cache, tfds._fingerprint(folder)) is not None
    assert [path.name for path in folder.glob("*.npz")] == [tfds.CACHE]


def test_a_folder_that_cannot_be_written_to_has_no_cache(copy, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(np, "savez", refuse)
    assert len(load("tfds:tiny_shapes", data_dir=copy).train.labels) == 30
    assert not list((copy / "tiny_shapes" / "1.0.0").glob("*.npz"))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "tfds:emnist/letters", "tfds:imagenet2012"])
def test_not_prepared_asks_no_network_and_says_what_to_do(tmp_path, name, monkeypatch):
    asked = []
    for function in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, function, lambda *address, **_: asked.append(address))
    with pytest.raises(ValueError, match=f"{name.partition(':')[2]}.* is not prepared in {tmp_path}") as caught:
        load(name, data_dir=tmp_path)
    assert not asked
    message = str(caught.value)
    assert "\n" not in message
    assert "download=True" in message
    builder = {"fashion-mnist": "fashion_mnist"}.get(name, name.removeprefix("tfds:"))
    command = f"python -m jaxnas.data prepare {builder} --manual-dir DIR_OF_ORIGINAL_FILES --data-dir {tmp_path}"
    assert (command in message) == ("imagenet" not in name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:fashion_mnits", "Dataset fashion_mnits not found. Did you mean: .*fashion_mnist"),
        ("tfds:emnist/foo", "BuilderConfig foo not found"),
        ("tfds:mnist:9.9.9", "Dataset mnist cannot be loaded at version 9.9.9, only: 3.0.1"),
        ("tfds:cifar-10", "Parsing builder name string cifar-10 failed"),
    ],
)
def test_unknown_builders_give_one_line(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(name, data_dir=tmp_path)
    assert str(caught.value).startswith(f"builder_name is {name.removeprefix('tfds:')!r}: ")
    assert "\n" not in str(caught.value)


@WITHOUT_TENSORFLOW
def test_download_without_a_recipe_needs_tensorflow(tmp_path):
    with pytest.raises(ValueError, match=r"to prepare it needs TensorFlow .*, without which only cifar10, cifar100, "):
        load("tfds:svhn_cropped", data_dir=tmp_path, download=True)


def test_validation_stands_in_for_test(tmp_path):
    prepare(tmp_path, "tiny", content={"train": CONTENT["train"], "validation": CONTENT["test"]})
    assert in_order(*load("tfds:tiny", data_dir=tmp_path).test) == in_order(*CONTENT["test"])


def test_a_set_of_one_split_is_divided(tmp_path):
    prepare(tmp_path, "tiny", content={"train": CONTENT["train"]})
    data = load("tfds:tiny", data_dir=tmp_path)
    assert (len(data.train.labels), len(data.test.labels)) == (24, 6)
    assert sorted(in_order(*data.train) + in_order(*data.test)) == in_order(*CONTENT["train"])
    again = load("tfds:tiny", data_dir=tmp_path)
    np.testing.assert_array_equal(data.test.images, again.test.images)
    assert len(hold_out(data.train)[1].labels) == 3


def test_tensor_features_and_several_chunks(tmp_path, monkeypatch):
    import tensorflow_datasets

    monkeypatch.setattr(tfds, "CHUNK", 4)
    make = tensorflow_datasets.features
    features = {"image": make.Tensor(shape=(6, 5, 3), dtype=np.uint8), "label": make.ClassLabel(num_classes=3)}
    prepare(tmp_path, "tiny", features)
    data = load("tfds:tiny", data_dir=tmp_path)
    assert in_order(*data.train) == in_order(*CONTENT["train"])


def _other_features(kind: str) -> dict:
    import tensorflow_datasets

    make = tensorflow_datasets.features
    image, label = make.Image(shape=(6, 5, 3)), make.ClassLabel(num_classes=3)
    wide = make.Tensor(shape=(6, 5, 3), dtype=np.uint16)
    number = make.Scalar(dtype=np.int64)
    return {
        "name": {"image": image, "kind": label},
        "image": {"image": wide, "label": label},
        "label": {"image": image, "label": number},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("name", r"has features \['image', 'kind'\], expected an image classifier with image and label"),
        ("image", "feature image is .*, expected an Image of uint8"),
        ("label", "feature label is .*, expected a ClassLabel"),
    ],
)
def test_other_features_are_refused(tmp_path, kind, message):
    content = {"train": (CONTENT["train"][0].astype(np.uint16 if kind == "image" else np.uint8), CONTENT["train"][1])}
    prepare(tmp_path, "tiny", _other_features(kind), content)
    with pytest.raises(ValueError, match=message):
        load("tfds:tiny", data_dir=tmp_path)


def test_images_of_different_sizes_are_refused(tmp_path):
    images = [np.zeros([6, 5, 3], np.uint8), np.zeros([6, 6, 3], np.uint8)]
    prepare(tmp_path, "tiny", content={"train": (images, [0, 1])})
    with pytest.raises(ValueError, match=r"images differ in size, .* in train; .* folder:DIR,size=SIDE"):
        load("tfds:tiny", data_dir=tmp_path)


def test_a_set_without_a_train_split_is_refused(tmp_path):
    prepare(tmp_path, "tiny", content={"test": CONTENT["test"]})
    with pytest.raises(ValueError, match=r"has splits \['test'\], expected one called train"):
        load("tfds:tiny", data_dir=tmp_path)


def test_damaged_records_are_one_error(copy):
    record = next((copy / "tiny_shapes" / "1.0.0").glob("*train*record*"))
    content = bytearray(record.read_bytes())
    for position in range(200, 1200):
        content[position] ^= 255
    record.write_bytes(content)
    with pytest.raises(ValueError, match=r"records in .* cannot be read: |gave .* examples, expected 30"):
        load("tfds:tiny_shapes", data_dir=copy)


@WITHOUT_TENSORFLOW
def test_tfrecord_needs_tensorflow(copy):
    folder = copy / "tiny_shapes" / "1.0.0"
    info = folder / "dataset_info.json"
    described = json.loads(info.read_text())
    info.write_text(json.dumps({**described, "fileFormat": "tfrecord"}))
    for path in folder.glob("*array_record*"):
        path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))
    with pytest.raises(ValueError, match=r"as \['tfrecord'\], which needs TensorFlow \(pip install 'jaxnas\[tf\]'\)"):
        load("tfds:tiny_shapes", data_dir=copy)
