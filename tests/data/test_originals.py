"""Genuine builders are prepared from original files without TensorFlow, and only from the right files."""

import gzip
import hashlib
import importlib.util
import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxnas.data import __main__ as command
from jaxnas.data import load, originals, prepare

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("images-idx3", "labels-idx1")


def _idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def _examples(num: int, num_classes: int = 10, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num)
    return rng.integers(0, 256, (num, side, side), dtype=np.uint8), (np.arange(num) % num_classes).astype(np.uint8)


def _sorted(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))


def _register(monkeypatch, builder_name: str, files: dict[str, bytes], folder: Path) -> None:
    """Writes files and makes them the registered originals of a builder; urls keep their names."""
    import tensorflow_datasets

    genuine = tensorflow_datasets.builder_cls(builder_name)
    infos = {}
    for url in genuine.url_infos:
        path = folder / url.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[path.name])
        infos[url] = tensorflow_datasets.download.checksums.compute_url_info(path)
    monkeypatch.setattr(genuine, "url_infos", infos)


def _mnist_files() -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    parts = {"train": _examples(40), "t10k": _examples(20)}
    files = {
        f"{part}-{kind}-ubyte.gz": gzip.compress(_idx(values))
        for part, pair in parts.items()
        for kind, values in zip(KINDS, pair)
    }
    return files, parts


def test_mnist_files(monkeypatch, tmp_path):
    files, parts = _mnist_files()
    _register(monkeypatch, "mnist", files, tmp_path / "files")
    assert prepare("mnist", manual_dir=tmp_path / "files", data_dir=tmp_path / "d") == {"train": 40, "test": 20}
    data = load("tfds:mnist", data_dir=tmp_path / "d")
    assert (data.image_shape, data.num_classes) == ((28, 28, 1), 10)
    assert _sorted(*data.train) == _sorted(*parts["train"])
    assert _sorted(*data.test) == _sorted(*parts["t10k"])
    # prepared already: the files are not needed any more
    assert prepare("mnist", manual_dir=tmp_path / "none", data_dir=tmp_path / "d") == {"train": 40, "test": 20}


def test_emnist_archive(monkeypatch, tmp_path):
    parts = {"train": _examples(47, 37), "test": _examples(20, 37)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for part, pair in parts.items():
            for kind, values in zip(KINDS, pair):
                opened.writestr(f"gzip/emnist-letters-{part}-{kind}-ubyte.gz", gzip.compress(_idx(values)))
    _register(monkeypatch, "emnist", {"gzip.zip": archive.getvalue()}, tmp_path)
    prepare("emnist/letters", manual_dir=tmp_path, data_dir=tmp_path / "d")
    data = load("tfds:emnist/letters", data_dir=tmp_path / "d")
    assert data.num_classes == 37
    assert _sorted(*data.train) == _sorted(*parts["train"])
    assert _sorted(*data.test) == _sorted(*parts["test"])


@pytest.mark.parametrize(("builder_name", "num_label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_archive(monkeypatch, tmp_path, builder_name, num_label_bytes):
    import tensorflow_datasets

    num_classes = int(builder_name.removeprefix("cifar"))
    about = tensorflow_datasets.builder(builder_name, data_dir=str(tmp_path))._cifar_info
    rng = np.random.default_rng(0)
    content, pixels, labels = {}, [], []
    num = {"cifar10": 8, "cifar100": 100}[builder_name]  # records of a file; as many training examples as classes
    for file in about.train_files + about.test_files:
        colours = rng.integers(0, 256, (num, 3, 32, 32), dtype=np.uint8)
        marks = rng.integers(0, min(num_classes, 20), (num, num_label_bytes), dtype=np.uint8)
        content[file] = np.concatenate([marks, colours.reshape(num, -1)], axis=1).tobytes()
        pixels.append(np.moveaxis(colours, 1, -1))
        labels.append(marks[:, -1])
    for key, file in zip(about.label_keys, about.label_files):
        num_names = {"coarse_label": 20, "label": num_classes}[key]
        content[file] = "".join(f"name_{number}\n" for number in range(num_names)).encode() + b"\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as opened:
        for file, data in content.items():
            member = tarfile.TarInfo(about.prefix + file)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    _register(monkeypatch, builder_name, {about.url.rpartition("/")[2]: archive.getvalue()}, tmp_path)
    num_train = num * len(about.train_files)
    splits = prepare(builder_name, manual_dir=tmp_path, data_dir=tmp_path / "d")
    assert splits == {"train": num_train, "test": num}
    data = load(f"tfds:{builder_name}", data_dir=tmp_path / "d")
    assert (data.image_shape, data.num_classes) == ((32, 32, 3), num_classes)
    assert _sorted(*data.train) == _sorted(np.concatenate(pixels[:-1]), np.concatenate(labels[:-1]))
    assert _sorted(*data.test) == _sorted(pixels[-1], labels[-1])
    features = tensorflow_datasets.builder(builder_name, data_dir=str(tmp_path / "d")).info.features
    assert features["label"].int2str(3) == "name_3"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "manual_dir is '.*', where t10k-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz cannot be found"),
        ("longer", "train-labels-idx1-ubyte.gz is not the original file: .* bytes, expected"),
        ("flipped", "train-labels-idx1-ubyte.gz is not the original file: sha256 .*, expected"),
    ],
)
def test_wrong_files_are_one_error_and_leave_nothing(monkeypatch, tmp_path, capsys, damage, message):
    files, _ = _mnist_files()
    folder, prepared = tmp_path / "files", tmp_path / "d"
    _register(monkeypatch, "mnist", files, folder)
    path = folder / "train-labels-idx1-ubyte.gz"
    if damage == "missing":
        path.unlink()
        (folder / "t10k-images-idx3-ubyte.gz").unlink()
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match=message) as caught:
        prepare("mnist", manual_dir=folder, data_dir=prepared)
    assert not prepared.exists()
    assert command.main(["prepare", "mnist", "--manual-dir", str(folder), "--data-dir", str(prepared)]) == 2
    assert capsys.readouterr().err == f"error: {caught.value}\n"


def test_a_download_that_fails_is_one_error(monkeypatch, tmp_path):
    import tensorflow_datasets

    def offline(self, download_config):
        raise ConnectionError("no route\nand much more")

    monkeypatch.setattr(tensorflow_datasets.core.GeneratorBasedBuilder, "download_and_prepare", offline)
    with pytest.raises(ValueError, match=rf"^mnist cannot be prepared in {tmp_path}/mnist/3.0.1: no route$"):
        load("tfds:mnist", data_dir=tmp_path, download=True)


def test_builders_that_cannot_be_prepared(tmp_path):
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed")
    with pytest.raises(ValueError, match="'svhn_cropped'; to prepare it needs TensorFlow"):
        prepare("svhn_cropped", manual_dir=tmp_path, data_dir=tmp_path)


def test_a_file_that_tfds_does_not_register_is_one_error(monkeypatch, tmp_path):
    import tensorflow_datasets

    files, _ = _mnist_files()
    _register(monkeypatch, "mnist", files, tmp_path)
    genuine = tensorflow_datasets.builder_cls("mnist")
    others = {url: info for url, info in genuine.url_infos.items() if "t10k-labels" not in url}
    monkeypatch.setattr(genuine, "url_infos", others)
    with pytest.raises(ValueError, match=r"^mnist: TFDS registers no file that ends in /t10k-labels-idx1-ubyte\.gz$"):
        prepare("mnist", manual_dir=tmp_path, data_dir=tmp_path / "d")


def test_readers_are_found_by_the_name_alone():
    assert originals.has_reader("emnist/letters:3.1.0")
    assert not originals.has_reader("svhn_cropped")


def test_the_command(monkeypatch, tmp_path, capsys):
    files, _ = _mnist_files()
    _register(monkeypatch, "mnist", files, tmp_path)
    arguments = ["prepare", "mnist", "--manual-dir", str(tmp_path), "--data-dir", str(tmp_path / "d")]
    assert command.main(arguments) == 0
    assert capsys.readouterr().out.endswith("mnist: 40 train, 20 test\n")


def test_the_command_from_a_shell(tmp_path):
    arguments = ["prepare", "fashion-mnist", "--manual-dir", str(tmp_path), "--data-dir", str(tmp_path)]
    call = [sys.executable, "-m", "jaxnas.data", *arguments]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: manual_dir is '{tmp_path}', where t10k-images-idx3-ubyte.gz, ")
    assert line.endswith(" cannot be found")


SHA256 = {
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
}


def _order(split: str, num: int) -> list[int]:
    """Returns the order in which TFDS keeps examples with the keys 0, 1, ...: by their hash, salted by the split."""
    from tensorflow_datasets.core import hashing

    hasher = hashing.Hasher(split)
    return sorted(range(num), key=hasher.hash_key)


@pytest.mark.slow
def test_fashion_mnist_from_the_genuine_files(data_dir, tmp_path):
    folder = data_dir / "fashion_mnist"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    contents = {name: (folder / name).read_bytes() for name in SHA256}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()} == SHA256
    before = {path.name: os.stat(path).st_mtime_ns for path in folder.iterdir()}
    assert prepare("fashion_mnist", manual_dir=folder, data_dir=tmp_path) == {"train": 60_000, "test": 10_000}
    assert {path.name: os.stat(path).st_mtime_ns for path in folder.iterdir()} == before
    data = load("fashion-mnist", data_dir=tmp_path)
    assert (data.image_shape, data.num_classes) == ((28, 28, 1), 10)
    for split, part, stem in (("train", data.train, "train"), ("test", data.test, "t10k")):
        images, labels = (gzip.decompress(contents[f"{stem}-{kind}-ubyte.gz"]) for kind in KINDS)
        order = _order(split, len(part.labels))
        expected = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)[order]
        np.testing.assert_array_equal(part.images, expected)
        np.testing.assert_array_equal(part.labels, np.frombuffer(labels, np.uint8, offset=8)[order])
    assert "tensorflow" not in sys.modules
