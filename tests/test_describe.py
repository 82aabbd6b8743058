"""The command line that describes spaces: exact numbers, every form of an architecture file, one line per mistake."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.costs import cost, space_tables
from jaxnas.describe import architecture_summary, check_architecture, main, read_architecture, space_summary
from jaxnas.spaces import registry
from jaxnas.spaces.darts import darts_space, snas_space

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--set", "channels=4", "--set", "cells=2", "--set", "lowering=lax"]
KINDS = ("normal", "reduce")
NEEDED = {
    "proxyless-tree": {"blocks": 2},
    "table": {"values": [[3.0, 1.0], [4.0, 2.0]]},
    "quadratic": {"matrix": np.eye(6).tolist(), "linear": [0.0] * 6, "num_edges": 2},
}


def _describe(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return json.loads(out)


def _refused(capsys, *arguments) -> str:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def _small_snas():
    return snas_space(channels=4, cells=2, lowering="lax")


def _arch(seed=0):
    rng = np.random.default_rng(seed)
    return {kind: rng.integers(0, 8, 14).tolist() for kind in KINDS}


def _write(tmp_path, content) -> str:
    path = tmp_path / "architecture.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


# Spaces


def test_darts_by_default(capsys):
    found = _describe(capsys, "darts", "--set", "cells=2", "--set", "lowering=lax")
    assert found["architectures"] == 1_037_664_180**2
    assert found["architectures_log10"] == 18.032
    shapes = jax.eval_shape(darts_space(cells=2, lowering="lax").init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert found["supernet_parameters"] == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert found["image_shape"] == [32, 32, 3]
    assert found["settings"] | {"channels": 16, "cells": 2, "num_classes": 10} == found["settings"]
    assert set(found["decisions"]) == set(KINDS)
    assert found["decisions"]["normal"]["count"] == 14
    assert found["decisions"]["normal"]["operations"][:2] == ["none", "max_pool_3x3"]
    assert "architecture" not in found


@pytest.mark.parametrize("name", registry.names())
def test_every_registered_space_describes_itself(name):
    small = {"cells": 2, "lowering": "lax"}  # quicker to trace
    plain = {setting: small[setting] for setting in small if setting in registry.defaults(name)}
    space = registry.build(name, **plain, **NEEDED.get(name, {}))
    assert space.about.name == name
    summary = space_summary(space)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["space"] == space.about.name
    total = 1
    for leaf in summary["decisions"].values():
        total *= len(leaf["operations"]) ** leaf["count"]
    assert 0 < summary["architectures"] <= total
    scores = jax.tree.map(lambda c: np.random.default_rng(0).normal(size=c.shape).astype(c.dtype), space.choices)
    arch = jax.tree.map(np.asarray, jax.jit(space.derive)(scores))
    jax.tree.map(np.testing.assert_array_equal, check_architecture(space, arch), arch)
    described = architecture_summary(space, arch)
    assert json.loads(json.dumps(described)) == described


def test_settings_and_image_change_the_numbers(capsys):
    found = _describe(capsys, "snas", *SMALL, "--set", "operations=none, skip_connect", "--image", "8x8x1")
    assert found["settings"]["operations"] == ["none", "skip_connect"]
    assert found["decisions"]["reduce"] == {"count": 14, "operations": ["none", "skip_connect"]}
    assert found["architectures"] == 2**28
    assert found["image_shape"] == [8, 8, 1]
    assert found["settings"]["drop_path"] == 0.0
    assert _describe(capsys, "snas", *SMALL, "--set", "drop_path=0.2")["settings"]["drop_path"] == 0.2


def test_space_that_says_nothing_of_itself():
    space = _small_snas()
    bare = space._replace(about=type(space.about)())
    summary = space_summary(bare)
    assert summary["architectures"] is summary["architectures_log10"] is summary["settings"] is None
    assert summary["decisions"]["normal"]["operations"] == list(range(8))
    found = architecture_summary(bare, _arch())
    assert found == {"space": "custom", "arch": _arch(), "genotype": None, "parameters": None, "macs": None}


def test_parameters_without_a_table_come_from_the_network():
    space = _small_snas()
    tableless = space._replace(about=space.about._replace(costs=None))
    found, expected = architecture_summary(tableless, _arch()), architecture_summary(space, _arch())
    assert found["parameters"] == expected["parameters"] > 0
    assert found["macs"] is None


# Architectures


def test_architecture_is_described(capsys, tmp_path):
    space, arch = _small_snas(), _arch()
    found = _describe(capsys, "snas", *SMALL, "--arch", _write(tmp_path, arch))["architecture"]
    assert found["arch"] == arch
    assert found["genotype"] == space.about.genotype(arch)
    for name, table in space_tables(space, (32, 32, 3)).items():
        assert found[name] == cost(table, {kind: np.array(leaf) for kind, leaf in arch.items()})


def test_every_form_of_the_file_is_read(tmp_path):
    space, arch = _small_snas(), _arch(1)
    summary = architecture_summary(space, arch)
    forms = [summary, {"space": "snas", "architecture": arch}, {"arch": arch}, arch, summary["genotype"]]
    forms.append({"space": "snas", "architecture": summary["genotype"]})
    for content in forms:
        found = read_architecture(space, _write(tmp_path, content))
        assert {kind: leaf.tolist() for kind, leaf in found.items()} == arch
        assert {leaf.dtype for leaf in found.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("as_json", [True, False])
def test_genotype_that_is_a_string(tmp_path, as_json):
    space = registry.build("nasbench201")
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    found = read_architecture(space, _write(tmp_path, json.dumps(text) if as_json else f"{text}\n"))
    assert found["cell"].tolist() == [3, 0, 1, 4, 2, 3]
    assert architecture_summary(space, found)["genotype"] == text


def test_genotype_of_integers(capsys, tmp_path):
    path = _write(tmp_path, [1, 0])
    found = _describe(capsys, "table", "--set", "values=[[3, 1], [4, 2]]", "--arch", path)
    assert found["supernet_parameters"] == 0
    assert found["architecture"]["arch"] == {"edges": [1, 0]}
    with pytest.raises(ValueError, match="operations must lie in"):
        read_architecture(registry.build("table", **NEEDED["table"]), _write(tmp_path, [2, 0]))


def test_architectures_that_darts_derives_are_inside_and_others_are_not():
    space = darts_space()
    derive = jax.jit(space.derive)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        arch = derive({kind: rng.normal(size=(14, 8)).astype(np.float32) for kind in KINDS})
        check_architecture(space, arch)
    three = {kind: np.array(leaf) for kind, leaf in arch.items()}
    three["normal"][2:5] = 3
    with pytest.raises(ValueError, match="outside of space darts"):
        check_architecture(space, three)
    one = {kind: np.array(leaf) for kind, leaf in arch.items()}
    one["reduce"][:2] = (1, 0)
    with pytest.raises(ValueError, match="outside of space darts"):
        check_architecture(space, one)
    check_architecture(snas_space(), three)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dart"], "unknown space 'dart'; did you mean darts? the spaces are darts, snas"),
        (["transformer"], "unknown space 'transformer'; the spaces are"),
        (["snas", "--set", "chanels=3"], "unknown setting 'chanels' of space snas; did you mean channels?"),
        (["snas", "--set", "channels"], "--set channels: expected name=value"),
        (["snas", "--set", "channels=many"], "--set channels: expected a whole number, got 'many'"),
        (["snas", "--set", "channels=1.5"], "expected a whole number"),
        (["snas", "--set", "drop_path=x"], "--set drop_path: expected a number, got 'x'"),
        (["snas", "--set", "drop_path=nan"], "drop_path must lie in [0, 1), got nan"),
        (["snas", "--set", "cells=0"], "cells must be at least 1, got 0"),
        (["snas", "--set", "operations=none,conv"], "operations: unknown 'conv'"),
        (["darts", "--set", "operations=skip_connect,max_pool_3x3"], "must contain 'none'"),
        (["table"], "space table needs a value for values"),
        (["table", "--set", "values=[[1,"], "--set values: expected JSON, got '[[1,'"),
        (["table", "--set", "values=[[1, 2, 3]]"], "values must have axes of one length"),
        (["snas", "--image", "32"], "--image 32: expected HEIGHTxWIDTHxCHANNELS, as 32x32x3"),
        (["snas", "--image", "32x0x3"], "--image 32x0x3: expected"),
        (["snas", *SMALL, "--image", "15x15x3"], "got 15x15"),
        (["snas", *SMALL, "--arch", "nowhere.json"], "nowhere.json: cannot be read: No such file"),
    ],
)
def test_mistake_on_the_command_line(capsys, arguments, message):
    assert message in _refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ('{"normal": [1, 2', "not valid JSON"),
        ("nothing of the kind", "neither integers nor a genotype"),
        ("{}", "neither integers nor a genotype"),
        ("null", "neither integers nor a genotype"),
        ({"normal": [0] * 14}, "structure"),
        ({"normal": [0] * 14, "reduce": [0] * 13}, "expected integers of shape (14,)"),
        ({"normal": [0] * 14, "reduce": [8] * 14}, "operations must lie in 0..7"),
        ({"normal": [0] * 14, "reduce": [-1] * 14}, "operations must lie in 0..7"),
        ({"normal": [0] * 14, "reduce": [0.5] * 14}, "neither integers nor a genotype"),
        ({"normal": [0] * 14, "reduce": [True] * 14}, "expected integers"),
        ({"normal": [0] * 14, "reduce": [10**30] * 14}, "expected integers"),
        ({"normal": [[["conv", 0]]] * 4, "reduce": []}, "no edge 0 -> 2 with operation 'conv'"),
        ({"space": "darts", "arch": {kind: [0] * 14 for kind in KINDS}}, "of space 'darts', not of 'snas'"),
    ],
)
def test_mistake_in_the_file(tmp_path, content, message):
    with pytest.raises(ValueError, match=r"architecture\.json: ") as caught:
        read_architecture(_small_snas(), _write(tmp_path, content))
    assert message in str(caught.value)


def test_file_that_is_no_text(capsys, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "it is not text" in _refused(capsys, "snas", *SMALL, "--arch", str(path))
    assert "cannot be read: Is a directory" in _refused(capsys, "snas", *SMALL, "--arch", str(tmp_path))


def test_architecture_outside_of_the_space_is_refused(capsys, tmp_path):
    outside = _write(tmp_path, {kind: [4] * 14 for kind in KINDS})
    assert "outside of space darts" in _refused(capsys, "darts", *SMALL, "--arch", outside)


def test_module_runs_as_a_command():
    command = [sys.executable, "-m", "jaxnas.describe", "snass"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown space 'snass'; did you mean snas?")
    assert done.stderr.count("\n") == 1


# The registry


def test_registry_builds_what_the_factories_build():
    assert {"darts", "snas", "nasbench201", "table", "quadratic"} <= set(registry.names())
    assert registry.build("snas", cells=3).about.config == snas_space(cells=3).about.config
    assert registry.defaults("darts")["channels"] == 16


def test_registry_asks_for_settings_without_a_default(monkeypatch):
    monkeypatch.setitem(registry.SPACES, "custom", lambda width: darts_space(width))
    with pytest.raises(ValueError, match="space custom needs a value for width"):
        registry.build("custom")
    assert registry.build("custom", width=4).about.config["channels"] == 4
