"""Blocks against numpy, one product after the other."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.ops import FactorizedReduce, MBConv, SepConv, Style, from_linen

KEY = jax.random.key(4)
X = np.random.default_rng(6).normal(size=(3, 4, 6, 4))


def normalised(y, eps=1e-5):
    """Every channel with mean zero and variance one."""
    return (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + eps)


def depthwise(x, kernel, stride=1):
    """A depthwise convolution, padded with zeros."""
    side = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    height, width = x.shape[1:3]
    y = sum(padded[:, i : i + height, j : j + width] * kernel[i, j] for i in range(side) for j in range(side))
    return y[:, ::stride, ::stride]


def found(block):
    """The block's parameters and what it gives for `X`."""
    op = from_linen(block)
    params = jax.jit(op.init)(KEY, jnp.asarray(X, jnp.float32))
    # Scales and offsets apart from one and zero, and far enough for ReLU6 to cut.
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 6.0 + jnp.arange(leaf.size) if "norm" in str(path) else leaf, params
    )
    y = jax.jit(op.apply)(params, jnp.asarray(X, jnp.float32))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), y


def close(y, expected):
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_factorised_reduction_sees_even_and_odd_pixels():
    params, y = found(FactorizedReduce(6))
    x = np.maximum(X, 0)
    halves = [x[:, ::2, ::2] @ params["even"][0, 0], x[:, 1::2, 1::2] @ params["odd"][0, 0]]
    close(y, normalised(np.concatenate(halves, -1)))


def test_separable_convolution_is_two_rounds_and_the_first_strides():
    params, y = found(SepConv(6, 2, kernel=5))
    x = X
    for name, stride in (("first", 2), ("second", 1)):
        own = params[name]
        x = normalised(depthwise(np.maximum(x, 0), own["depthwise"], stride) @ own["pointwise"][0, 0])
    close(y, x)


def test_inverted_bottleneck_ends_its_first_two_layers_in_relu6():
    params, y = found(MBConv(5, 2, Style(affine=True), kernel=3, expand=2))

    def norm(name, y):
        return normalised(y) * params[name]["scale"] + params[name]["bias"]

    x = np.clip(norm("expand_norm", X @ params["expand"][0, 0]), 0, 6)
    assert (x == 6).mean() > 0.1
    x = np.clip(norm("depthwise_norm", depthwise(x, params["depthwise"], 2)), 0, 6)
    assert (x == 6).mean() > 0.1
    close(y, norm("project_norm", x @ params["project"][0, 0]))
