"""Costs of architectures against sums by hand, shapes of real networks, and what XLA counts."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import CostTable
from jaxnas.costs import cost, count_parameters, expected_cost, space_tables
from jaxnas.ops import (
    BatchNorm,
    Block,
    Classifier,
    ConvNorm,
    DilConv,
    FactorizedReduce,
    Identity,
    MBConv,
    Pool,
    SepConv,
    Squeeze,
    Style,
    Zero,
    conv,
    from_linen,
)
from jaxnas.spaces.darts import darts_space, snas_space

TABLE = CostTable(100, {"cell": np.array([[0, 1, 2], [0, 30, 50]]), "head": np.array([[7, 1000, 2]])})
IMAGES = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def _every_arch():
    for a, b, c in itertools.product(range(3), repeat=3):
        yield {"cell": np.array([a, b]), "head": np.array([c])}


# Tables


def test_cost_is_the_fixed_part_and_one_entry_per_decision():
    found = cost(TABLE, {"cell": np.array([2, 1]), "head": [0]})
    assert found == 100 + 2 + 30 + 7
    assert found.dtype == np.int64
    assert cost(CostTable(0.5, np.array([[0.25, 1.0]])), jnp.array([0])) == 0.75


def test_cost_is_exact_where_floats_are_not():
    table = CostTable(1, np.array([[2**60 + 1, 0], [2**60 + 2, 0]]))
    assert cost(table, np.array([0, 0])) == 2**61 + 4


def test_cost_under_jit_and_vmap_equals_the_exact_one():
    jitted = jax.jit(lambda arch: cost(TABLE, arch))
    archs = list(_every_arch())
    for arch in archs[::5]:
        found = jitted(arch)
        assert found.dtype == jnp.int32
        assert int(found) == cost(TABLE, arch)
    population = jax.tree.map(lambda *leaves: np.stack(leaves), *archs)
    exact = [cost(TABLE, arch) for arch in archs]
    for batched in (cost(TABLE, population), jitted(population), jax.vmap(lambda a: cost(TABLE, a))(population)):
        np.testing.assert_array_equal(batched, exact)


def test_traced_cost_stays_exact_with_64_bits():
    large = CostTable(2**31, {"cell": np.array([[1, 3], [2**31 + 5, 7]])})
    cell = {"cell": np.array([0, 0], np.int32)}
    with jax.enable_x64(True):
        found = jax.jit(lambda arch: cost(large, arch))(cell)
        small = jax.jit(lambda arch: cost(TABLE, arch))(next(_every_arch()))
    assert found.dtype == jnp.int64
    assert int(found) == 2**32 + 6
    assert small.dtype == jnp.int32


def test_traced_cost_turns_to_floats_rather_than_overflow():
    table = CostTable(0, np.array([[2**31 - 1, 5], [3, 1]]))
    found = jax.jit(lambda arch: cost(table, arch))(np.array([0, 0]))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 2**31 + 2, rtol=1e-6)
    clipped = jax.jit(lambda arch: cost(table, arch))(np.array([9, -9]))
    assert int(clipped) == 5 + 3  # the nearest operations that exist


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ({"cell": np.array([0, 0])}, "structure"),
        ({"cell": np.array([0]), "head": np.array([0])}, r"integers \[..., 2\], got int64 \[1\]"),
        ({"cell": np.array([0.0, 1.0]), "head": np.array([0])}, "got float64"),
        ({"cell": np.array([0, 3]), "head": np.array([0])}, r"0\.\.2, got \[0, 3\]"),
        ({"cell": np.array([0, -1]), "head": np.array([0])}, r"0\.\.2, got \[0, -1\]"),
    ],
)
def test_cost_refuses_what_is_no_architecture(arch, message):
    with pytest.raises(ValueError, match=message):
        cost(TABLE, arch)


def test_traced_cost_checks_shapes():
    with pytest.raises(ValueError, match=r"integers \[..., 2\]"):
        jax.eval_shape(lambda a: cost(TABLE, a), {"cell": np.array([0]), "head": np.array([0])})


def _probabilities(seed):
    rng = np.random.default_rng(seed)
    rows = {"cell": rng.dirichlet(np.ones(3), 2), "head": rng.dirichlet(np.ones(3), 1)}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), rows)


def test_expected_cost_is_the_mean_over_all_architectures():
    p = _probabilities(0)
    mean = 0.0
    for arch in _every_arch():
        picked = jax.tree.map(lambda leaf, chosen: leaf[np.arange(len(chosen)), chosen], p, arch)
        mean += math.prod(float(jnp.prod(leaf)) for leaf in jax.tree.leaves(picked)) * float(cost(TABLE, arch))
    np.testing.assert_allclose(expected_cost(TABLE, p), mean, rtol=1e-6)


def test_expected_cost_of_one_hot_choices_is_the_cost():
    for arch in _every_arch():
        one_hot = jax.tree.map(lambda leaf: np.eye(3, dtype=np.float32)[leaf], arch)
        assert float(expected_cost(TABLE, one_hot)) == cost(TABLE, arch)


def test_gradient_of_the_expected_cost_is_the_table():
    grads = jax.jit(jax.grad(lambda p: expected_cost(TABLE, p)))(_probabilities(0))
    jax.tree.map(np.testing.assert_array_equal, grads, TABLE.table)


def test_expected_cost_lifts_over_a_batch_and_sums_in_float32():
    rows = [_probabilities(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    found = jax.jit(jax.vmap(lambda p: expected_cost(TABLE, p)))(stacked)
    np.testing.assert_allclose(found, [expected_cost(TABLE, p) for p in rows], rtol=1e-6)
    coarse = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), rows[0])
    assert expected_cost(TABLE, coarse).dtype == jnp.float32


def test_expected_cost_refuses_other_shapes():
    with pytest.raises(AssertionError, match="shape"):
        expected_cost(TABLE, {"cell": jnp.ones((3, 2)), "head": jnp.ones((1, 3))})


def test_count_parameters_takes_arrays_and_shapes():
    tree = {"a": jnp.zeros((2, 3)), "b": [np.zeros(4), jax.ShapeDtypeStruct((), jnp.float32)], "c": {}, "d": None}
    assert count_parameters(tree) == 6 + 4 + 1
    assert count_parameters({}) == 0


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 0), (32, -1, 3), (32.0, 32, 3)])
def test_space_tables_refuses_other_image_shapes(shape):
    with pytest.raises(ValueError, match="image_shape must be"):
        space_tables(snas_space(), shape)


def test_space_tables_of_a_space_without_costs():
    space = snas_space()
    bare = space._replace(about=space.about._replace(name="mine", costs=None))
    with pytest.raises(ValueError, match="'mine' has no cost tables"):
        space_tables(bare, (32, 32, 3))


# Tables of the spaces against their networks


def _random_arch(seed):
    rng = np.random.default_rng(seed)
    return {kind: rng.integers(0, 8, 14) for kind in ("normal", "reduce")}


def _calls(module):
    """What a network runs: `(block, channels, height, width)` of every block that no other block calls."""
    found, depth = [], []

    def record(next_fun, args, kwargs, context):
        called = context.module
        outermost = isinstance(called, Block | Classifier) and context.method_name == "__call__" and not depth
        if not outermost:
            return next_fun(*args, **kwargs)
        _, height, width, channels = args[0].shape
        found.append((called, channels, height, width))
        depth.append(called)
        try:
            return next_fun(*args, **kwargs)
        finally:
            depth.pop()

    with nn.intercept_methods(record):
        variables = jax.eval_shape(module.init, jax.random.key(0), IMAGES)
    return variables, found


def _multiply_adds(jaxpr) -> int:
    """Products that the convolutions and matrix products of a program take, padding included, per example."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            kernel, out_axis = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec[0]
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[out_axis]
        elif eqn.primitive.name == "dot_general":
            left = eqn.invars[0].aval.shape
            contracted = math.prod(left[axis] for axis in eqn.params["dimension_numbers"][0][0])
            total += math.prod(eqn.outvars[0].aval.shape) * contracted
        for inner in eqn.params.values():
            inner = getattr(inner, "jaxpr", inner)
            total += _multiply_adds(inner) if hasattr(inner, "eqns") else 0
    return total


@pytest.mark.parametrize(("factory", "seed"), [(darts_space, 0), (snas_space, 1)])
def test_tables_agree_with_the_network_in_three_ways(factory, seed):
    space, arch = factory(channels=4, cells=3, num_classes=7, lowering="lax"), _random_arch(seed)
    tables = space_tables(space, (32, 32, 3))
    parameters, macs = (cost(tables[name], arch) for name in ("parameters", "macs"))
    module = space.about.network(arch).module
    variables, calls = _calls(module)
    assert parameters == count_parameters(variables["params"])
    singles = [b.cost(*size[:1]) if isinstance(b, Classifier) else b.cost(*size) for b, *size in calls]
    assert (sum(one.parameters for one in singles), sum(one.macs for one in singles)) == (parameters, macs)
    assert _multiply_adds(jax.make_jaxpr(module.apply)(variables, IMAGES).jaxpr) == macs


@pytest.mark.parametrize("seed", range(3))
def test_parameters_do_not_depend_on_the_image_and_multiply_adds_follow_its_area(seed):
    space, arch = snas_space(), _random_arch(seed)
    small, large = (space_tables(space, (side, side, 3)) for side in (32, 64))
    assert cost(small["parameters"], arch) == cost(large["parameters"], arch)
    classifier = Classifier(10).cost(4 * 64).macs
    assert cost(large["macs"], arch) - classifier == 4 * (cost(small["macs"], arch) - classifier)


# Single operations against XLA


def _flops(function, *args) -> float:
    return jax.jit(function).lower(*args).cost_analysis().get("flops", 0.0)


def _block_flops(block, x) -> float:
    op = from_linen(block)
    return _flops(op.apply, jax.eval_shape(op.init, jax.random.key(0), x), x)


def _beside(block, stages: int, x) -> float:
    """What a block spends on ReLU and normalisation, of which the last is on the output grid."""
    out = jax.eval_shape(lambda x: x[:, :: block.stride, :: block.stride], x)
    grids = [out] if stages == 1 else [out, out]
    norms = sum(_block_flops(BatchNorm(block.features, 1, block.style), grid) for grid in grids)
    return norms + sum(_flops(jax.nn.relu, grid) for grid in [x, *grids][:stages])


LAX = Style(lowering="lax")


@pytest.mark.parametrize("block", [ConvNorm(16, 1, LAX), ConvNorm(16, 2, LAX), FactorizedReduce(16, 2, LAX)])
def test_pointwise_blocks_count_what_xla_counts(block):
    x = jax.ShapeDtypeStruct((1, 32, 32, 16), jnp.float32)
    assert (_block_flops(block, x) - _beside(block, 1, x)) / 2 == block.cost(16, 32, 32).macs


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kind", "kernel", "stages"), [(ConvNorm, 3, 1), (SepConv, 3, 2), (SepConv, 5, 2), (DilConv, 3, 1), (DilConv, 5, 1)]
)
def test_blocks_count_the_padding_that_xla_leaves_out(kind, kernel, stages, stride):
    block, x = kind(16, stride, LAX, kernel=kernel), jax.ShapeDtypeStruct((1, 32, 32, 16), jnp.float32)
    counted = (_block_flops(block, x) - _beside(block, stages, x)) / 2
    assert 0.88 < counted / block.cost(16, 32, 32).macs < 1.0


def test_convolution_without_padding_counts_what_xla_counts():
    x, kernel = jax.ShapeDtypeStruct((1, 9, 9, 5), jnp.float32), jax.ShapeDtypeStruct((1, 1, 5, 7), jnp.float32)
    assert _flops(lambda x, k: conv(x, k, lowering="lax"), x, kernel) == 2 * ConvNorm(7, 1).cost(5, 9, 9).macs


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
@pytest.mark.parametrize("squeeze", [None, Squeeze(), Squeeze(0.5, of="input", divisor=1, gate=jax.nn.sigmoid)])
def test_inverted_bottlenecks_count_what_their_products_take(stride, squeeze):
    style = Style(lowering="lax", running=True, train=False)  # the statistics of a batch would take products, too
    block = MBConv(64, stride, style, kernel=(1, 3), expand=4, squeeze=squeeze)
    x = jax.ShapeDtypeStruct((1, 8, 8, 64), jnp.float32)
    variables = jax.eval_shape(block.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 8, 8, 64), jnp.float32))
    macs = block.cost(64, 8, 8).macs
    assert _multiply_adds(jax.make_jaxpr(block.apply)(variables, x).jaxpr) == macs
    # XLA leaves padded taps out and counts normalisation, activation and gates, each a few per value.
    assert 0.99 < _flops(block.apply, variables, x) / (2 * macs) < 1.1


@pytest.mark.parametrize("block", [Zero(8, 2), Identity(8), Pool(8, 1, kind="max"), Pool(8, 2, kind="avg")])
def test_operations_without_weights_cost_no_multiply_add(block):
    assert block.cost(8, 32, 32) == (0, 0)


def test_learned_normalisation_has_two_parameters_per_channel():
    affine = Style(affine=True)
    assert Pool(8, 1, affine).cost(8, 32, 32) == (16, 0)
    assert Pool(8, 1, affine, normalised=False).cost(8, 32, 32) == (0, 0)
    assert ConvNorm(8, 1, affine, kernel=3).cost(4, 32, 32) == (9 * 4 * 8 + 16, 9 * 4 * 8 * 32 * 32)
