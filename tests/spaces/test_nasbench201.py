"""The NAS-Bench-201 space against the numbers that the benchmark records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import sparse_paths
from jaxnas.spaces import nasbench201_space
from jaxnas.spaces.nasbench201 import EDGES, OPERATIONS

SPACE = nasbench201_space()
NONE, SKIP, CONV1, CONV3, POOL = range(5)


def cells(number):
    """Random cells `[number, 6]`."""
    return np.random.default_rng(0).integers(0, 5, (number, len(EDGES)))


def cost(tables, cell):
    """Exact parameters and multiply-adds of a cell."""
    return [
        int(tables[name].fixed + sum(row[k] for row, k in zip(tables[name].table["cell"], cell, strict=True)))
        for name in ("parameters", "macs")
    ]


@pytest.mark.parametrize(("operation", "parameters"), [(CONV3, 1_531_546), (NONE, 73_306), (SKIP, 73_306)])
def test_parameters_of_known_cells(operation, parameters):
    cell = np.full(6, operation)
    network = SPACE.about.network({"cell": cell})
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert cost(SPACE.about.costs((32, 32, 3)), cell)[0] == parameters


# The bias of the classifier counts as one multiply-add per class.
@pytest.mark.parametrize(
    ("classes", "side", "fixed", "one", "three"),
    [
        (10, 32, (73_306, 7_783_050), 3_932_160, 35_389_440),
        (100, 32, (73_306 + 5_850, 7_783_050 + 5_850), 3_932_160, 35_389_440),
        (120, 16, (73_306 + 7_150, 1_953_400), 983_040, 8_847_360),
    ],
)
def test_costs_follow_the_formula(classes, side, fixed, one, three):
    tables = nasbench201_space(num_classes=classes).about.costs((side, side, 3))
    for cell in cells(200):
        n1, n3 = (cell == CONV1).sum(), (cell == CONV3).sum()
        parameters = fixed[0] + 28_000 * n1 + 243_040 * n3
        assert cost(tables, cell) == [parameters, fixed[1] + one * n1 + three * n3]


def test_costs_equal_the_recorded_ones(data_dir):
    with np.load(data_dir / "nasbench201.npz") as file:
        data = {name: file[name] for name in ("op_names", "edges", "ops", "params_m", "flops_m")}
    assert tuple(data["op_names"]) == OPERATIONS
    assert [tuple(edge) for edge in data["edges"][:, ::-1]] == list(EDGES)
    tables = SPACE.about.costs((32, 32, 3))
    for row in np.random.default_rng(1).integers(0, 15_625, 500):
        recorded = 1e6 * data["params_m"][row], 1e6 * data["flops_m"][row]
        np.testing.assert_allclose(cost(tables, data["ops"][row]), recorded, rtol=1e-6)


def test_parameter_counts_of_networks_equal_the_tables():
    space = nasbench201_space(channels=4, cells=2, num_classes=3)
    tables = space.about.costs((8, 8, 3))
    for cell in cells(4):
        network = space.about.network({"cell": cell})
        variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == cost(tables, cell)[0]


def test_size_is_counted():
    assert SPACE.about.size == 5**6 == 15_625
    assert nasbench201_space(operations=("skip_connect", "nor_conv_3x3")).about.size == 2**6


def test_genotype_is_the_string_of_the_benchmark():
    cell = [CONV3, NONE, SKIP, POOL, CONV1, CONV3]
    string = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    assert SPACE.about.genotype({"cell": cell}) == string
    assert SPACE.about.parse(string)["cell"].tolist() == cell
    for cell in cells(50):
        assert np.array_equal(SPACE.about.parse(SPACE.about.genotype({"cell": cell}))["cell"], cell)


def test_parser_takes_sources_in_any_order():
    string = "|none~0|+|skip_connect~1|none~0|+|nor_conv_3x3~2|none~0|nor_conv_1x1~1|"
    assert SPACE.about.parse(string)["cell"].tolist() == [NONE, NONE, SKIP, NONE, CONV1, CONV3]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "|none~0|+|none~0|none~1|",
        "|none~0|+|none~0|none~2|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|max_pool_3x3~2|",
        "none+none|none+none|none|none",
    ],
)
def test_wrong_strings_are_refused(wrong):
    with pytest.raises(ValueError, match="genotype must have the form"):
        SPACE.about.parse(wrong)


def test_derive_takes_the_best_of_all_operations():
    scores = np.random.default_rng(2).standard_normal((6, 5)).astype(np.float32)
    scores[1, NONE] = 9.0
    arch = SPACE.derive({"cell": jnp.asarray(scores)})
    assert np.array_equal(arch["cell"], scores.argmax(-1))
    assert arch["cell"].dtype == jnp.int32
    assert arch["cell"][1] == NONE
    assert not np.any(SPACE.derive({"cell": jnp.zeros((6, 5))})["cell"])  # ties go to the first


@pytest.mark.parametrize("path", [[(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)]])
def test_one_path_of_skips_is_no_cell_at_all(path):
    # Without parameters inside cells, networks of any depth share their variables.
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
    cell = [SKIP if edge in path else NONE for edge in EDGES]
    shallow, deep = (nasbench201_space(4, depth).about.network({"cell": cell}) for depth in (1, 3))
    variables = jax.jit(shallow.init)(jax.random.key(0), x)
    logits, _ = shallow.apply(variables, x)
    assert np.abs(logits).max() > 0.01
    assert np.array_equal(deep.apply(variables, x)[0], logits)


def test_skips_everywhere_count_the_paths():
    # The nodes of an all-skip cell are x, x, 2x and 4x; edge 5 sees the third.
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
    space = nasbench201_space(4, 1)
    every, none = (space.about.network({"cell": np.full(6, k)}).module for k in (SKIP, NONE))
    variables = jax.jit(every.init)(jax.random.key(0), x)
    seen = every.apply(variables, x, capture_intermediates=True)[1]["intermediates"]
    assert np.array_equal(seen["cell0_edge5_skip_connect"]["__call__"][0], 2 * seen["stem"]["__call__"][0])
    zeros = none.apply(variables, x, capture_intermediates=True)[1]["intermediates"]
    assert not np.any(zeros["cell0_edge5_none"]["__call__"][0])


def test_examples_after_the_reference_are_judged_alone():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 8, 8, 3)), jnp.float32)
    space = nasbench201_space(4, 1, reference=4)
    params = jax.jit(space.init)(jax.random.key(0), x)
    apply = jax.jit(lambda x: space.apply(params, sparse_paths({"cell": jnp.full(6, CONV1)}), x))
    logits, changed = apply(x), apply(x.at[5].add(1.0))
    assert np.array_equal(changed[:5], logits[:5])
    assert not np.array_equal(changed[5], logits[5])
    assert not np.array_equal(apply(x.at[0].add(1.0))[4], logits[4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"cells": 0}, "cells must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"operations": ("none",)}, "two or more different ones"),
        ({"operations": ("none", "none")}, "two or more different ones"),
        (
            {"operations": ("none", "max_pool_3x3")},
            "operations: unknown 'max_pool_3x3', accepted are none, skip_connect",
        ),
        ({"dtype": "float16"}, "dtype must be 'float32', 'bfloat16' or 'float64', got 'float16'"),
        ({"lowering": "fast"}, "lowering must be"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        nasbench201_space(**changes)


def test_costs_refuse_odd_sides():
    with pytest.raises(ValueError, match="even height and width, got 15x15"):
        SPACE.about.costs((30, 30, 3))
