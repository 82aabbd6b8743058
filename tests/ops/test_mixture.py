"""The mixture of an edge evaluated together, against the sum of its operations in plain `lax` form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.ops import (
    BatchNorm,
    ConvNorm,
    DilConv,
    FactorizedReduce,
    Identity,
    Pool,
    SepConv,
    Style,
    Zero,
    from_linen,
    mixture,
)
from jaxnas.ops._mixture import mix_normalised
from jaxnas.ops.sums import channel_sum


def blocks(stride, lowering):
    """One block of each kind; those that change the number of channels do."""
    style = Style(lowering=lowering)
    kinds = [
        Zero(4, stride, style),
        Pool(4, stride, style, kind="max"),
        Pool(4, stride, style, kind="avg", normalised=False),
        FactorizedReduce(4, 2, style) if stride == 2 else Identity(4, 1, style),
        SepConv(4, stride, style, kernel=3),
        DilConv(4, stride, style, kernel=5),
        ConvNorm(4, stride, style, kernel=3),
    ]
    return kinds if stride == 2 else [*kinds, BatchNorm(4, 1, style)]


def normal(seed, shape):
    """Fixed draws with a mean and a spread of their own per channel."""
    draws = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(draws * (1 + np.arange(shape[-1])) + np.arange(shape[-1]) - 1, jnp.float32)


@pytest.mark.parametrize(("stride", "batch"), [(1, 3), (2, 4)])
def test_mixture_equals_the_sum(stride, batch):
    x, upstream = normal(0, (batch, 6, 8, 4)), normal(1, (batch, 6 // stride, 8 // stride, 4))
    plain = [from_linen(block) for block in blocks(stride, "lax")]
    params = [op.init(jax.random.key(k), x) for k, op in enumerate(plain)]
    weight = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, len(plain)), jnp.float32)
    together = mixture(tuple(blocks(stride, "shifts")))

    def one_by_one(weight, params, x):
        return sum(w * op.apply(own, x) for w, op, own in zip(weight, plain, params, strict=True))

    def graded(fn):
        y, pull = jax.vjp(fn, weight, params, x)
        return y, pull(upstream)

    found, wanted = jax.jit(lambda: (graded(together), graded(one_by_one)))()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        scale = max(np.abs(other).max(), 1e-3)  # the gradient of the weight of `none` is zero
        np.testing.assert_allclose(one / scale, other / scale, atol=2e-5)


def test_mixture_is_refused_where_norms_differ():
    assert mixture(tuple(blocks(1, "lax"))) is None
    for style in (Style(affine=True), Style(reference=2), Style(running=True)):
        assert mixture(tuple(block.clone(style=style) for block in blocks(1, "shifts"))) is None


def test_mix_of_normalised_is_differentiable_twice():
    xs, weight = (normal(0, (2, 3, 4, 2)), normal(1, (2, 3, 4, 2))), jnp.array([0.7, -0.4])

    def plain(weight, xs):
        def standard(x):
            return (x - x.mean((0, 1, 2))[None, None, None]) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)[None, None, None]

        return sum(w * standard(x) for w, x in zip(weight, xs, strict=True))

    def slope(fn):
        def energy(args):
            return jnp.sum(jnp.tanh(fn(*args)) ** 2)

        return jax.grad(lambda args: sum(jnp.sum(g**3) for g in jax.tree.leaves(jax.grad(energy)(args))))

    fast, exact = jax.jit(lambda args: (slope(lambda *a: mix_normalised(1e-5, *a))(args), slope(plain)(args)))(
        (weight, xs)
    )
    for one, other in zip(jax.tree.leaves(fast), jax.tree.leaves(exact), strict=True):
        assert np.abs(other).max() > 0.01
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


def test_mix_of_normalised_survives_an_offset():
    x = normal(0, (8, 6, 6, 2))
    near, far = (mix_normalised(1e-5, jnp.ones(1), (x + offset,)) for offset in (0.0, 3000.0))
    np.testing.assert_allclose(near, far, atol=2e-3)


@pytest.mark.parametrize("batch", [1, 3, 8, 10])
def test_channel_sum(batch):
    x, y = normal(0, (batch, 5, 12)), normal(1, (batch, 5, 12))
    found = channel_sum(jnp.multiply, 3, x, y)
    wanted = (np.asarray(x, np.float64) * np.asarray(y)).reshape(-1, 3).sum(0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
