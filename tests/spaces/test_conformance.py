"""Every registered space, one row each: what it says of itself rebuilds it, every form is read, every count is exact.

A new space is one line of `jaxnas.spaces.registry` and one row of `ROWS`. That dense and sparse paths and the network
agree is in `test_agreement`.
"""

import itertools
import json
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxnas import derive, export
from jaxnas.architecture_files import build_space, decode, read_architecture, read_source
from jaxnas.architectures import check_architecture
from jaxnas.base import one_hot_paths, sparse_paths
from jaxnas.costs import count_parameters
from jaxnas.describe import architecture_summary, network_costs
from jaxnas.spaces import registry

SHAPE = (8, 8, 2)
X = jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32)
KEY = jax.random.key(0)


class Row(NamedTuple):
    """One space.

    Attributes:
      settings: a value for every argument of the factory, small and other than its default.
      forms: changes to `about.network` that change its weights.
      table: whether its costs have multiply-adds.
    """

    settings: dict[str, Any]
    forms: tuple[dict[str, Any], ...] = ({},)
    table: bool = True


CELLS = {
    "channels": 4,
    "cells": 2,
    "num_classes": 3,
    "nodes": 2,
    "stem_multiplier": 2,
    "operations": ("skip_connect", "none", "max_pool_3x3", "dil_conv_3x3"),
    "drop_path": 0.25,
    "lowering": "lax",
    "dtype": "bfloat16",
    "reference": 2,
}
FORMS = tuple(
    {"affine": affine, "pool_norm": pool_norm, "auxiliary": auxiliary}
    for affine in (False, True)
    for pool_norm in (False, True)
    for auxiliary in (False, True)
)
ROWS = {
    "darts": Row(CELLS, FORMS),
    "snas": Row(CELLS, FORMS),
    "nasbench201": Row(
        {
            "channels": 4,
            "cells": 1,
            "num_classes": 3,
            "operations": ("avg_pool_3x3", "none", "nor_conv_3x3"),
            "lowering": "lax",
            "dtype": "bfloat16",
            "reference": 2,
        },
        ({"affine": False}, {"affine": True}),
    ),
    "nasbench201-small": Row({"channels": 4, "num_classes": 3, "choice": "kernel", "reference": 2}),
    "proxyless": Row(
        {
            "widths": (8, 16),
            "blocks": (2, 1),
            "strides": (1, 2),
            "stem_channels": 8,
            "stem_stride": 1,
            "first_channels": 8,
            "last_channels": 8,
            "num_classes": 3,
            "kernels": (5, 3),
            "expansions": (2,),
            "width_multiplier": 1.5,
            "reference": 2,
            "dtype": "bfloat16",
            "lowering": "lax",
        },
        ({}, {"dropout": 0.5}),
    ),
    "proxyless-tree": Row(
        {
            "blocks": 1,
            "stages": 2,
            "stem_channels": 4,
            "alpha": 4.0,
            "bottleneck": 2,
            "groups": 4,
            "num_classes": 3,
            "operations": ("identity", "dil_conv_3x3", "avg_pool_3x3"),
            "drop_path": 0.25,
            "reference": 2,
            "dtype": "bfloat16",
            "lowering": "lax",
        },
        ({}, {"cell_drop": 0.25}),
    ),
    "nas-rl": Row(
        {
            "num_layers": 3,
            "num_classes": 3,
            "filters": (2, 3),
            "kernels": (1, 3),
            "strides": (1, 2),
            "order": "conv_relu_bn",
            "pooling": (2,),
            "convolutions": 2,
            "more_filters": 1,
            "reference": 4,
            "dtype": "bfloat16",
            "lowering": "lax",
        },
        ({}, {"affine": False}, {"more_filters": 4}),
    ),
    "table": Row({"values": [[3.0, 1.0, 0.5], [4.0, 2.0, 0.25], [0.0, 1.0, 1.0]]}, table=False),
    "quadratic": Row({"matrix": np.eye(6).tolist(), "linear": [0.5] * 6, "num_edges": 2}, table=False),
}
NETWORKS = [name for name, row in ROWS.items() if row.table]


def build(name, **changes):
    return registry.build(name, **{**ROWS[name].settings, **changes})


def random_arch(space, seed=0):
    rng = np.random.default_rng(seed)
    scores = jax.tree.map(lambda c: rng.normal(size=c.shape).astype(c.dtype), space.choices)
    return jax.tree.map(np.asarray, jax.jit(space.derive)(scores))


def plain(arch):
    return jax.tree.map(np.ndarray.tolist, arch)


def program(space, params, paths):
    """The traced supernet as text, without the addresses of functions."""
    return re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(space.apply)(params, paths, X)))


def test_every_space_has_a_row_with_every_setting_away_from_its_default():
    assert set(ROWS) == set(registry.names())
    for name, row in ROWS.items():
        defaults = registry.defaults(name)
        assert set(row.settings) == set(defaults), name
        for setting, value in row.settings.items():
            assert value != defaults[setting], (name, setting)


# The space's own settings


@pytest.mark.parametrize("name", ROWS)
def test_config_rebuilds_the_space(name):
    space = build(name)
    config = json.loads(json.dumps(space.about.config))
    assert set(config) == set(registry.defaults(name)), "one entry for every argument"
    again = registry.build(name, **config)
    assert (again.about.name, again.about.config) == (name, config)
    assert again.about.operations == space.about.operations
    assert again.choices == space.choices
    params = [jax.eval_shape(one.init, KEY, X) for one in (space, again)]
    assert params[0] == params[1]
    arch = random_arch(space)
    for paths in (one_hot_paths(space.choices, arch), sparse_paths(arch)):
        assert program(space, params[0], paths) == program(again, params[1], paths)
    if space.about.network is not None:
        networks = [one.about.network(arch).module for one in (space, again)]
        assert networks[0] == networks[1]


@pytest.mark.parametrize("name", ROWS)
def test_config_says_every_setting_as_it_was_given(name):
    given = ROWS[name].settings
    assert build(name).about.config == json.loads(json.dumps(given))


# The forms of an architecture


def forms_of(space, arch):
    """One architecture in every form, as JSON data."""
    summary = architecture_summary(space, arch)
    integers = plain(arch)
    leaves = jax.tree.leaves(integers, is_leaf=lambda leaf: isinstance(leaf, list))
    return {
        "record": {**summary, "settings": space.about.config},
        "under architecture": {"space": space.about.name, "architecture": integers},
        "bare": integers,
        "flat": list(itertools.chain(*leaves)),
        "one list per entry": leaves,
        "genotype": summary["genotype"],
        "genotype in a record": {"space": space.about.name, "genotype": summary["genotype"]},
    }


@pytest.mark.parametrize("name", ROWS)
def test_every_form_is_read_from_every_kind_of_source(name, tmp_path):
    space = build(name)
    arch = random_arch(space, 1)
    folder = tmp_path / "run"
    folder.mkdir()
    for form, content in forms_of(space, arch).items():
        text = content if isinstance(content, str) else json.dumps(content)
        file = tmp_path / "architecture.txt"
        file.write_text(f"{text}\n")
        (folder / "architecture.json").write_text(json.dumps(content))
        for source in (file, str(file), folder, text, repr(content)):
            found = decode(space, read_source(source))
            assert plain(found) == plain(arch), (form, source)
            assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.int32)}
    found = read_source(folder)
    jax.tree.map(np.testing.assert_array_equal, read_architecture(space, found), check_architecture(space, arch))


@pytest.mark.parametrize("name", ROWS)
def test_record_builds_its_space(name, tmp_path):
    space = build(name)
    arch = random_arch(space)
    record = export.architecture_record(space, arch, image_shape=SHAPE, num_classes=3, mean=[0, 0], std=[1, 1])
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(record))
    source = read_source(path)
    again = build_space(source)
    assert again.about.config == space.about.config
    assert plain(read_architecture(again, source)) == plain(arch)
    changed = {"reference": 0} if "reference" in space.about.config else {}
    assert build_space(source, name, **changed).about.config == {**space.about.config, **changed}
    with pytest.raises(ValueError, match="architecture of space") as caught:
        build_space(source, "other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ROWS)
def test_integers_and_genotype_must_agree(name):
    space = build(name)
    arch, other = random_arch(space, 0), random_arch(space, 1)
    record = {**architecture_summary(space, arch), "genotype": architecture_summary(space, other)["genotype"]}
    with pytest.raises(ValueError, match="its integers and its genotype are two different architectures"):
        read_architecture(space, json.dumps(record))


RUBBISH = (
    *(
        "",
        "null",
        "{}",
        "[]",
        "[[]]",
        "3",
        "true",
        "1e400",
        "NaN",
        '"',
        "|",
        "|a~0|",
        "Genotype()",
        "Genotype(1)",
        "x = y",
    ),
    *("__import__('os')", "(lambda: 0)()", "[" * 100_000, "(" * 5_000, "range(10 ** 9)", "[range(10 ** 30)]"),
    *('{"arch": {}}', '{"arch": [true]}', '{"arch": null}', '{"space": 3, "arch": [0]}', '{"arch": [[0], 1]}'),
    *('{"arch": [1e30]}', f"[{'9' * 5_000}]", f"[{10**30}]", "[-1]", '{"normal": 3, "reduce": [[["none", []]]]}'),
    *('{"settings": [], "arch": [0]}', '{"image_shape": [8, 8], "arch": [0]}', '[["none", 0]]', '["3x3_e9"]', "\x00"),
)


@pytest.mark.parametrize("name", ROWS)
def test_rubbish_is_one_line(name, tmp_path):
    space = build(name)
    path = tmp_path / "file"
    for text in RUBBISH:
        path.write_text(text)
        for source in (path, text):
            with pytest.raises(ValueError, match=r".") as caught:
                read_architecture(space, source)
            assert "\n" not in str(caught.value).strip(), (text[:50], caught.value)


# Counts


def multiply_adds(jaxpr):
    """Those of all convolutions and matrix products of a traced program."""
    total = 0
    for equation in jaxpr.eqns:
        name, out = equation.primitive.name, equation.outvars[0].aval
        if name == "conv_general_dilated":
            dimensions = equation.params["dimension_numbers"]
            kernel = equation.invars[1].aval.shape
            weights = math.prod(kernel) // kernel[dimensions.rhs_spec[0]]
            total += math.prod(out.shape) * weights
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += math.prod(out.shape) * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        for inner in jaxprs_in_params(equation.params):
            total += multiply_adds(inner)
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_those_of_the_network(name):
    space = build(name, dtype="float32") if "dtype" in ROWS[name].settings else build(name)
    side = 32 if "auxiliary" in ROWS[name].forms[0] else 8
    shape = (side, side, 2)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    for seed, form in enumerate(ROWS[name].forms):
        arch = random_arch(space, seed)
        network = space.about.network(arch, **form)
        found = network_costs(space, arch, shape, **form)
        variables = jax.eval_shape(network.init, KEY, x)
        assert found["parameters"] == count_parameters(variables["params"]), form
        traced = jax.make_jaxpr(lambda v, x, network=network: network.apply(v, x)[0])(variables, x)
        bias = 3 if name.startswith("nasbench201") else 0  # the benchmark counts that of the classifier
        assert found["macs"] == multiply_adds(traced.jaxpr) + bias, form
        assert {type(found["parameters"]), type(found["macs"])} == {int}


@pytest.mark.parametrize("name", ROWS)
def test_record_counts_what_is_saved(name, tmp_path):
    space = build(name)
    arch = random_arch(space)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(space.init, KEY, X))
    _, variables = derive.network(space, params, arch)
    export.save_variables(tmp_path / "network.safetensors", variables)
    form = space.about.supernet
    arguments = {"image_shape": SHAPE, "num_classes": 3, "mean": [0, 0], "std": [1, 1]}
    record = export.architecture_record(space, arch, network=form, **arguments)
    saved = export.load_variables(tmp_path / "network.safetensors").get("params", {})
    assert record["parameters"] == count_parameters(saved)
    again = json.loads(json.dumps(record))
    assert again == record
    retrained = network_costs(space, arch, SHAPE)
    assert (record["parameters_retrained"], record["macs_retrained"]) == (retrained["parameters"], retrained["macs"])
    if "affine" in form:
        assert record["parameters"] < record["parameters_retrained"]


def test_form_that_a_space_does_not_have_is_refused():
    for name in NETWORKS:
        space = build(name)
        with pytest.raises(ValueError, match=r"network: space .* has no form \{'depth': 3\}"):
            network_costs(space, random_arch(space), SHAPE, depth=3)


@pytest.mark.parametrize("name", ["darts", "snas", "nasbench201", "nasbench201-small"])
def test_a_negative_number_of_reference_examples_is_refused(name):
    with pytest.raises(ValueError, match="reference must be a number of examples, at least 0, got -1"):
        registry.build(name, reference=-1)
