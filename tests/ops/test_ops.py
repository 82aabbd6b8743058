"""The fast building blocks against the plain `lax` forms, in values and gradients, and blocks against their counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.ops import (
    BatchNorm,
    Classifier,
    ConvNorm,
    ConvNormAct,
    DilConv,
    FactorizedReduce,
    Identity,
    MBConv,
    Norm,
    Pool,
    PreActConv,
    PreActSepConv,
    SepConv,
    Squeeze,
    Style,
    Zero,
    avg_pool,
    batch_statistics,
    by_hand,
    conv,
    depthwise_conv,
    drop_path,
    from_linen,
    max_pool,
    normalise,
    pair,
)

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX

POOLS = {"max": max_pool, "avg": avg_pool}


def normal(number, shape, dtype=jnp.float32):
    """Fixed draws, made outside of the programs under test."""
    return jnp.asarray(np.random.default_rng(number).standard_normal(shape), dtype)


def value_and_pullback(fn, *args):
    """`fn(*args)` and the gradients of its product with fixed numbers."""
    y, pull = jax.vjp(fn, *args)
    return y, pull(normal(9, y.shape, y.dtype))


def compare(fn, *args, tolerance=1e-5):
    """Asserts that both lowerings of `fn(*args, lowering=...)` agree, relative to the greatest entry."""

    def both(*args):
        return [value_and_pullback(lambda *a, f=form: fn(*a, lowering=f), *args) for form in ("shifts", "lax")]

    for fast, plain in zip(*map(jax.tree.leaves, jax.jit(both)(*args)), strict=True):
        assert fast.shape == plain.shape
        assert fast.dtype == plain.dtype
        fast, plain = np.asarray(fast, np.float64), np.asarray(plain, np.float64)
        assert np.abs(fast - plain).max() <= tolerance * np.abs(plain).max()


@pytest.mark.parametrize(
    ("sides", "stride", "dilation"),
    [(1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (3, 3, 2), ((1, 5), (2, 1), 1), ((5, 3), (1, 2), 2)],
)
@pytest.mark.parametrize("size", [(8, 8), (7, 6)])
def test_depthwise_conv(sides, stride, dilation, size):
    x, kernel = normal(0, (2, *size, 3)), normal(1, (*pair(sides), 3))
    compare(lambda x, k, **kw: depthwise_conv(x, k, stride=stride, dilation=dilation, **kw), x, kernel)


@pytest.mark.parametrize(
    ("sides", "stride", "dilation"),
    [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (5, 2, 2), (1, (2, 1), 1), ((1, 5), (2, 1), 1), ((5, 3), (1, 3), 2)],
)
@pytest.mark.parametrize("size", [(8, 8), (7, 6)])
def test_conv(sides, stride, dilation, size):
    x, kernel = normal(0, (2, *size, 3)), normal(1, (*pair(sides), 3, 4))
    compare(lambda x, k, **kw: conv(x, k, stride=stride, dilation=dilation, **kw), x, kernel)


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize(
    ("window", "stride", "size"), [(3, 1, (7, 6)), (3, 2, (8, 8)), (3, 2, (7, 6)), (3, (1, 2), (7, 6)), (5, 1, (6, 6))]
)
def test_pools(kind, window, stride, size):
    pool = POOLS[kind]
    compare(lambda x, **kw: pool(x, window=window, stride=stride, **kw), normal(0, (2, *size, 3)))


@pytest.mark.parametrize(
    ("fn", "kernel_shape"), [(depthwise_conv, (3, 3, 2)), (conv, (3, 3, 2, 2)), (max_pool, None), (avg_pool, None)]
)
def test_output_grid_is_rounded_up(fn, kernel_shape):
    args = [jnp.ones(shape) for shape in ((1, 7, 6, 2), kernel_shape) if shape]
    assert jax.eval_shape(lambda *args: fn(*args, stride=2), *args).shape == (1, 4, 3, 2)


def test_average_leaves_padding_out():
    assert np.array_equal(avg_pool(jnp.full((1, 5, 4, 1), 3.0)), np.full((1, 5, 4, 1), 3.0, np.float32))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_max_pool_ties_go_to_the_first(levels, stride):
    x = jnp.asarray(np.random.default_rng(levels).integers(0, levels, (2, 7, 8, 2)), jnp.float32)
    compare(lambda x, **kw: max_pool(x, stride=stride, **kw), x, tolerance=1e-6)


@pytest.mark.parametrize("kind", POOLS)
def test_pools_keep_nan_where_lax_does(kind):
    x = normal(0, (2, 6, 6, 2)).at[0, 2, 3, 1].set(jnp.nan)
    fast, plain = (POOLS[kind](x, lowering=form) for form in ("shifts", "lax"))
    assert np.isnan(fast).sum() == 9
    np.testing.assert_allclose(fast, plain, rtol=1e-6)


@pytest.mark.parametrize("form", ["shifts", "lax"])
@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        (depthwise_conv, [(2, 6, 6, 8), (5, 5, 8)]),
        (conv, [(2, 6, 6, 8), (3, 3, 8, 4)]),
        (max_pool, [(2, 6, 6, 8)]),
        (avg_pool, [(2, 6, 6, 8)]),
    ],
)
def test_bfloat16_stays_and_stays_close(fn, shapes, form):
    args = [normal(i, shape, jnp.bfloat16) for i, shape in enumerate(shapes)]

    def both(args):
        wide = [arg.astype(jnp.float32) for arg in args]
        return value_and_pullback(lambda *a: fn(*a, lowering=form), *args), value_and_pullback(fn, *wide)

    half, full = jax.jit(both)(args)
    for narrow, wide in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        assert narrow.dtype == jnp.bfloat16
        if fn is not max_pool:  # rounding makes ties, and ties move gradients
            assert np.abs(np.asarray(narrow, np.float64) - wide).max() <= 2**-6 * np.abs(wide).max()


@pytest.mark.parametrize(
    ("fn", "kernel_shape"), [(conv, (3, 3, 3, 3)), (conv, (1, 1, 3, 3)), (depthwise_conv, (3, 3, 3))]
)
def test_convolutions_in_scan_equal_those_outside(fn, kernel_shape):
    x, kernels = normal(0, (2, 6, 6, 3)), normal(1, (3, *kernel_shape))

    def scanned(x, kernels):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(fn(x, kernel)), None), x, kernels)[0]

    def unrolled(x, kernels):
        for kernel in kernels:
            x = jnp.tanh(fn(x, kernel))
        return x

    pair = jax.jit(lambda *args: [value_and_pullback(form, *args) for form in (scanned, unrolled)])(x, kernels)
    for inside, outside in zip(*map(jax.tree.leaves, pair), strict=True):
        np.testing.assert_allclose(inside, outside, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fn", "kernel_shape"),
    [(conv, (3, 3, 2, 2)), (depthwise_conv, (3, 3, 2)), (max_pool, None), (avg_pool, None)],
)
def test_reverse_over_reverse(fn, kernel_shape):
    args = (normal(0, (1, 5, 6, 2)), *(() if kernel_shape is None else (normal(1, kernel_shape),)))

    def slope(form):
        def energy(args):
            return jnp.sum(jnp.tanh(fn(*args, stride=2, lowering=form)) ** 2)

        return jax.grad(lambda args: sum(jnp.sum(g**3) for g in jax.tree.leaves(jax.grad(energy)(args))))

    fast, plain = jax.jit(lambda args: (slope("shifts")(args), slope("lax")(args)))(args)
    for one, other in zip(fast, plain, strict=True):
        assert np.abs(other).max() > 0.01
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_variance_survives_an_offset():
    x = normal(0, (8, 16, 16, 3))
    mean, variance = batch_statistics(x + 5000.0)
    np.testing.assert_allclose(mean, 5000.0 + np.mean(x, (0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, np.var(x, (0, 1, 2)), rtol=1e-3)
    y = normalise(x + 5000.0, mean, variance)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1.0, rtol=1e-3)


def test_variance_survives_bfloat16():
    # At 64 neighbouring bfloat16 numbers lie 0.5 apart, and at 64^2 32 apart: E[x^2] - E[x]^2 would be lost.
    x = (64.0 + 2.0 * normal(0, (8, 16, 16, 3))).astype(jnp.bfloat16)
    mean, variance = batch_statistics(x)
    exact = np.asarray(x, np.float64)
    assert mean.dtype == variance.dtype == jnp.float32
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-4)
    assert normalise(x, mean, variance).dtype == jnp.bfloat16


def test_statistics_need_four_values():
    with pytest.raises(ValueError, match=r"B\*H\*W >= 4, got 3"):
        batch_statistics(jnp.ones((3, 1, 1, 2)))
    batch_statistics(jnp.ones((4, 1, 1, 2)))


def test_running_averages():
    x = 3.0 + 2.0 * normal(0, (16, 4, 4, 2))
    norm = Norm(running=True, momentum=0.75)
    variables = norm.init(jax.random.key(0), x)
    y, new = norm.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.25 * np.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.75 + 0.25 * np.var(x, (0, 1, 2)), rtol=1e-5)
    judged = Norm(running=True, train=False).apply(variables, x)
    np.testing.assert_allclose(judged, x, rtol=1e-4)


def swish_gate(ratio, **settings):
    """Squeeze-and-excitation of the expanded channels, or of the input's, with a plain sigmoid."""
    return Squeeze(ratio, divisor=1, activation=jax.nn.silu, gate=jax.nn.sigmoid, **settings)


BLOCKS = [
    Zero(4),
    Zero(4, (1, 2)),
    Identity(4),
    BatchNorm(4),
    Pool(4, (1, 2), kind="max"),
    Pool(4, 1, kind="avg", normalised=False),
    ConvNorm(6, 2, kernel=3),
    ConvNorm(6, (2, 1), kernel=(1, 3)),
    ConvNorm(6),
    FactorizedReduce(6),
    DilConv(6, 2, kernel=5),
    DilConv(6, (1, 2), kernel=(5, 1)),
    SepConv(6, 2, kernel=3),
    SepConv(6, (2, 1), kernel=(1, 3)),
    PreActConv(6, (2, 1), kernel=(1, 3), groups=2),
    PreActSepConv(6, (1, 2), kernel=(3, 1)),
    ConvNormAct(6, (1, 2), kernel=(3, 1)),
    MBConv(6, 2, kernel=3, expand=3),
    MBConv(6, 1, kernel=3, expand=1, squeeze=Squeeze()),
    MBConv(6, (2, 1), kernel=(1, 5), expand=3, squeeze=Squeeze()),
    MBConv(6, 1, kernel=3, expand=3, squeeze=swish_gate(0.5, of="input")),
]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{type(block).__name__}-{block.stride}")
def test_blocks_count_their_parameters_and_keep_their_grid(block, affine):
    block = block.clone(style=Style(affine=affine))
    op = from_linen(block)
    x = jax.ShapeDtypeStruct((2, 8, 6, 4), jnp.float32)
    params = jax.eval_shape(op.init, jax.random.key(0), x)
    y = jax.eval_shape(op.apply, params, x)
    down, across = pair(block.stride)
    assert y.shape == (2, 8 // down, 6 // across, block.features)
    assert jax.eval_shape(block.output, x) == y
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert block.cost(4, 8, 6).parameters == count


def test_classifier_averages_and_has_a_bias():
    x = normal(0, (3, 4, 5, 2))
    params = Classifier(7).init(jax.random.key(0), x)["params"]
    logits = Classifier(7).apply({"params": params}, x)
    expected = np.mean(x, (1, 2)) @ np.asarray(params["kernel"]) + np.asarray(params["bias"])[None]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert Classifier(7).cost(2) == (2 * 7 + 7, 2 * 7)


def test_drop_path_keeps_the_mean():
    y = np.asarray(drop_path(jax.random.key(3), jnp.ones((20_000, 1, 2), jnp.float32), 0.3))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / np.float32(0.7))}
    assert np.array_equal(y[..., 0], y[..., 1])  # whole examples
    error = np.sqrt(0.3 / 0.7 / len(y))
    assert abs(y[:, 0, 0].mean() - 1.0) < 4.5 * error


@pytest.mark.parametrize("form", ["shifts", "lax"])
def test_even_kernels_are_refused(form):
    with pytest.raises(ValueError, match=r"odd sides, got \(2, 3, 1\)"):
        depthwise_conv(jnp.ones((1, 4, 4, 1)), jnp.ones((2, 3, 1)), lowering=form)
    with pytest.raises(ValueError, match=r"odd sides, got \(2, 2, 1, 1\)"):
        conv(jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 1)), lowering=form)


def test_unknown_lowering_is_refused():
    with pytest.raises(ValueError, match="lowering must be 'auto', 'lax' or 'shifts', got 'fast'"):
        by_hand("fast")


def test_odd_reductions_are_refused():
    with pytest.raises(ValueError, match="even height and width, got 7x8"):
        FactorizedReduce(4).init(jax.random.key(0), jnp.ones((4, 7, 8, 4)))
    with pytest.raises(ValueError, match="even number of channels, got 5"):
        FactorizedReduce(5).init(jax.random.key(0), jnp.ones((4, 8, 8, 4)))
