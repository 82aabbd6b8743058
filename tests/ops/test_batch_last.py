"""Operations with the examples innermost against the ones for `[B, H, W, C]` and against differentiation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import ops
from jaxnas.ops import batch_last

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((5, 6, 8, 3)), jnp.float32)


def last(x):
    return batch_last.images_last(x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 3])
def test_conv_and_its_gradients(side, stride):
    kernel = jnp.asarray(RNG.standard_normal((side, side, 3, 4)), jnp.float32)
    wanted, pull = jax.vjp(lambda x, k: last(ops.conv(x, k, stride=stride, lowering="lax")), X, kernel)
    found, own = jax.vjp(lambda x, k: batch_last.conv(last(x), k, stride), X, kernel)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    g = jnp.asarray(RNG.standard_normal(wanted.shape), jnp.float32)
    for one, other in zip(own(g), pull(g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("x", [X, X[:, :2, :2], X[:, :1]], ids=lambda x: str(x.shape))
def test_avg_pool_and_its_gradient(x):
    wanted, pull = jax.vjp(lambda x: last(ops.avg_pool(x, lowering="lax")), x)
    np.testing.assert_allclose(batch_last.avg_pool(last(x)), wanted, rtol=1e-5, atol=1e-6)
    g = jnp.asarray(RNG.standard_normal(wanted.shape), jnp.float32)
    np.testing.assert_allclose(batch_last.avg_pool_pull(g), last(pull(g)[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reference", [0, 2])
def test_norm_and_its_gradients(reference):
    x, scale, bias = last(X) + 3.0, jnp.float32([1.0, -2.0, 0.5]), jnp.float32([0.1, 0.2, 0.3])
    wanted, pull = jax.vjp(functools.partial(batch_last.norm, reference=reference), x, scale, bias)
    norm = ops.Norm(affine=True, reference=reference)
    plain = norm.apply({"params": {"scale": scale, "bias": bias}}, X + 3.0)
    np.testing.assert_allclose(wanted, last(plain), rtol=1e-4, atol=1e-5)
    g = jnp.asarray(RNG.standard_normal(wanted.shape), jnp.float32)
    for one, other in zip(batch_last.norm_pull(x, scale, g, reference), pull(g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_too_few_values_are_refused():
    with pytest.raises(ValueError, match="needs B\\*H\\*W >= 4, got 3"):
        batch_last.standardised(jnp.ones((2, 1, 1, 3)))
