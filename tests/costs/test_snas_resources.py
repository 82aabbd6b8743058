"""The resource term of SNAS against its own formulas, whole networks counted by hand, and closed-form gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import one_hot_paths
from jaxnas.spaces.darts import (
    PRIMITIVES,
    PUBLISHED,
    combine,
    darts_space,
    operation_resources,
    resource_penalty,
    resource_tables,
    resource_totals,
    snas_space,
)

SEP3, SEP5, DIL3, DIL5 = "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"
MAX, SKIP = "max_pool_3x3", "skip_connect"
KINDS = ("normal", "reduce")


def _all(name):
    return {kind: np.eye(8, dtype=np.int64)[np.full(14, PRIMITIVES.index(name))] for kind in KINDS}


def _weights(name):
    if name == "uniform":
        return {kind: np.full((14, 8), 1 / 8) for kind in KINDS}
    if name == "mild":
        arch = snas_space().about.parse(PUBLISHED["snas_mild"])
        return {kind: np.eye(8, dtype=np.int64)[arch[kind]] for kind in KINDS}
    return _all(name)


def _random_weights(seed):
    rng = np.random.default_rng(seed)
    return {kind: rng.dirichlet(np.ones(8), 14).astype(np.float32) for kind in KINDS}


@pytest.mark.parametrize(
    ("name", "channels", "side", "stride", "expected"),
    [
        (SEP3, 16, 32, 1, (800, 819_200, 131_872)),
        (SEP5, 16, 32, 1, (1_312, 1_343_488, 132_384)),
        (DIL3, 16, 32, 1, (400, 409_600, 65_936)),
        (DIL5, 16, 32, 1, (656, 671_744, 66_192)),
        (MAX, 16, 32, 1, (0, 147_456, 32_768)),
        ("avg_pool_3x3", 16, 32, 1, (0, 147_456, 32_768)),
        (SKIP, 16, 32, 1, (0, 0, 32_768)),
        ("none", 16, 32, 1, (0, 0, 0)),
        (SEP3, 32, 16, 2, (2_624, 671_744, 92_736)),
        (SEP5, 32, 16, 2, (3_648, 933_888, 93_760)),
        (DIL3, 32, 16, 2, (1_312, 335_872, 58_656)),
        (MAX, 32, 16, 2, (0, 73_728, 40_960)),
        ("avg_pool_3x3", 32, 16, 2, (0, 73_728, 40_960)),
        (SKIP, 32, 16, 2, (1_024, 262_144, 74_752)),
        ("none", 32, 16, 2, (0, 0, 0)),
    ],
)
def test_single_operations(name, channels, side, stride, expected):
    assert operation_resources(name, channels, side, stride) == expected


@pytest.mark.parametrize(
    ("name", "totals", "linear", "log"),
    [
        ("uniform", (228_896, 37_167_104, 4_191_776), 60_052.16, 284.8496),
        (SEP5, (668_416, 107_462_656, 8_762_112), 167_903.12, 311.310),
        (SKIP, (40_960, 4_194_304, 2_678_784), 21_296.22, 146.727),
        ("mild", (96_896, 16_007_168, 2_566_784), 18_812.09, 107.500),
        ("none", (0, 0, 0), 0.0, 0.0),
    ],
)
def test_whole_networks(name, totals, linear, log):
    space, weights = snas_space(), _weights(name)
    found = resource_totals(resource_tables(space, 32), weights)
    assert found == totals
    for kind, expected, digits in (("linear", linear, 2), ("log", log, 3)):
        penalty = resource_penalty(space, 32, kind=kind)
        assert round(penalty(weights), digits) == round(expected, digits)
        device = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
        np.testing.assert_allclose(jax.jit(penalty)(device), expected, rtol=2e-6)


def test_only_edges_out_of_the_inputs_of_a_reduction_cell_have_a_stride():
    space = snas_space()
    tables = resource_tables(space, 32)
    for cell, (channels, side) in enumerate([(32, 16), (64, 8)]):
        for row, (source, _) in enumerate(space.about.edges["reduce"]):
            stride = 2 if source < 2 else 1
            expected = [operation_resources(name, channels, side, stride) for name in PRIMITIVES]
            np.testing.assert_array_equal(tables["reduce"][cell, row], expected)
    for cell, (channels, side) in enumerate([(16, 32)] * 2 + [(32, 16)] * 2 + [(64, 8)] * 2):
        expected = [operation_resources(name, channels, side, 1) for name in PRIMITIVES]
        np.testing.assert_array_equal(tables["normal"][cell], np.broadcast_to(expected, (14, 8, 3)))


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_penalty_adds_up_over_edges(kind):
    penalty, weights = resource_penalty(snas_space(), 32, kind=kind), _random_weights(0)
    weights = jax.tree.map(np.float64, weights)
    total = 0.0
    for name in KINDS:
        for edge in range(14):
            alone = {other: np.zeros((14, 8)) for other in KINDS}
            alone[name][edge] = weights[name][edge]
            total += penalty(alone)
    np.testing.assert_allclose(penalty(weights), total, rtol=1e-12)


def test_gradient_of_the_linear_penalty_is_the_cost_of_each_operation():
    space, ratio = snas_space(), 0.5
    grads = jax.jit(jax.grad(resource_penalty(space, 32, ratio=ratio)))(_random_weights(1))
    for name, scale in (("normal", 1 / 6), ("reduce", ratio / 2)):
        size, flops, mac = np.moveaxis(resource_tables(space, 32)[name].astype(float).sum(0), -1, 0)
        costs = 0.43 * (2 * size + flops / 4000 + mac / 100)  # c_k of every edge
        np.testing.assert_allclose(grads[name], scale * costs, rtol=1e-5)


def test_gradient_of_the_log_penalty():
    space, weights = snas_space(), _random_weights(2)
    grads = jax.jit(jax.grad(resource_penalty(space, 32, kind="log")))(weights)
    for name, scale in (("normal", 1 / 6), ("reduce", 1 / 2)):
        table = resource_tables(space, 32)[name].astype(float)
        mixed = np.einsum("ek,nekc->nec", weights[name].astype(float), table)
        assert (mixed > 1).all()
        expected = scale * (table / mixed[:, :, None]).mean(-1).sum(0)
        np.testing.assert_allclose(grads[name], expected, rtol=1e-4)


def test_log_penalty_of_nothing_is_zero_and_has_no_gradient():
    penalty = resource_penalty(snas_space(), 32, kind="log")
    value, grads = jax.jit(jax.value_and_grad(penalty))(jax.tree.map(np.float32, _all("none")))
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_log_penalty_clamps_each_cost_at_one():
    np.testing.assert_allclose(combine(np.array([0.5, np.e, 1.0]), "log"), 1 / 3)
    grads = jax.grad(lambda costs: combine(costs, "log"))(jnp.array([0.5, 4.0, 0.0]))
    np.testing.assert_allclose(grads, [0.0, 1 / 12, 0.0], rtol=1e-6)


def test_linear_penalty_of_probabilities_is_the_mean_over_samples_and_log_is_above_it():
    space, weights = snas_space(), jax.tree.map(np.float64, _random_weights(3))
    for kind in ("linear", "log"):
        penalty = resource_penalty(space, 32, kind=kind)
        mean = 0.0
        for name in KINDS:  # edge by edge, which suffices as the penalty adds up over edges
            for edge in range(14):
                for k in range(8):
                    alone = {other: np.zeros((14, 8)) for other in KINDS}
                    alone[name][edge, k] = 1.0
                    mean += weights[name][edge, k] * penalty(alone)
        if kind == "linear":
            np.testing.assert_allclose(penalty(weights), mean, rtol=1e-12)
        else:
            assert penalty(weights) > mean + 10  # the logarithm is concave


def test_penalty_is_the_same_under_jit_and_vmap():
    penalty = resource_penalty(snas_space(), 32, kind="log", ratio=0.3)
    rows = [_random_weights(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    exact = [penalty(jax.tree.map(np.float64, row)) for row in rows]
    np.testing.assert_allclose(jax.jit(jax.vmap(penalty))(stacked), exact, rtol=1e-5)


@pytest.mark.parametrize("cells", [8, 20])
def test_mean_is_over_the_cells_of_the_network(cells):
    space = snas_space(channels=8, cells=cells)
    tables = resource_tables(space, 32)
    assert [len(tables[kind]) for kind in KINDS] == [cells - 2, 2]
    weights = _weights("uniform")
    per_cell = [combine(np.einsum("ek,nekc->nec", weights[kind], tables[kind])).sum() for kind in KINDS]
    expected = per_cell[0] / (cells - 2) + 0.25 * per_cell[1] / 2
    np.testing.assert_allclose(resource_penalty(space, 32, ratio=0.25)(weights), expected, rtol=1e-12)


def test_network_without_normal_cells():
    penalty = resource_penalty(snas_space(cells=2), 32)
    assert penalty(_weights("uniform")) == penalty({**_weights("uniform"), "normal": np.zeros((14, 8))}) > 0


def test_other_operations_nodes_and_the_space_of_darts():
    space = darts_space(nodes=2, operations=("none", "sep_conv_3x3", "skip_connect"))
    tables = resource_tables(space, 32)
    assert tables["normal"].shape == (6, 5, 3, 3)
    np.testing.assert_array_equal(tables["normal"][0, 0, 1], (800, 819_200, 131_872))
    arch = {kind: np.array([1, 1, 2, 0, 0]) for kind in KINDS}
    weights = one_hot_paths(space.choices, arch).weight
    size = resource_totals(tables, weights).size
    # Two separable convolutions per cell; the skip beside them has weights where it leaves an input.
    assert int(size) == sum(2 * 2 * c * (9 + c) for c in (16, 16, 32, 32, 32, 64, 64, 64)) + 32**2 + 64**2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "square"}, "kind must be one of linear, log, got 'square'"),
        ({"image_side": 0}, "image_side must be at least 1, got 0"),
        ({"space": "nasbench201"}, "'darts' and 'snas', got 'nasbench201'"),
    ],
)
def test_mistakes_are_named(change, message):
    space = snas_space()
    if "space" in change:
        space = space._replace(about=space.about._replace(name=change["space"]))
    with pytest.raises(ValueError, match=message):
        resource_penalty(space, change.get("image_side", 32), kind=change.get("kind", "linear"))


@pytest.mark.parametrize("arguments", [("sep_conv_7x7", 16, 32, 1), (SEP3, 16, 32, 3), (SEP3, 0, 32, 1)])
def test_operations_nobody_counted_are_refused(arguments):
    with pytest.raises(ValueError, match=r"sep_conv_7x7|need stride 1 or 2"):
        operation_resources(*arguments)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(AssertionError, match="shape"):
        resource_penalty(snas_space(), 32)({kind: jnp.ones((14, 7)) for kind in KINDS})
