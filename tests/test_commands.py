"""Bad input of the library's commands, in-process: one line on standard error and exit code 2, never a traceback."""

import importlib

import numpy as np
import pytest

from jaxnas.command import answer, check_out
from jaxnas.errors import UserError

DATA, TABULAR, LATENCY = "jaxnas.data.__main__", "jaxnas.tabular.__main__", "jaxnas.costs.latency.__main__"
EXPORT, DESCRIBE = "jaxnas.export.__main__", "jaxnas.describe"
HOME = "~nobody-of-this-name/file"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that no command can use, by the names that the cases below give them in braces."""
    folder = tmp_path_factory.mktemp("bad")
    contents = {"empty": b"", "binary": b"\xff\xfe\x00\x81" * 50, "text": b"hello", "list": b"[]", "null": b"null"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    np.savez(folder / "other.npz", a=np.zeros(3))
    return folder


def _refusal(capsys, module: str, arguments: list[str]) -> str:
    """Runs a command and returns its one line on standard error."""
    try:
        code = importlib.import_module(module).main(arguments)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


FILES = ["missing", "folder", "empty", "binary", "text", "list", "null", "other.npz"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (DATA, ["prepare", "mnist", "--manual-dir", "{}"]),
        (TABULAR, ["describe", "table:{}"]),
        (TABULAR, ["describe", "nasbench201:{}"]),
        (TABULAR, ["describe", "nas-bench-macro:{}"]),
        (TABULAR, ["nats", "{}", "out.npz"]),
        (TABULAR, ["hw-nas-bench", "digits", "{}", "out.npz"]),
        (EXPORT, ["{}"]),
        (DESCRIBE, ["snas", "--arch", "{}"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.removesuffix(".__main__"),
)
def test_a_file_that_cannot_be_read(capsys, monkeypatch, tmp_path, folder, module, arguments, file):
    monkeypatch.chdir(tmp_path)
    assert file in _refusal(capsys, module, [argument.format(folder / file) for argument in arguments])
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (DATA, ["prepare", "", "--manual-dir", "."], "builder_name is ''"),
        (DATA, ["prepare", "nosuch", "--manual-dir", "."], "nosuch not found"),
        (DATA, ["prepare", "huggingface:mnist", "--manual-dir", "."], "expected BUILDER, BUILDER/CONFIG"),
        (DATA, ["prepare", "mnist/odd=3", "--manual-dir", "."], "unexpected keyword argument"),
        (DATA, ["prepare", "mnist", "--manual-dir", HOME], "home directory"),
        (DATA, ["prepare", "mnist", "--manual-dir", ".", "--data-dir", HOME], "home directory"),
        (DATA, ["prepare", "mnist", "--manual-dir", "long" * 1000], "name too long"),
        (DATA, ["prepare", "mnist"], "the following arguments are required: --manual-dir; 'python -m jaxnas.data"),
        (DATA, ["perpare"], "invalid choice: 'perpare'"),
        (DATA, [], "the following arguments are required: command"),
        (TABULAR, ["describe", "nosuch"], "unknown benchmark 'nosuch'"),
        (TABULAR, ["describe", "table:"], "table takes 1 files"),
        (TABULAR, ["describe", f"table:{HOME}"], "home directory"),
        (TABULAR, ["describe", "digits", "digits"], "unrecognized arguments: digits"),
        (TABULAR, ["hw-nas-bench", "digits"], "the following arguments are required: pickle, out"),
        (TABULAR, ["nats", ".", "."], "the file to write is '.', which is a folder"),
        (TABULAR, ["nats", ".", ""], "the file to write is '', which is no name"),
        (LATENCY, [], "the following arguments are required: --out"),
        (LATENCY, ["--out", "."], "the file to write is '.', which is a folder"),
        (LATENCY, ["--out", "a.json", "--space", "nosuch"], "unknown space 'nosuch'"),
        (LATENCY, ["--out", "a.json", "--space", "snas"], "does not name its blocks"),
        (LATENCY, ["--out", "a.json", "--set", "channels=-1"], "unknown setting 'channels'"),
        (LATENCY, ["--out", "a.json", "--set", "num_classes=-5"], "num_classes must be at least 1, got -5"),
        (LATENCY, ["--out", "a.json", "--set", "num_classes=x"], "expected a whole number, got 'x'"),
        (LATENCY, ["--out", "a.json", "--set", "widths=nan"], "expected a whole number, got 'nan'"),
        (LATENCY, ["--out", "a.json", "--set", "kernels=a,b"], "expected a whole number, got 'a'"),
        (LATENCY, ["--out", "a.json", "--set", "channels"], "expected name=value"),
        (LATENCY, ["--out", "a.json", "--image", "0", "0", "0"], "image_shape must be H, W, C of at least 1 each"),
        (LATENCY, ["--out", "a.json", "--image", "32", "-1", "3"], "image_shape must be H, W, C"),
        (LATENCY, ["--out", "a.json", "--image", "999999999", "999999999", "3"], "are more than 268435456 values"),
        (LATENCY, ["--out", "a.json", "--image", "0x0x0"], "argument --image: "),
        (LATENCY, ["--out", "a.json", "--batch", "0"], "batch_size must be at least 1, got 0"),
        (LATENCY, ["--out", "a.json", "--batch", "x"], "argument --batch: invalid int value: 'x'"),
        (LATENCY, ["--out", "a.json", "--rounds", "0"], "rounds and repeats must be at least 1"),
        (LATENCY, ["--out", "a.json", "--repeats", "-1"], "rounds and repeats must be at least 1"),
        (LATENCY, ["--out", "a.json", "--batch-size", "0"], "unrecognized arguments: --batch-size 0"),
        (EXPORT, [""], ""),
        (EXPORT, [HOME], ""),
        (EXPORT, [], "the following arguments are required: WORKDIR"),
        (EXPORT, ["a", "--out"], "argument --out: expected one argument"),
        (DESCRIBE, [], "the following arguments are required: SPACE"),
        (DESCRIBE, ["nosuch"], "unknown space 'nosuch'"),
        (DESCRIBE, ["snas", "--image", "0x0x0"], "--image 0x0x0: expected HEIGHTxWIDTHxCHANNELS"),
        (DESCRIBE, ["snas", "--image", ""], "expected HEIGHTxWIDTHxCHANNELS"),
        (DESCRIBE, ["snas", "--image", f"{'9' * 30}x32x3"], "too large"),
        (DESCRIBE, ["snas", "--set", "channels=-1"], "channels"),
        (DESCRIBE, ["snas", "--set", "channels=nan"], "expected a whole number, got 'nan'"),
        (DESCRIBE, ["snas", "--set", f"channels={'9' * 30}"], "too large"),
        (DESCRIBE, ["snas", "--set", "drop_path=nan"], "drop_path"),
        (DESCRIBE, ["snas", "--set", "channels"], "expected name=value"),
        (DESCRIBE, ["snas", "--batch-size", "0"], "unrecognized arguments: --batch-size 0"),
    ],
)
def test_a_value_that_is_none(capsys, monkeypatch, tmp_path, module, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in _refusal(capsys, module, arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["architecture.json", "config.yaml", "result.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b"{}", b"hello", None])
def test_export_of_a_work_directory_that_holds_one_odd_file(capsys, tmp_path, file, content):
    if content is None:
        (tmp_path / file).mkdir()
    else:
        (tmp_path / file).write_bytes(content)
    _refusal(capsys, EXPORT, [str(tmp_path)])


def _raises(error: BaseException):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("two\nlines"), "error: two lines\n"),
        (OSError(28, "No space left on device"), "error: [Errno 28] No space left on device\n"),
        (OverflowError("int too large"), "error: a number is too large: int too large\n"),
    ],
)
def test_an_answer_is_one_line_and_a_mistake_keeps_its_traceback(capsys, monkeypatch, error, line):
    assert answer(_raises(error)) == 2
    assert capsys.readouterr() == ("", line)
    monkeypatch.setattr("sys.stderr", None)
    assert answer(_raises(error)) == 2
    assert capsys.readouterr().out == ""
    assert answer(lambda: None) == 0
    for mistake in (TypeError("a mistake"), RuntimeError("another"), ValueError("a third"), KeyError("a fourth")):
        with pytest.raises(type(mistake)):
            answer(_raises(mistake))


def test_the_folder_of_a_file_to_write_is_made_at_the_start(tmp_path):
    check_out(tmp_path / "new" / "file")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").write_text("old")
    check_out(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(OSError, match="file"):
        check_out(tmp_path / "file" / "below")
