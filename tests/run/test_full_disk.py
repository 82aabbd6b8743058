"""A disk without room ends a run in one line; with room again it ends in the same bits. Curves never stop a search."""

import errno
import json
import os
from pathlib import Path

import jax.numpy as jnp
import pytest

from jaxnas.checkpoint import Checkpoints
from jaxnas.run import Run, Saving, TensorBoard, exit_code, write_json
from jaxnas.run.records import Clock, JsonLines
from tests.run.toy import digest, init_fn, make_data, step_fn

STEPS = 12


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def go(path, *, at=None, fill=lambda run: None):
    """One phase; before the record of step `at` is written, `fill(run)` takes the room."""

    class Filling:
        def write(self, step, metrics):
            if step == at:
                fill(run)

    with Run(path, saving=Saving(1e9, steps=4), writers=[Filling()], chunk=2) as run:
        if run.result is None:
            state = run.phase("search", init_fn, step_fn, STEPS, data=make_data())
            run.save_json("architecture.json", {"digest": digest(state)})
            run.finish({"digest": digest(state)})
        return run.result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    return go(path)["digest"], (path / "metrics.jsonl").read_bytes()


def no_room_for_rows(run):
    run._services.metrics._file.close()
    run._services.metrics._file = open("/dev/full", "ab", buffering=0)


def no_room_in_the_middle_of_a_row(run):
    file = run._services.metrics._file

    class Half:
        def __init__(self):
            self.left = 100

        def write(self, content):
            if not self.left:
                full()
            done = file.write(content[: self.left])
            self.left -= done
            return done

        def close(self):
            file.close()

    run._services.metrics._file = Half()


@pytest.mark.parametrize("fill", [no_room_for_rows, no_room_in_the_middle_of_a_row])
@pytest.mark.parametrize("at", [1, 7])
def test_no_room_for_rows_is_one_line(tmp_path, whole, capfd, fill, at):
    assert exit_code(lambda: go(tmp_path, at=at, fill=fill)) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("search ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {tmp_path / 'metrics.jsonl'} cannot be written: No space left on device")
    assert go(tmp_path)["digest"] == whole[0]
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[1]


def test_no_room_for_a_checkpoint_is_one_line(tmp_path, whole, capfd, monkeypatch):
    save, calls = Checkpoints.save, []

    def failing(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            monkeypatch.setattr(self._orbax()[1], "save", full)
        save(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", failing)
        assert exit_code(lambda: go(tmp_path)) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "step_8 cannot be written: OSError: [Errno 28] No space left on device" in errors[0]
    assert go(tmp_path)["digest"] == whole[0]
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[1]


def test_no_room_for_a_json_file_is_one_line_and_spoils_nothing(tmp_path, whole, capfd, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"x\.json cannot be written: No space left on device; with more room"):
            write_json(path, {"a": 2})
        assert json.loads(path.read_text()) == {"a": 1}
        assert exit_code(lambda: go(tmp_path / "run")) == 2
        assert "Traceback" not in capfd.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["x.json"]
    assert go(tmp_path / "run")["digest"] == whole[0]


def test_no_room_for_a_file_of_the_script_is_one_line(tmp_path, whole, capfd):
    def body():
        with Run(tmp_path, writers=()):
            with open("/dev/full", "w") as picture:
                picture.write("x")

    assert exit_code(body) == 2
    why = "No space left on device; with more room the same command goes on"
    assert capfd.readouterr().err == f"error: workdir {tmp_path} cannot be written to: {why}\n"


def test_no_room_for_times_is_no_matter(tmp_path, monkeypatch):
    clock = Clock(tmp_path / "timing.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        clock.record("search", 1)
    assert not (tmp_path / "timing.jsonl").exists()
    clock.record("search", 2)
    assert len((tmp_path / "timing.jsonl").read_text().splitlines()) == 1


def test_a_full_disk_ends_the_curves_and_not_the_search(tmp_path, capfd, monkeypatch):
    """The writer's buffer takes some rows before it meets the disk, which is why there are so many."""
    record_writer = pytest.importorskip("tensorboardX.record_writer")
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))

    def step(key, x):
        return x + 1, {"loss": x}

    with Run(tmp_path, saving=Saving(1e9)) as run:
        assert run.phase("search", lambda key: jnp.zeros(()), step, 500) == 500
        run.finish({})
    told = [line for line in capfd.readouterr().err.splitlines() if "no more curves" in line]
    assert told == [f"no more curves in {tmp_path / 'tensorboard'}: [Errno 28] No space left on device"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 500


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), RuntimeError("queue"), ValueError("odd")])
def test_a_writer_of_curves_that_fails_is_given_up_once(tmp_path, capfd, monkeypatch, error):
    record_writer = pytest.importorskip("tensorboardX.record_writer")
    calls = []

    def fail(self, data):
        calls.append(data)
        raise error

    monkeypatch.setattr(record_writer.RecordWriter, "write", fail)
    board = TensorBoard(tmp_path)
    for step in range(5):
        board.write(step, {"phase": "search", "loss": 0.5})
    board.close()
    assert len(calls) == 1
    assert capfd.readouterr().err.count("no more curves") == 1


def test_rows_that_could_not_be_written_are_not_written_twice(tmp_path):
    rows = JsonLines(tmp_path / "metrics.jsonl")
    rows.write(1, {"phase": "search", "loss": 0.0})
    file, rows._file = rows._file, open("/dev/full", "ab", buffering=0)
    with pytest.raises(OSError, match="cannot be written"):
        rows.flush()
    rows._file.close()
    rows._file = file
    rows.flush()
    rows.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
