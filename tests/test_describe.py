"""The command line that describes spaces: exact numbers, every form of an architecture file, one line per mistake."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architecture_files import read_architecture
from jaxnas.architectures import arch_like, check_architecture
from jaxnas.base import About, Network, Op, SearchSpace
from jaxnas.costs import count_parameters
from jaxnas.describe import architecture_summary, main, network_costs, space_summary
from jaxnas.spaces import registry
from jaxnas.spaces.darts import PUBLISHED, darts_space, snas_space

KEY = jax.random.key(0)
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
    assert found.pop("parameters") == summary["supernet_parameters"]  # the supernet takes the network's place
    assert found == {"space": "custom", "arch": _arch(), "genotype": None, "macs": None}


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
    assert found == {**found, **network_costs(space, arch, (32, 32, 3))}
    assert found["macs"] > found["parameters"] > 0
    assert "parameters_retrained" not in found


def test_genotype_of_integers(capsys, tmp_path):
    path = _write(tmp_path, [1, 0])
    found = _describe(capsys, "table", "--set", "values=[[3, 1], [4, 2]]", "--arch", path)
    assert found["supernet_parameters"] == 0
    assert found["architecture"]["arch"] == {"edges": [1, 0]}
    with pytest.raises(ValueError, match="operations must lie in"):
        read_architecture(registry.build("table", **NEEDED["table"]), _write(tmp_path, [2, 0]))


def test_work_directory_is_described_as_its_record_says(capsys, tmp_path):
    space, arch = _small_snas(), _arch(2)
    form = {"affine": False}
    record = architecture_summary(space, arch, (8, 8, 1), network=form)
    (tmp_path / "architecture.json").write_text(
        json.dumps({**record, "settings": space.about.config, "network": form, "image_shape": [8, 8, 1]})
    )
    found = _describe(capsys, "snas", "--arch", str(tmp_path))
    assert found["architecture"] == record
    assert (found["settings"], found["image_shape"]) == (space.about.config, [8, 8, 1])
    assert record["parameters"] < record["parameters_retrained"]
    wide = _describe(capsys, "snas", "--arch", str(tmp_path), "--set", "channels=8", "--image", "16x16x1")
    assert wide["settings"] == {**space.about.config, "channels": 8}
    assert wide["architecture"]["macs"] > 4 * record["macs"]


def test_published_cell_and_text_are_described(capsys):
    found = _describe(capsys, "darts", *SMALL, "--arch", "darts_v2")["architecture"]
    space = darts_space(channels=4, cells=2, lowering="lax")
    assert found == architecture_summary(space, space.about.parse(PUBLISHED["darts_v2"]))
    again = _describe(capsys, "darts", *SMALL, "--arch", json.dumps(found["genotype"]))
    assert again["architecture"] == found


def test_settings_that_are_sequences_of_numbers(capsys):
    sizes = ("widths=8,16", "blocks=1,1", "strides=1, 2", "expansions=2", "lowering=lax", "last_channels=8")
    options = [word for size in sizes for word in ("--set", size)]
    found = _describe(capsys, "proxyless", *options, "--image", "8x8x1")
    assert (found["settings"]["widths"], found["settings"]["strides"]) == ([8, 16], [1, 2])
    assert "setting widths: expected a whole number, got 'x'" in _refused(capsys, "proxyless", "--set", "widths=8,x")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dart"], "unknown space 'dart'; did you mean darts? the spaces are darts, snas"),
        (["transformer"], "unknown space 'transformer'; the spaces are"),
        (["snas", "--set", "chanels=3"], "unknown setting 'chanels' of space snas; did you mean channels?"),
        (["snas", "--set", "channels"], "setting channels: expected name=value"),
        (["snas", "--set", "channels=many"], "setting channels: expected a whole number, got 'many'"),
        (["snas", "--set", "channels=1.5"], "expected a whole number"),
        (["snas", "--set", "drop_path=x"], "setting drop_path: expected a number, got 'x'"),
        (["snas", "--set", "drop_path=nan"], "drop_path must lie in [0, 1), got nan"),
        (["snas", "--set", "cells=0"], "cells must be at least 1, got 0"),
        (["snas", "--set", "operations=none,conv"], "operations: unknown 'conv'"),
        (["darts", "--set", "operations=skip_connect,max_pool_3x3"], "must contain 'none'"),
        (["table"], "space table needs a value for values"),
        (["table", "--set", "values=[[1,"], "setting values: expected JSON, got '[[1,'"),
        (["table", "--set", "values=[[1, 2, 3]]"], "values must have axes of one length"),
        (["snas", "--image", "32"], "--image 32: expected HEIGHTxWIDTHxCHANNELS, as 32x32x3"),
        (["snas", "--image", "32x0x3"], "--image 32x0x3: expected"),
        (["snas", *SMALL, "--image", "15x15x3"], "got 15x15"),
        (["snas", *SMALL, "--arch", "nowhere.json"], "nowhere.json: cannot be read: No such file"),
    ],
)
def test_mistake_on_the_command_line(capsys, arguments, message):
    assert message in _refused(capsys, *arguments)


def test_file_that_is_no_text(capsys, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "it is not text" in _refused(capsys, "snas", *SMALL, "--arch", str(path))
    assert "the directory has no architecture.json" in _refused(capsys, "snas", *SMALL, "--arch", str(tmp_path))


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


# Costs that do not add up over decisions

WIDTHS = (3, 5, 8)
CHOICES = {"width": jax.ShapeDtypeStruct((2, 3), jnp.float32)}


def two_widths():
    """Two dense layers on flattened images, each of a width to be chosen: the second matrix has their product."""

    def widths(arch):
        return [WIDTHS[k] for k in arch_like(CHOICES, arch)["width"]]

    def network(arch, *, bias=False):
        def init(key, x):
            sizes = [x.size // x.shape[0], *widths(arch)]
            layers = [{"kernel": jnp.zeros((rows, columns))} for rows, columns in itertools.pairwise(sizes)]
            return {
                "params": [
                    {**layer, "bias": jnp.zeros(layer["kernel"].shape[1])} if bias else layer for layer in layers
                ]
            }

        return Network(init, lambda variables, x, **_: (x, variables))

    def counts(arch, image_shape, *, bias=False):
        first, second = widths(arch)
        products = math.prod(image_shape) * first + first * second
        return {"parameters": products + (first + second if bias else 0), "macs": products}

    about = About(name="two-widths", network=network, counts=counts, genotype=widths, size=9)
    no_supernet = Op(lambda key, x: {}, lambda params, paths, x, *, key=None: x)
    return SearchSpace(*no_supernet, lambda params, paths: {}, lambda scores: scores, CHOICES, about)


@pytest.mark.parametrize("form", [{}, {"bias": True}])
def test_a_space_may_count_each_network_by_itself(form):
    space, shape = two_widths(), (4, 4, 2)
    for arch in ({"width": [0, 2]}, {"width": [2, 0]}):
        found = network_costs(space, arch, shape, **form)
        variables = jax.eval_shape(space.about.network(arch, **form).init, KEY, jnp.zeros((2, *shape)))
        assert found["parameters"] == count_parameters(variables["params"])
        assert found["macs"] == 32 * WIDTHS[arch["width"][0]] + 24
    assert architecture_summary(space, {"width": [0, 2]}, shape)["macs"] == 32 * 3 + 24
    with pytest.raises(ValueError, match=r"network: space 'two-widths' has no form \{'depth': 3\}"):
        network_costs(space, {"width": [0, 0]}, shape, depth=3)
