"""Blocks against numpy, one product after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.ops import (
    ConvNorm,
    ConvNormAct,
    FactorizedReduce,
    MBConv,
    SepConv,
    Squeeze,
    Style,
    from_linen,
    pair,
    rounded_width,
)

KEY = jax.random.key(4)
X = np.random.default_rng(6).normal(size=(3, 4, 6, 4))


def normalised(y, eps=1e-5):
    """Every channel with mean zero and variance one."""
    return (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + eps)


def depthwise(x, kernel, stride=1):
    """A depthwise convolution, padded with zeros."""
    rows, columns, _ = kernel.shape
    padded = np.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    height, width = x.shape[1:3]
    y = sum(padded[:, i : i + height, j : j + width] * kernel[i, j] for i in range(rows) for j in range(columns))
    down, across = pair(stride)
    return y[:, ::down, ::across]


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


def hard_sigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


@pytest.mark.parametrize(
    ("squeeze", "hidden", "inner", "gate"),
    [
        (Squeeze(), 8, lambda x: np.maximum(x, 0), hard_sigmoid),
        (Squeeze(0.5, of="input", divisor=1, activation=jax.nn.silu, gate=jax.nn.sigmoid), 2, swish, sigmoid),
    ],
)
def test_squeeze_and_excitation_weights_the_channels_before_they_are_projected(squeeze, hidden, inner, gate):
    block = MBConv(5, (2, 1), kernel=(1, 3), expand=3, activation=jax.nn.silu, squeeze=squeeze)
    params, y = found(block)
    x = swish(normalised(X @ params["expand"][0, 0]))
    x = swish(normalised(depthwise(x, params["depthwise"], (2, 1))))
    own = params["squeeze"]
    assert own["squeeze_kernel"].shape == (12, hidden)
    reduced = inner(x.mean((1, 2)) @ own["squeeze_kernel"] + own["squeeze_bias"])
    factors = gate(reduced @ own["excite_kernel"] + own["excite_bias"])
    assert np.ptp(factors) > 0.1
    close(y, normalised((x * factors[:, None, None]) @ params["project"][0, 0]))


def test_activations_before_and_after_a_convolution():
    params, y = found(ConvNorm(5, activation=jax.nn.silu))
    close(y, normalised(swish(X) @ params["kernel"][0, 0]))
    params, y = found(ConvNormAct(5, kernel=1, activation=jax.nn.silu))
    close(y, swish(normalised(X @ params["kernel"][0, 0])))


def test_widths_are_rounded_to_multiples_and_never_below_nine_tenths():
    assert [rounded_width(width) for width in (3, 8, 11, 12, 20, 24, 100)] == [8, 8, 16, 16, 24, 24, 104]
    assert rounded_width(7.4, 1) == 7
