"""Exported files give the network's logits in a process that knows nothing of jaxnas."""

import builtins
import functools
import json
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import derive, export
from jaxnas.base import About, SearchSpace
from jaxnas.export.__main__ import main
from jaxnas.spaces import registry

SHAPE = (8, 8, 3)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
IMAGES = ((PIXELS.astype("float32") / 255 - np.array(MEAN, "float32")) / np.array(STD, "float32")).astype("float32")

SETTINGS = {
    # Every operation that is written by hand for a CPU occurs, with stride one or two.
    "darts": {"channels": 4, "cells": 1, "num_classes": 5, "nodes": 2, "stem_multiplier": 1, "lowering": "shifts"},
    "nasbench201": {"channels": 4, "cells": 1, "num_classes": 5},
    "nas-rl": {"num_layers": 3, "num_classes": 5, "filters": (2, 3), "strides": (1, 2), "pooling": (2,)},
}
ARCHS = {
    "darts": {"normal": [0, 0, 0, 0, 0], "reduce": [1, 4, 7, 2, 6]},
    "nasbench201": {"cell": [3, 1, 4, 0, 2, 3]},
    "nas-rl": {  # every kernel and stride, an orphan, and images of different sizes side by side
        "filters": [0, 1, 1],
        "height": [0, 1, 2],
        "skip": [0, 1, 0],
        "stride_height": [1, 0, 0],
        "stride_width": [0, 1, 1],
        "width": [3, 2, 1],
    },
}


@functools.cache
def trained(name):
    """A space, its network of `ARCHS` and weights that no initialiser would give."""
    space = registry.build(name, **SETTINGS[name])
    network = space.about.network(ARCHS[name])
    shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = 0.5 * rng.normal(size=leaf.shape)
        is_variance = jax.tree_util.keystr(path[-1:], simple=True) == "var"
        return jnp.asarray(np.abs(values) + 0.5 if is_variance else values, jnp.float32)

    return space, network, jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def logits(name):
    _, network, variables = trained(name)
    return np.asarray(jax.jit(lambda x: network.apply(variables, x)[0])(IMAGES))


def finished(tmp_path, name="nasbench201", **changes):
    """A work directory as an experiment leaves it."""
    space, _, variables = trained(name)
    record = export.architecture_record(space, ARCHS[name], image_shape=SHAPE, num_classes=5, mean=MEAN, std=STD)
    workdir = tmp_path / "run"
    export.save_variables(workdir / "network.safetensors", variables)
    (workdir / "architecture.json").write_text(json.dumps({**record, **changes}))
    return workdir


def run_without_jaxnas(program, folder):
    """Runs a program in a folder from which jaxnas cannot be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program += "\nimport sys; assert not {'jaxnas', 'flax'} & set(sys.modules)"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SETTINGS)
def test_the_files_give_the_logits_without_jaxnas(tmp_path, capsys, name):
    assert main([str(finished(tmp_path, name)), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / file) for file in ("network.stablehlo", "weights.safetensors", "network.json")
    ]
    np.save(tmp_path / "out" / "pixels.npy", PIXELS)
    about = json.loads((tmp_path / "out" / "network.json").read_text())
    program = ["import numpy", "pixels = numpy.load('pixels.npy')", *about["load"], "numpy.save('logits.npy', logits)"]
    run_without_jaxnas("\n".join(program), tmp_path / "out")
    np.testing.assert_allclose(np.load(tmp_path / "out" / "logits.npy"), logits(name), rtol=1e-4, atol=1e-5)


def test_network_json_says_what_goes_in_and_what_comes_out(tmp_path):
    about = export.export_workdir(finished(tmp_path), tmp_path / "out")
    assert about == json.loads((tmp_path / "out" / "network.json").read_text())
    assert about["input"]["shape"] == ["batch", 8, 8, 3]
    assert about["output"]["shape"] == ["batch", 5]
    assert about["normalisation"] == {"mean": MEAN, "std": STD}
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert (
        about["genotype"] == "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    )
    assert about["arch"] == ARCHS["nasbench201"]
    assert about["expected_latency"] is None
    assert about["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(trained("nasbench201")[2]["params"]))


def test_counts_of_an_older_record_are_counted_anew(tmp_path):
    about = export.export_workdir(finished(tmp_path, parameters=1, macs=2.5), tmp_path / "out")
    saved = export.load_variables(tmp_path / "out" / "weights.safetensors")
    assert about["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(saved["params"]))
    assert isinstance(about["macs"], int)


def test_weights_are_the_same_after_a_round_trip(tmp_path):
    _, _, variables = trained("nasbench201")
    export.export_workdir(finished(tmp_path), tmp_path / "out")
    found = export.load_variables(tmp_path / "out" / "weights.safetensors")
    chex.assert_trees_all_equal(found, jax.tree.map(np.asarray, variables))


def test_lists_and_narrow_types_come_back_in_the_structure_asked_for(tmp_path):
    tree = {"cells": [jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3).T, jnp.arange(3)], "scale": jnp.float32(2)}
    export.save_variables(tmp_path / "tree", tree)
    found = export.load_variables(tmp_path / "tree", like=tree)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, tree)
    chex.assert_trees_all_equal(found, jax.tree.map(np.asarray, tree))
    assert export.to_safetensors(tree) == export.to_safetensors(found)


def test_one_function_for_every_batch_size():
    _, network, variables = trained("nasbench201")
    call = jax.export.deserialize(export.to_stablehlo(network, variables, SHAPE, platforms=["cpu"])).call
    for size in (1, 3):
        np.testing.assert_allclose(call(IMAGES[:size]), logits("nasbench201")[:size], rtol=1e-4, atol=1e-5)


def test_inherited_weights_are_exported(tmp_path):
    space, _, _ = trained("darts")
    arch = {"normal": [0, 0, 0, 0, 0], "reduce": [1, 3, 0, 2, 0]}
    shapes = jax.eval_shape(space.init, jax.random.key(0), jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32))
    network, variables = derive.network(space, jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), shapes), arch)
    export.save_variables(tmp_path / "network.safetensors", variables)
    shape = {"image_shape": SHAPE, "num_classes": 5, "network": space.about.supernet}
    record = export.architecture_record(space, arch, mean=MEAN, std=STD, **shape)
    (tmp_path / "architecture.json").write_text(json.dumps(record))
    export.export_workdir(tmp_path, tmp_path / "out")
    call = jax.export.deserialize((tmp_path / "out" / "network.stablehlo").read_bytes()).call
    expected = jax.jit(lambda x: network.apply(variables, x)[0])(IMAGES)
    np.testing.assert_allclose(call(IMAGES), expected, rtol=1e-4)


def toy_space(classes=5):
    """A space that knows no stand-alone network: one choice between two linear maps."""

    def init(key, x):
        return [jnp.ones((x.shape[-1], classes)), jnp.zeros((x.shape[-1], classes))]

    def apply(params, paths, x, *, key=None):
        return x.mean((1, 2)) @ jnp.stack(params)[paths.index[0, 0]]

    choices = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    return SearchSpace(init, apply, lambda *_: None, lambda s: jnp.argmax(s, -1), choices, About(name="toy"))


def test_a_space_without_a_network_exports_its_supernet(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.SPACES, "toy", toy_space)
    record = export.architecture_record(toy_space(), [1], image_shape=SHAPE, num_classes=5, mean=MEAN, std=STD)
    params = [jnp.zeros((3, 5)), jnp.arange(15.0).reshape(3, 5)]
    export.save_variables(tmp_path / "network.safetensors", {"params": params})
    (tmp_path / "architecture.json").write_text(json.dumps(record))
    export.export_workdir(tmp_path, tmp_path / "out")
    call = jax.export.deserialize((tmp_path / "out" / "network.stablehlo").read_bytes()).call
    np.testing.assert_allclose(call(IMAGES), IMAGES.mean((1, 2)) @ params[1], rtol=1e-5, atol=1e-5)


def test_a_record_of_wrong_lengths_is_refused():
    space, _, _ = trained("nasbench201")
    record = functools.partial(export.architecture_record, space, ARCHS["nasbench201"], image_shape=SHAPE, std=STD)
    with pytest.raises(ValueError, match="mean must have 3 entries, got 1"):
        record(num_classes=5, mean=[0.5])
    with pytest.raises(ValueError, match="classes must have 5 entries, got 2"):
        record(num_classes=5, mean=MEAN, classes=["cat", "dog"])


def broken(tmp_path, case):
    """A work directory with one thing wrong."""
    if case == "no directory":
        return tmp_path / "nowhere"
    changes = {"other network": {"settings": {**SETTINGS["nasbench201"], "channels": 8}}}
    changes |= {"unknown space": {"space": "nasbench"}, "other classes": {"num_classes": 7}, "no weights": {}}
    changes |= {"other genotype": {"arch": {"cell": [0] * 6}}, "settings of text": {"settings": {"channels": "4"}}}
    changes |= {"unknown form": {"network": {"depth": 3}}}
    workdir = finished(tmp_path, **changes.get(case, {}))
    path = workdir / "architecture.json"
    if case == "no architecture":
        path.unlink()
    elif case == "half a file":
        path.write_text(path.read_text()[:50])
    elif case == "old fields":
        path.write_text(json.dumps({"space": "nasbench201", "arch": [], "settings": {}}))
    elif case == "no weights":
        (workdir / "network.safetensors").unlink()
    elif case == "half the weights":
        (workdir / "network.safetensors").write_bytes((workdir / "network.safetensors").read_bytes()[:1000])
    return workdir


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no directory", "nowhere does not exist or is not a directory"),
        ("no architecture", "run has no architecture.json: the run is not finished, or of a kind without one"),
        ("half a file", "architecture.json: not valid JSON: "),
        ("other genotype", "architecture.json: its integers and its genotype are two different arch"),
        ("settings of text", "architecture.json: settings do not build space 'nasbench201': "),
        ("unknown form", "network: space 'nasbench201' has no form {'depth': 3}"),
        ("old fields", "architecture.json lacks network, image_shape, num_classes, normalisation, genotype, weights"),
        ("unknown space", "unknown space 'nasbench'; did you mean nasbench201?"),
        ("no weights", "run has no network.safetensors: the run is not finished"),
        ("half the weights", "network.safetensors cannot be read as safetensors: "),
        (
            "other network",
            "does not fit the network: batch_stats/cell0_edge0_nor_conv_3x3/norm/mean has shape [4], exp",
        ),
        ("other classes", "num_classes is 7, the network has 5 outputs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys, case, message):
    assert main([str(broken(tmp_path, case)), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert message in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["flatbuffers"])
def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch, module):
    workdir = finished(tmp_path)
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == module:
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main([str(workdir)]) == 2
    assert f"error: {module} is not installed; pip install 'jaxnas[export]' brings it" in capsys.readouterr().err
