"""A work directory is tied to its run, and its files are whole."""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.run import (
    Run,
    Watch,
    plain,
    read_json,
    write_json,
)
from tests.run.toy import PRESETS, Config, Search


def test_another_configuration_is_refused_by_field(tmp_path):
    with Run(tmp_path, PRESETS["digits"], writers=()):
        pass
    with Run(tmp_path, Config(), writers=()):
        pass
    with pytest.raises(ValueError, match=r"search\.steps is 10 there and 1000 here, data is 'digits' there"):
        Run(tmp_path, PRESETS["cifar10"])
    with pytest.raises(ValueError, match="not a configuration of Search"):
        Run(tmp_path, Search())


def test_places_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, expected a directory"):
        Run(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written to"):
        Run(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="cannot be written to"):
        Run("/proc/nowhere")


def test_json_files_are_whole_and_valid(tmp_path):
    value = {"a": jnp.asarray([1.0, jnp.nan]), 2: np.float32(np.inf), "c": Config(), "d": Watch(), "e": Path("x")}
    value["bf16"] = jnp.ones(2, jnp.bfloat16)
    write_json(tmp_path / "deep" / "x.json", value)
    read = json.loads((tmp_path / "deep" / "x.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["a"] == [1.0, "NaN"]
    assert read["2"] == "Infinity"
    assert read["c"]["search"] == {"steps": 10, "rate": 0.1}
    assert read["d"]["show"] == ["loss"]
    assert (read["e"], read["bf16"]) == ("x", [1.0, 1.0])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.json"]
    (tmp_path / "half.json").write_text('{"a": 1')
    assert read_json(tmp_path / "half.json") is read_json(tmp_path / "none.json") is None
    assert plain(True) is True


def test_a_half_written_line_is_cut_off(tmp_path):
    with Run(tmp_path, writers=()) as run:
        run.phase("a", lambda key: jnp.zeros(()), lambda key, x: (x + 1, {"loss": x}), 3)
    for name in ("metrics.jsonl", "timing.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"phase": "a", "st')
    with Run(tmp_path, writers=()) as run:
        run.phase("b", lambda key: jnp.zeros(()), lambda key, x: (x + 1, {"loss": x}), 2)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["phase"], record["step"]) for record in records] == [
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("b", 1),
        ("b", 2),
    ]


def test_tensorboard_is_written_when_installed_and_never_in_the_way(tmp_path, monkeypatch):
    with Run(tmp_path / "a") as run:
        run.phase("search", lambda key: jnp.zeros(()), lambda key, x: (x, {"loss": x}), 2)
    assert [*(tmp_path / "a" / "tensorboard" / "search").glob("events*")]
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with Run(tmp_path / "b") as run:
        run.phase("search", lambda key: jnp.zeros(()), lambda key, x: (x, {"loss": x}), 2)
    assert not (tmp_path / "b" / "tensorboard").exists()
