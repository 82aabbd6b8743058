"""TFDS sets that are no image classifiers, lack something or are damaged are refused or named in one line."""

import types

import numpy as np
import pytest

from jaxnas.data import load, tfds
from tests.data.tiny import CONTENT, prepare


def test_splits_that_are_not_loaded_are_named(tmp_path, capsys):
    content = {"train": CONTENT["train"], "test": CONTENT["test"], "validation": CONTENT["test"], "z": CONTENT["test"]}
    prepare(tmp_path, "tiny", content=content)
    capsys.readouterr()
    for _ in range(2):  # decoded, then from the cache
        load("tfds:tiny", data_dir=tmp_path)
        assert capsys.readouterr().err == "jaxnas: tfds:tiny: not loaded: splits validation, z\n"


def test_a_class_without_examples_is_named(tmp_path, capsys):
    prepare(tmp_path, "tiny", content={"train": (CONTENT["train"][0], np.ones(30, int)), "test": CONTENT["test"]})
    capsys.readouterr()
    load("tfds:tiny", data_dir=tmp_path)
    assert capsys.readouterr().err == "jaxnas: tfds:tiny: none of the 30 training examples is of class 0, 2\n"


def test_labels_outside_of_the_classes_are_refused(tmp_path):
    folder = prepare(tmp_path, "tiny")
    arrays = dict(zip(tfds.PARTS, (CONTENT["train"][0], np.full(30, 7), *CONTENT["test"])))
    np.savez(folder / tfds.CACHE, fingerprint=tfds._fingerprint(folder), **arrays)
    with pytest.raises(ValueError, match="tfds:tiny: train labels range from 7 to 7, expected 0 to 2"):
        load("tfds:tiny", data_dir=tmp_path)


def test_a_label_that_does_not_say_how_many_classes_there_are(tmp_path):
    import tensorflow_datasets

    make = tensorflow_datasets.features
    features = make.FeaturesDict({"image": make.Image(shape=(6, 5, 3)), "label": make.ClassLabel()})
    builder = types.SimpleNamespace(info=types.SimpleNamespace(splits={"train": None}, features=features))
    with pytest.raises(ValueError, match="tiny: feature label is a ClassLabel that does not say how many classes"):
        tfds._check_features("tiny", builder)
    builder.info.features = make.Tensor(shape=(), dtype=np.int64)
    with pytest.raises(ValueError, match=r"tiny has the feature Tensor.*, expected an image classifier"):
        tfds._check_features("tiny", builder)


def test_a_split_without_examples_is_refused():
    split = types.SimpleNamespace(num_examples=0)
    builder = types.SimpleNamespace(info=types.SimpleNamespace(splits={"train": split}))
    with pytest.raises(ValueError, match=r"^tiny: split train has no examples$"):
        tfds._read_split("tiny", builder, "train")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe\x00", b"[]", None])
def test_a_damaged_description_is_one_error(tmp_path, content):
    info = prepare(tmp_path, "tiny") / "dataset_info.json"
    info.unlink()
    if content is None:
        info.mkdir()
    else:
        info.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^builder_name is 'tiny': .* \(looked in {tmp_path}\)$"):
        load("tfds:tiny", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["huggingface:mnist", "kubric:x", "mnist:x"])
def test_other_namespaces_are_refused_without_asking_the_network(name):
    with pytest.raises(ValueError, match=f"^builder_name is '{name}', expected BUILDER, BUILDER/CONFIG or either with"):
        load(f"tfds:{name}")


def test_a_home_that_is_not_there_is_one_error():
    with pytest.raises(ValueError, match="data_dir: ~nobody-of-this-name cannot be looked for"):
        load("tfds:mnist", data_dir="~nobody-of-this-name")
