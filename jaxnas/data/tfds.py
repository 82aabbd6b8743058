"""Any image classifier of TensorFlow Datasets, read without TensorFlow.

A set prepared as `array_record` is read through TFDS's random-access sources and decoded by pillow; one prepared as
`tfrecord` needs TensorFlow. Decoding is slow, so the decoded arrays are stored in one file beside the prepared records.
TFDS is imported inside functions: it takes a third of a second that no other source should pay.
"""

import hashlib
import importlib.util
import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.data import originals
from jaxnas.data.examples import Data, Examples, checked_examples, hold_out
from jaxnas.data.notes import listed, note
from jaxnas.errors import UserError

__all__ = ["builder_names", "load"]

CACHE = "jaxnas_decoded.npz"
CACHE_VERSION = b"1"  # changes when the same records would give other arrays
CHUNK = 4096  # examples decoded at a time
PARTS = ("images", "labels", "test_images", "test_labels")


def load(name: str, builder_name: str, *, data_dir: str | os.PathLike | None, download: bool) -> Data:
    """Reads a prepared set, or prepares it first where `download` allows that.

    The test part is the split `test`, in its absence `validation`; with neither, `hold_out` takes it from `train`. One
    line on standard error names the splits that are not loaded. Within a split the order is that of TFDS, fixed for a
    version of a set.

    Args:
      name: the name of the data set in messages.
      builder_name: the name as TFDS spells it, `BUILDER`, `BUILDER/CONFIG` or `BUILDER/CONFIG:VERSION`.
      data_dir: the folder of the prepared sets; `None` stands for the default of TFDS.
      download: whether a set that is not prepared may be fetched from the network.

    Returns:
      The data.

    Raises:
      UserError: if the builder is unknown, not prepared and not to be downloaded, no classifier of images of equal
        size, or cannot be read here.
    """
    builder = originals.find_builder(builder_name, data_dir)
    if not originals.is_prepared(builder):
        if not download:
            raise UserError(_not_prepared(name, builder_name, builder, data_dir))
        builder = originals.build(builder_name, data_dir, manual_dir=None)
    # Decoded arrays of the same records are read from their file.
    num_classes = _check_features(name, builder)
    cache = Path(builder.data_dir) / CACHE
    fingerprint = _fingerprint(Path(builder.data_dir))
    arrays = _read_cache(cache, fingerprint)
    if arrays is None:
        arrays = _decode(name, builder)
        _write_cache(cache, fingerprint, arrays)
    train, test = Examples(arrays[0], arrays[1]), Examples(arrays[2], arrays[3])
    data = Data(train, test, num_classes=num_classes, name=name)
    unread = [split for split in builder.info.splits if split not in ("train", _test_split(builder))]
    if unread:
        note(name, f"not loaded: split{'s' * (len(unread) > 1)} {listed(unread)}")
    return data


def builder_names() -> list[str]:
    """Returns the names of the builders that TFDS ships."""
    import tensorflow_datasets

    return tensorflow_datasets.list_builders(with_community_datasets=False)


def _not_prepared(name: str, builder_name: str, builder: Any, data_dir: str | os.PathLike | None) -> str:
    """Returns the message for a set that is not there, with what to do about it."""
    where = f"{name} is not prepared in {builder.data_dir}"
    if originals.has_reader(builder_name):
        option = "" if data_dir is None else f" --data-dir {os.fspath(data_dir)}"
        how = f"python -m jaxnas.data prepare {builder_name} --manual-dir DIR_OF_ORIGINAL_FILES{option}"
        return f"{where}; run '{how}', or load with download=True to fetch it"
    return f"{where}; prepare it with file_format='array_record', or load with download=True to fetch it"


def _check_features(name: str, builder: Any) -> int:
    """Returns the number of classes of an image classifier; raises for anything else."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise UserError(f"{name} has the feature {features}, expected an image classifier with image and label")
    if not {"image", "label"} <= set(features):
        raise UserError(f"{name} has features {sorted(features)}, expected an image classifier with image and label")
    image, label = features["image"], features["label"]
    if not isinstance(image, tfds.features.Image | tfds.features.Tensor) or image.np_dtype != np.uint8:
        raise UserError(f"{name}: feature image is {image}, expected an Image of uint8")
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{name}: feature label is {label}, expected a ClassLabel")
    if label.num_classes is None:
        raise UserError(f"{name}: feature label is a ClassLabel that does not say how many classes there are")
    if "train" not in builder.info.splits:
        raise UserError(f"{name} has splits {sorted(builder.info.splits)}, expected one called train")
    return label.num_classes


def _decode(name: str, builder: Any) -> tuple[np.ndarray, ...]:
    """Decodes the train and test parts, in the order of `PARTS`."""
    test_split = _test_split(builder)
    train = _read_split(name, builder, "train")
    train, test = (train, _read_split(name, builder, test_split)) if test_split else hold_out(train)
    return (*train, *test)


def _test_split(builder: Any) -> str | None:
    """Returns the name of the split that is the test part, or None if the set has none."""
    return next((split for split in ("test", "validation") if split in builder.info.splits), None)


def _read_split(name: str, builder: Any, split: str) -> Examples:
    """Reads one split whole."""
    num = builder.info.splits[split].num_examples
    if num == 0:
        raise UserError(f"{name}: split {split} has no examples")
    images, labels = None, np.empty(num, np.int64)
    position = -1
    for position, row in enumerate(_rows(name, builder, split)):
        image = row["image"]
        if images is None:
            images = np.empty((num, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise UserError(
                f"{name}: images differ in size, {images.shape[1:]} and {image.shape} in {split}; "
                "write them to files and load those with folder:DIR,size=SIDE"
            )
        images[position], labels[position] = image, row["label"]
    if images is None or position + 1 != num:
        raise UserError(f"{name}: split {split} gave {position + 1} examples, expected {num}; prepare it again")
    return checked_examples(images, labels, name)


def _rows(name: str, builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yields the decoded examples of a split in order, through whichever reader fits the files."""
    import tensorflow_datasets as tfds

    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" in formats:
        feature = builder.info.features["image"]
        encoded = isinstance(feature, tfds.features.Image)
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()} if encoded else None)
        for start in range(0, len(source), CHUNK):
            try:
                rows = source.__getitems__(range(start, min(start + CHUNK, len(source))))
                if encoded:
                    rows = [{**row, "image": _decode_image(row["image"], feature.shape[-1])} for row in rows]
            except Exception as error:  # array_record, protobuf and pillow have different ones for damage
                raise UserError(f"{name}: records in {builder.data_dir} cannot be read: {error}") from error
            yield from rows
    elif importlib.util.find_spec("tensorflow"):
        yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
    else:
        raise UserError(
            f"{name} is prepared in {builder.data_dir} as {sorted(formats)}, which needs TensorFlow "
            "(pip install 'jaxnas[tf]'); without it, prepare the set as array_record in another data_dir"
        )


def _decode_image(encoded: bytes, channels: int | None) -> np.ndarray:
    """Decodes a PNG or JPEG to `[H, W, C]`.

    The decoder that TFDS has without TensorFlow takes 1.7 times as long and leaves grey or palette files as they are.
    """
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image.convert({1: "L", 4: "RGBA"}.get(channels or 3, "RGB")))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _fingerprint(folder: Path) -> str:
    """Names the state of a prepared set: its description, and name, size and time of change of every record file."""
    digest = hashlib.sha256(CACHE_VERSION + (folder / "dataset_info.json").read_bytes())
    for path in sorted(folder.iterdir()):
        if re.search(r"record-\d+-of-\d+$", path.name):
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_cache(path: Path, fingerprint: str) -> tuple[np.ndarray, ...] | None:
    """Returns the decoded arrays, or `None` if there are none of this fingerprint or the file is damaged.

    Zip keeps a checksum of every member, which reading verifies.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return tuple(archive[part] for part in PARTS) if str(archive["fingerprint"]) == fingerprint else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, fingerprint: str, arrays: tuple[np.ndarray, ...]) -> None:
    """Writes the decoded arrays in one step; a folder that cannot be written to simply gets none."""
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.npz")
    members: dict[str, Any] = {"fingerprint": fingerprint, **dict(zip(PARTS, arrays))}
    try:
        np.savez(unfinished, **members)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
