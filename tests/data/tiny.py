"""A small TFDS set of our own, to be prepared in a temporary folder."""

import types

import numpy as np


def random_images(num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 6, 5, 3), dtype=np.uint8)


CONTENT = {"train": (random_images(30, 0), np.arange(30) % 3), "test": (random_images(9, 1), np.arange(9) % 3)}


def prepare(folder, name: str, features: dict | None = None, content: dict | None = None, suffix: str = "array_record"):
    """Prepares a builder of the given name; `features` and `content` replace those of a small image classifier."""
    import tensorflow_datasets
    from PIL import Image

    content = CONTENT if content is None else content
    make = tensorflow_datasets.features
    if features is None:
        features = {"image": make.Image(shape=(None, None, 3)), "label": make.ClassLabel(num_classes=3)}
    image_key, label_key = features

    def rows(images, labels):
        for index, (image, label) in enumerate(zip(images, labels)):
            encoded = Image.fromarray(image) if isinstance(features[image_key], make.Image) else image
            yield index, {image_key: encoded, label_key: int(label)}

    def info(self):
        return tensorflow_datasets.core.DatasetInfo(builder=self, features=make.FeaturesDict(features))

    methods = {
        "VERSION": tensorflow_datasets.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": lambda self, manager: {split: rows(*pair) for split, pair in content.items()},
        "_generate_examples": rows,
    }
    with tensorflow_datasets.core.registered.skip_registration():
        base = tensorflow_datasets.core.GeneratorBasedBuilder
        builder = types.new_class("Prepared", (base,), exec_body=lambda body: body.update(methods))
    builder.name = name
    builder(data_dir=str(folder), file_format=suffix).download_and_prepare()
    return folder / name / "1.0.0"


def in_order(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))
