"""The published table's sums and losses exactly, restricted probabilities, files, measurement, and bad input."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import costs
from jaxnas.base import Paths
from jaxnas.costs.latency import (
    LatencyTable,
    latency_cost,
    latency_objective,
    measure_networks,
    measure_space,
    read_latency,
    space_parts,
    write_latency,
)
from jaxnas.costs.latency.__main__ import main as command
from jaxnas.spaces import darts_space, proxyless_space

# Means of the published table for a mobile phone, ms: columns e3k3, e3k5, e3k7, e6k3, e6k5, e6k7.
PUBLISHED = """
112x112x16 56x56x24 2 0 6.240567 7.519107 9.143758 16.766225 18.941261 22.104677
56x56x24 56x56x24 1 1 6.273092 7.901883 10.214839 11.094914 14.131319 18.540628
56x56x24 28x28x40 2 0 3.941153 4.382753 5.026178 7.138745 7.880564 9.191034
28x28x40 28x28x40 1 1 2.856840 3.483712 4.367423 5.362680 6.621540 8.376988
28x28x40 14x14x80 2 0 1.810338 1.984622 2.229184 3.454000 3.797617 4.252205
14x14x80 14x14x80 1 1 1.841350 2.126526 2.500316 3.469487 4.079784 4.880455
14x14x80 14x14x96 1 0 1.960828 2.252894 2.629948 3.671512 4.288940 5.089503
14x14x96 14x14x96 1 1 2.454701 2.791579 3.234655 4.923289 5.644624 6.646711
14x14x96 7x7x192 2 0 1.647656 1.754627 1.901754 3.243451 3.490510 3.787692
7x7x192 7x7x192 1 1 2.053791 2.240698 2.456553 3.800041 4.164374 4.692726
7x7x192 7x7x320 1 0 2.644078 2.828924 3.049829 4.876943 5.264773 5.828078
"""
FIXED = {
    "Conv-input:224x224x3-output:112x112x32": 4.083756,
    "Conv_1-input:7x7x320-output:7x7x1280": 3.088623,
    "Logits-input:7x7x1280-output:1000": 0.309642,
    "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0": 3.882135,
}
IMAGENET = (224, 224, 3)
SPACE = proxyless_space()


def published():
    entries = dict(FIXED)
    for line in PUBLISHED.split("\n")[1:-1]:
        given, out, stride, skip, *values = line.split()
        for (expand, kernel), value in zip(itertools.product((3, 6), (3, 5, 7)), values, strict=True):
            block = f"expanded_conv-input:{given}-output:{out}-expand:{expand}-kernel:{kernel}"
            entries[f"{block}-stride:{stride}-idskip:{skip}"] = float(value)
    return LatencyTable(entries, {"device": "phone"})


@pytest.fixture(scope="module")
def table():
    return latency_cost(published(), SPACE, IMAGENET)


def all_of(name):
    names = SPACE.about.operations["entry"]
    return {kind: np.full(leaf.shape[0], names.index(name)) for kind, leaf in SPACE.choices.items()}


def test_sums_of_the_published_table(table):
    assert table.fixed == pytest.approx(11.364156, abs=5e-7)
    assert costs.cost(table, all_of("7x7_e6")) == pytest.approx(191.029871, abs=5e-6)
    assert costs.cost(table, all_of("3x3_e3")) == pytest.approx(76.048099, abs=5e-6)
    uniform = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1 / leaf.shape[1]), SPACE.choices)
    assert float(costs.expected_cost(table, uniform)) == pytest.approx(113.988129, abs=5e-5)
    np.testing.assert_array_equal(table.table["inner"][:, 6], 0)


@pytest.mark.parametrize(
    ("form", "expected", "value"),
    [("mul#log", 100, 0.40600482), ("mul#log", 60, 0.39193374), ("add#linear", 100, 2.025), ("mul#log", 80, 0.4)],
)
def test_losses_of_the_released_code(form, expected, value):
    """Cross-entropy 2, reference 80 ms: one decision whose every operation takes what is left of E."""
    cost = costs.tables.CostTable(float(expected - 1), {"entry": np.ones((1, 2))})
    objective = latency_objective(cost, 80.0, form)
    assert float(objective(jnp.array(2.0), {"entry": jnp.zeros((1, 2))}, None)) == pytest.approx(value, abs=2e-7)


def test_gradients_are_those_of_the_formula(table):
    logits = jax.tree.map(lambda leaf: 0.1 * jnp.sin(jnp.arange(float(leaf.size))).reshape(leaf.shape), SPACE.choices)
    loss, reference = jnp.array(2.0), 80.0
    probabilities = jax.tree.map(jax.nn.softmax, logits)
    expected = float(costs.expected_cost(table, probabilities))
    slope = jax.grad(lambda z: costs.expected_cost(table, jax.tree.map(jax.nn.softmax, z)))(logits)
    factors = {
        "mul#log": 0.2 * 2 * 0.3 * (math.log(expected) / math.log(80)) ** -0.7 / (expected * math.log(80)),
        "add#linear": 0.1 / reference,
        "limit": 1 / reference,
    }
    for form, factor in factors.items():
        found = jax.grad(lambda z, form=form: latency_objective(table, reference, form)(loss, z, None))(logits)
        jax.tree.map(lambda a, b, f=factor: np.testing.assert_allclose(a, f * b, rtol=2e-4, atol=1e-9), found, slope)
    below = jax.grad(lambda z: latency_objective(table, 150.0, "limit")(loss, z, None))(logits)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(below))


def test_a_pair_restricts_the_expectation():
    cost = costs.tables.CostTable(5.0, {"entry": np.array([[1.0, 2.0, 4.0]])})
    logits = {"entry": jnp.array([[0.3, -0.2, 0.9]])}
    pair = {"entry": jnp.array([[2, 0]])}
    paths = Paths(None, logits, Paths(pair, jax.tree.map(jnp.zeros_like, pair)))
    objective = latency_objective(cost, 2.0, "add#linear", weight=1.0)
    share = math.exp(0.9) / (math.exp(0.9) + math.exp(0.3))
    expected = 5 + 4 * share + 1 * (1 - share)
    assert float(objective(jnp.array(0.0), logits, paths)) == pytest.approx((expected - 2) / 2, rel=1e-6)
    slope = jax.grad(lambda z: objective(jnp.array(0.0), z, paths))(logits)["entry"][0]
    assert float(slope[1]) == 0
    assert float(slope[2]) == pytest.approx(share * (1 - share) * 3 / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda cost: latency_objective(cost, 80, "add#log"), "form must be one of"),
        (lambda cost: latency_objective(cost, 1.0), "above 1 ms"),
        (lambda cost: latency_objective(cost, -1.0, "limit"), "above 0 ms"),
        (lambda cost: latency_objective(cost._replace(fixed=0.0), 80), "cheapest architecture takes 0.5"),
    ],
)
def test_bad_objectives_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(costs.tables.CostTable(5.0, {"entry": np.array([[0.5, 2.0]])}))


def test_a_missing_entry_is_named():
    with pytest.raises(ValueError, match="phone has no entry 'expanded_conv-input:112x112x16-output:56x56x32-expand:3"):
        latency_cost(published(), proxyless_space((32, 40, 80, 96, 192, 320)), IMAGENET)
    with pytest.raises(ValueError, match="does not name its blocks"):
        space_parts(darts_space(4, 3), (32, 32, 3))


def test_files_of_both_forms(tmp_path):
    table = published()
    write_latency(tmp_path / "own.json", table)
    again = read_latency(tmp_path / "own.json")
    assert again == table
    released = {key: {"count": 164, "mean": value, "var": 0.1} for key, value in table.entries.items()}
    (tmp_path / "released.json").write_text(json.dumps(released))
    assert read_latency(tmp_path / "released.json").entries == table.entries
    lines = [f"{key}: {{count: 164, mean: {value}, var: 0.1}}" for key, value in table.entries.items()]
    (tmp_path / "released.yaml").write_text("\n".join(lines))
    assert read_latency(tmp_path / "released.yaml").entries == table.entries


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": {"mean": -1}}', "entry 'a' is"),
        ('{"a": "fast"}', "entry 'a' is"),
        ("{", "neither JSON nor YAML"),
        ("- a\n- b", "holds list"),
        ('{"format": "other"}', "format is 'other'"),
        ('{"format": "jaxnas latency 1", "entries": {}}', "has no entries"),
        ('{"format": "jaxnas latency 1", "entries": [1.0]}', "entries is list, expected one entry by key"),
        ('{"a": {"mean": 1.0}, "b": 2.0, "a": {"mean": 3.0}}', "bad has the entry 'a' 2 times"),
        ("a: {mean: 1.0}\nb: 2.0\na: {mean: 3.0}", "bad has the entry 'a' 2 times"),
        ("a: {mean: 1.0, mean: 2.0}", "bad has the entry 'mean' 2 times"),
        ('{"a": true}', "entry 'a' is True"),
        ('{"a": NaN}', "entry 'a' is nan"),
        ("\xff\xfe", "bad is neither JSON nor YAML: 'utf-8' codec"),
    ],
)
def test_bad_files_are_one_line(content, message, tmp_path):
    (tmp_path / "bad").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_latency(tmp_path / "bad")
    with pytest.raises(ValueError, match="there is no latency table"):
        read_latency(tmp_path / "missing")


SMALL = {
    "widths": (4,),
    "blocks": (2,),
    "strides": (1,),
    "stem_channels": 4,
    "stem_stride": 1,
    "first_channels": 4,
    "last_channels": 8,
    "num_classes": 3,
    "kernels": (3, 5),
    "expansions": (2,),
}


def test_every_block_is_measured_once_and_sums_to_a_cost(tmp_path, capsys):
    space = proxyless_space(**SMALL)
    out = tmp_path / "table.json"
    settings = [f"{name}={value}".replace(" ", "") for name, value in SMALL.items()]
    arguments = ["--image", "8", "8", "1", "--batch", "2", "--repeats", "3", "--out", str(out), "--set", *settings]
    assert command(arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    table = read_latency(out)
    assert shown["entries"] == len(table.entries) == 6
    assert {"device", "jax", "batch", "dtype", "statistic"} <= set(table.about)
    cost = latency_cost(table, space, (8, 8, 1))
    arch = {"inner": np.array([0, 2])}
    fixed, rows = space_parts(space, (8, 8, 1))
    expected = sum(table.entries[part.key] for part in fixed) + table.entries[rows["inner"][0][0].key]
    assert costs.cost(cost, arch) == pytest.approx(expected)
    times = measure_networks(space, [arch, arch], (8, 8, 1), rounds=3, repeats=2)
    assert times.shape == (3, 2)
    assert np.all(times > 0)
    assert command(["--space", "proxyles", "--out", str(out)]) == 2
    assert command(["--set", "widths", "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(ValueError, match="at least 1"):
        measure_space(space, (8, 8, 1), batch_size=0)
    with pytest.raises(ValueError, match="dtype 'float64' needs 64-bit JAX"):
        measure_space(space, (8, 8, 1), dtype="float64")
    with pytest.raises(ValueError, match="rounds and repeats must be at least 1"):
        measure_networks(space, [arch], (8, 8, 1), rounds=0)
