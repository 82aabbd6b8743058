"""Genuine TFDS builders, fed from the original files of a data set and without TensorFlow.

The genuine builders decompress and encode with TensorFlow. Here each keeps its name, version, features and registered
checksums, and only the generation of examples is replaced: the prepared records are the same, and any later
`tfds.data_source` reads them.
"""

import gzip
import hashlib
import importlib.util
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.data.notes import expanded
from jaxnas.errors import UserError

__all__ = ["build", "find_builder", "has_reader", "is_prepared", "prepare"]

Rows = Iterator[tuple[int, dict[str, Any]]]
Fetch = Callable[[str], Path]  # from the end of a registered file name to a file with the right checksum


def prepare(
    builder_name: str, *, manual_dir: str | os.PathLike, data_dir: str | os.PathLike | None = None
) -> dict[str, int]:
    """Prepares a TFDS set from original files the user already has, with every checksum verified.

    Works without TensorFlow and without a network for `mnist`, `fashion_mnist`, `kmnist` (four `.gz` files each),
    `emnist/CONFIG` (`gzip.zip`), `cifar10` and `cifar100` (`cifar-10-binary.tar.gz`, `cifar-100-binary.tar.gz`); where
    TensorFlow is installed, for every builder that registers checksums. A set that is prepared already is left alone.

    Args:
      builder_name: the name of the builder as TFDS spells it, optionally with `/CONFIG`.
      manual_dir: the folder that has the files, under their original names.
      data_dir: the folder to write the prepared set to; `None` stands for the default of TFDS.

    Returns:
      The number of examples of each split.

    Raises:
      UserError: if the builder is unknown or needs TensorFlow, or a file is missing or is not the original.
    """
    builder = find_builder(builder_name, data_dir)
    if not is_prepared(builder):
        _check_preparable(builder_name)
        if not builder.url_infos:
            raise UserError(f"builder_name is {builder_name!r}, for which TFDS registers no checksums")
        _verify(expanded("manual_dir", os.fspath(manual_dir)), list(builder.url_infos.values()))
        builder = build(builder_name, data_dir, manual_dir)
    return {split: info.num_examples for split, info in builder.info.splits.items()}


def find_builder(builder_name: str, data_dir: str | os.PathLike | None) -> Any:
    """Returns the TFDS builder of a name; its errors, which run to pages, become one line."""
    import tensorflow_datasets as tfds

    if not re.fullmatch(r"[^:]*(:[\d.*]+)?", builder_name):  # TFDS would ask the network for another namespace
        raise UserError(f"builder_name is {builder_name!r}, expected BUILDER, BUILDER/CONFIG or either with :VERSION")
    data_dir = _text(data_dir)
    try:
        return tfds.builder(builder_name, data_dir=data_dir)
    except Exception as error:  # TFDS and protobuf have many for unknown names and damaged descriptions
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        hint = next((line for line in lines if line.startswith("Did you mean")), "")
        first = lines[0] if lines else type(error).__name__
        where = "" if data_dir is None else f"(looked in {data_dir})"
        text = " ".join(part for part in (first, hint, where) if part)
        raise UserError(f"builder_name is {builder_name!r}: {text}") from error


def is_prepared(builder: Any) -> bool:
    """Tells whether a set is ready to be read; asks the disk only."""
    # The first test keeps TFDS from warning about a folder that is not there.
    return (builder.data_path / "dataset_info.json").exists() and builder.is_prepared()


def has_reader(builder_name: str) -> bool:
    """Tells whether a builder can be prepared without TensorFlow."""
    return _base_name(builder_name) in READERS


def build(builder_name: str, data_dir: str | os.PathLike | None, manual_dir: str | os.PathLike | None) -> Any:
    """Prepares a set as array_record, from `manual_dir` where that has the files and from the network otherwise."""
    import tensorflow_datasets as tfds

    _check_preparable(builder_name)
    if has_reader(builder_name):
        base, arguments = _without_tensorflow(builder_name)
        builder = base(data_dir=_text(data_dir), file_format="array_record", **arguments)
    else:
        builder = tfds.builder(builder_name, data_dir=_text(data_dir), file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=_text(manual_dir), try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except (OSError, tfds.download.DownloadError, tfds.download.download_manager.NonMatchingChecksumError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{builder_name} cannot be prepared in {builder.data_dir}: {first}") from error
    return find_builder(builder_name, data_dir)


def _text(path: str | os.PathLike | None) -> str | None:
    """Returns a path as the string that TFDS wants."""
    return None if path is None else str(expanded("data_dir", os.fspath(path)))


def _base_name(builder_name: str) -> str:
    """Returns `emnist` for `emnist/letters:3.1.0`."""
    return builder_name.partition("/")[0].partition(":")[0]


def _check_preparable(builder_name: str) -> None:
    """Raises if a set cannot be prepared with what is installed."""
    if not has_reader(builder_name) and importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"builder_name is {builder_name!r}; to prepare it needs TensorFlow (pip install 'jaxnas[tf]'), "
            f"without which only {', '.join(sorted(READERS))} can be prepared"
        )


def _verify(folder: Path, infos: Sequence[Any]) -> None:
    """Raises unless a folder has all files, each of the registered size and sha256."""
    missing = [str(info.filename) for info in infos if not (folder / str(info.filename)).is_file()]
    if missing:
        raise UserError(f"manual_dir is {str(folder)!r}, where {', '.join(missing)} cannot be found")
    for info in infos:
        path = folder / str(info.filename)
        if path.stat().st_size != info.size:
            raise UserError(f"{path} is not the original file: {path.stat().st_size} bytes, expected {int(info.size)}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != info.checksum:
            raise UserError(f"{path} is not the original file: sha256 {digest}, expected {info.checksum}")


def _without_tensorflow(builder_name: str) -> tuple[Any, dict[str, Any]]:
    """Returns a subclass of the genuine builder that generates its examples with `READERS`, and its arguments."""
    import tensorflow_datasets as tfds

    name, arguments = tfds.core.naming.parse_builder_name_kwargs(builder_name)
    genuine = tfds.builder_cls(str(name))
    read = READERS[str(name)]

    with tfds.core.registered.skip_registration():

        class WithoutTensorFlow(genuine):  # type: ignore[misc, valid-type]
            """The genuine builder with other generators."""

            def _split_generators(self, dl_manager: Any) -> dict[str, Rows]:
                def fetch(ending: str) -> Path:
                    url = next((url for url in self.url_infos if url.endswith(ending)), None)
                    if url is None:
                        raise UserError(f"{builder_name}: TFDS registers no file that ends in {ending}")
                    return Path(dl_manager.download(url))

                return read(self, fetch)

    WithoutTensorFlow.name = genuine.name
    WithoutTensorFlow.url_infos = genuine.url_infos  # TFDS looks it up by module, so carry it over
    return WithoutTensorFlow, arguments


def _idx_rows(images: bytes, labels: bytes) -> Rows:
    """Yields examples from the contents of an idx3 file of images and an idx1 file of labels.

    The idx format is four bytes that end in the number of axes, each length as a big-endian int32, then the values.
    """
    from PIL import Image

    num, height, width = np.frombuffer(images, ">i4", 3, offset=4).tolist()
    pixels = np.frombuffer(images, np.uint8, num * height * width, offset=16).reshape(num, height, width)
    for index, (image, label) in enumerate(zip(pixels, np.frombuffer(labels, np.uint8, num, offset=8).tolist())):
        yield index, {"image": Image.fromarray(image), "label": label}


def _read_idx(builder: Any, fetch: Fetch) -> dict[str, Rows]:
    """Reads MNIST's four gzipped files."""
    del builder

    def rows(part: str) -> Rows:
        kinds = ("images-idx3", "labels-idx1")
        return _idx_rows(*(gzip.decompress(fetch(f"/{part}-{kind}-ubyte.gz").read_bytes()) for kind in kinds))

    return {"train": rows("train"), "test": rows("t10k")}


def _read_emnist(builder: Any, fetch: Fetch) -> dict[str, Rows]:
    """Reads the four files of one configuration of EMNIST from its zip archive."""

    def rows(part: str) -> Rows:
        stem = f"gzip/emnist-{builder.builder_config.name}-{part}"
        with zipfile.ZipFile(fetch("gzip.zip")) as archive:
            contents = [archive.read(f"{stem}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
        return _idx_rows(*map(gzip.decompress, contents))

    return {"train": rows("train"), "test": rows("test")}


def _read_cifar(builder: Any, fetch: Fetch) -> dict[str, Rows]:
    """Reads the binary version of CIFAR-10 or CIFAR-100: label bytes, then 32x32 pixels of red, green and blue."""
    about = builder._cifar_info
    with tarfile.open(fetch(about.url)) as archive:

        def contents(file: str) -> bytes:
            member = archive.extractfile(about.prefix + file)
            if member is None:
                raise UserError(f"{about.url} has no file {about.prefix + file}")
            return member.read()

        for key, file in zip(about.label_keys, about.label_files):
            builder.info.features[key].names = contents(file).decode().split()
        parts = {"train": about.train_files, "test": about.test_files}
        joined = {part: b"".join(map(contents, files)) for part, files in parts.items()}
    return {part: _cifar_rows(part, records, about.label_keys) for part, records in joined.items()}


def _cifar_rows(part: str, joined: bytes, label_keys: list[str]) -> Rows:
    """Yields examples from the records of CIFAR's binary files."""
    from PIL import Image

    records = np.frombuffer(joined, np.uint8).reshape(-1, len(label_keys) + 3 * 32 * 32)
    for index, record in enumerate(records):
        labels = dict(zip(label_keys, record.tolist()))
        pixels = record[len(label_keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
        yield index, {"id": f"{part}_{index:05d}", "image": Image.fromarray(pixels.copy()), **labels}


READERS: dict[str, Callable[[Any, Fetch], dict[str, Rows]]] = {
    "mnist": _read_idx,
    "fashion_mnist": _read_idx,
    "kmnist": _read_idx,
    "emnist": _read_emnist,
    "cifar10": _read_cifar,
    "cifar100": _read_cifar,
}
