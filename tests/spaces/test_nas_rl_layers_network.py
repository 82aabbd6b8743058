"""The stand-alone network of NAS-RL's layers is the one that numpy computes, and its counts are exact."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.costs import count_parameters
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl import PUBLISHED_NETWORKS, nas_rl_space
from jaxnas.spaces.nas_rl.layer_network import depth_concatenation

KEY = jax.random.key(0)
BATCH, HEIGHT, WIDTH, CHANNELS, CLASSES = 3, 7, 6, 2, 3
EPS = 1e-5


# The network by hand, in numpy and float64.


def _convolve(x, kernel, strides=(1, 1)):
    """`sum_ij x[i + ., j + .] kernel[i, j]` over an image with zeros around it, at every stride-th pixel."""
    h, w = kernel.shape[:2]
    padded = np.pad(x, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    full = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i, j in itertools.product(range(h), range(w)):
        full += padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
    return full[:, :: strides[0], :: strides[1]]


def _normalise(x, norm):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + EPS) * norm["scale"] + norm["bias"]


def _layer(weights, x, *, strides=(1, 1), order="conv_bn_relu"):
    y = _convolve(x, weights["kernel"], strides)
    if order == "conv_bn_relu":
        return np.maximum(_normalise(y, weights["norm"]), 0)
    return _normalise(np.maximum(y, 0), weights["norm"])


def _pool(x):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
    return np.stack([np.stack([padded[:, i : i + 3, j : j + 3].max((1, 2)) for j in columns], 1) for i in rows], 1)


def _classify(params, x):
    return x.mean((1, 2)) @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def _depth(*images):
    return np.concatenate(images, -1)


def _problem(text, num_layers, **settings):
    """A space, its network of a text as a child has it, images, and parameters away from their first values."""
    space = nas_rl_space(num_layers, CLASSES, filters=(2, 3, 4), **settings)
    network = space.about.network(space.about.parse(text), running=False)
    x = jax.random.normal(KEY, (BATCH, HEIGHT, WIDTH, CHANNELS))
    params = network.init(KEY, x)["params"]
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), params)
    logits, _ = jax.jit(functools.partial(network.apply, train=True))({"params": params}, x)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return wide, np.asarray(x, np.float64), logits


@pytest.mark.parametrize("order", ["conv_bn_relu", "conv_relu_bn"])
def test_a_network_with_an_orphan_and_two_readers_of_the_image(order):
    params, x, logits = _problem("|3x5 2|1x7 3 from 0|5x3 4|3x3 2 from 0,2|", 4, order=order)
    run = functools.partial(_layer, order=order)
    y0 = run(params["layer0"]["conv0"], x)
    y1 = run(params["layer1"]["conv0"], y0)  # read by nobody
    y2 = run(params["layer2"]["conv0"], x)  # rule 1
    y3 = run(params["layer3"]["conv0"], _depth(y0, y2))
    np.testing.assert_allclose(logits, _classify(params, _depth(y1, y3)), rtol=1e-4, atol=1e-5)  # rule 2


def test_a_network_with_strides_pads_below_and_at_the_right():
    params, x, logits = _problem("|3x3/2x1 2|3x5/1x3 3|5x3/1x2 4 from 0,1|1x1/3x1 2 from 0|", 4, strides=(1, 2, 3))
    y0 = _layer(params["layer0"]["conv0"], x, strides=(2, 1))
    y1 = _layer(params["layer1"]["conv0"], x, strides=(1, 3))
    assert (y0.shape[1:3], y1.shape[1:3]) == ((4, 6), (7, 2))
    both = np.zeros((BATCH, 7, 6, 5))
    both[:, :4, :, :2], both[:, :, :2, 2:] = y0, y1
    y2 = _layer(params["layer2"]["conv0"], both, strides=(1, 2))
    y3 = _layer(params["layer3"]["conv0"], y0, strides=(3, 1))
    assert (y2.shape[1:3], y3.shape[1:3]) == ((7, 3), (2, 6))
    last = np.zeros((BATCH, 7, 6, 6))
    last[:, :, :3, :4], last[:, :2, :, 4:] = y2, y3
    np.testing.assert_allclose(logits, _classify(params, last), rtol=1e-4, atol=1e-5)


def test_everything_that_is_read_beyond_a_pooling_passes_it():
    params, x, logits = _problem("|3x3 2|3x5 3 from 0|1x3 4 from 0|3x1 2|3x3 3 from 1,2|", 5, pooling=(2, 4, 5))
    y0 = _layer(params["layer0"]["conv0"], x)
    y1 = _layer(params["layer1"]["conv0"], y0)
    y2 = _layer(params["layer2"]["conv0"], _pool(y0))
    y3 = _layer(params["layer3"]["conv0"], _pool(x))
    y4 = _layer(params["layer4"]["conv0"], _depth(_pool(_pool(y1)), _pool(y2)))
    np.testing.assert_allclose(logits, _classify(params, _depth(_pool(y3), y4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_a_layer_of_three_convolutions_is_densely_connected(strides):
    down, across = strides
    text = f"|3x3/{down}x{across} 2|1x3/1x1 3 from 0|"
    params, x, logits = _problem(text, 2, strides=(1, 2), convolutions=3)

    def block(weights, x, strides):
        a = _layer(weights["conv0"], x, strides=strides)
        near = x[:, :: strides[0], :: strides[1]]
        b = _layer(weights["conv1"], _depth(near, a))
        return _depth(a, b, _layer(weights["conv2"], _depth(near, a, b)))

    y = block(params["layer1"], block(params["layer0"], x, strides), (1, 1))
    assert y.shape == (BATCH, 4 if down == 2 else 7, 6, 9)
    np.testing.assert_allclose(logits, _classify(params, y), rtol=1e-4, atol=1e-5)


def test_zeros_stand_below_and_at_the_right():
    images = [jnp.ones((1, 3, 1, 1)), 2 * jnp.ones((1, 1, 2, 2))]
    found = depth_concatenation(images)
    np.testing.assert_array_equal(found[0, :, :, 0], [[1, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(found[0, :, :, 2], [[2, 2], [0, 0], [0, 0]])


# Counts


def test_counts_by_hand():
    space = nas_rl_space(3, CLASSES, filters=(2, 3), strides=(1, 2))
    arch = space.about.parse("|3x5/2x1 2|1x3/1x1 3|5x5/1x2 2 from 0,1|")
    # Kernel, inputs, filters; layer 2 reads (4, 6) beside (7, 6).
    weights = 3 * 5 * 2 * 2, 1 * 3 * 2 * 3, 5 * 5 * 5 * 2
    dense = 2 * CLASSES
    found = space.about.counts(arch, (HEIGHT, WIDTH, CHANNELS))
    assert found["parameters"] == sum(weights) + 2 * (2 + 3 + 2) + dense + CLASSES
    assert found["macs"] == weights[0] * 4 * 6 + weights[1] * 7 * 6 + weights[2] * 7 * 3 + dense
    assert space.about.counts(arch, (HEIGHT, WIDTH, CHANNELS), affine=False)["parameters"] == (
        sum(weights) + dense + CLASSES
    )


def test_counts_of_a_block_by_hand():
    space = nas_rl_space(2, CLASSES, filters=(2, 3), strides=(1, 2), convolutions=3)
    arch = space.about.parse("|3x5/2x1 2|1x3/1x1 3|")  # both read the image
    found = space.about.counts(arch, (HEIGHT, WIDTH, CHANNELS))
    first = [15 * inputs * 2 for inputs in (2, 2 + 2, 2 + 4)]
    second = [3 * inputs * 3 for inputs in (2, 2 + 3, 2 + 6)]
    dense = (6 + 9) * CLASSES
    assert found["parameters"] == sum(first + second) + 2 * (6 + 9) + dense + CLASSES
    assert found["macs"] == sum(first) * 4 * 6 + sum(second) * 7 * 6 + dense


def test_counts_of_the_published_network_are_those_of_its_weights():
    space = nas_rl_space(15)
    arch = space.about.parse(PUBLISHED_NETWORKS["nas_rl_v1"])
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    for changes in ({}, {"more_filters": 40}, {"affine": False}, {"num_classes": 100}):
        shapes = jax.eval_shape(space.about.network(arch, **changes).init, KEY, x)
        assert space.about.counts(arch, (32, 32, 3), **changes)["parameters"] == count_parameters(shapes["params"])


def test_multiply_adds_are_those_that_the_compiler_counts():
    space = nas_rl_space(2, CLASSES, filters=(96, 128), kernels=(1, 3))
    arch = space.about.parse("|1x1 96|1x1 128 from 0|")  # no padding, which the compiler leaves out
    network = space.about.network(arch)
    x = jnp.ones((1, 8, 8, 64))
    variables = jax.eval_shape(network.init, KEY, x)
    compiled = jax.jit(lambda variables, x: network.apply(variables, x)[0]).lower(variables, x).compile()
    macs = space.about.counts(arch, (8, 8, 64))["macs"]
    assert 2 * macs <= compiled.cost_analysis()["flops"] < 2.1 * macs


# Settings of the stand-alone network


def test_forty_more_filters_are_those_of_a_space_that_has_them():
    text = "|3x3 2|1x3 3 from 0|"
    space = nas_rl_space(2, CLASSES, filters=(2, 3))
    wider = nas_rl_space(2, CLASSES, filters=(2, 3), more_filters=40)
    arch = space.about.parse(text)
    x = jnp.ones((1, 8, 8, 1))
    changed = jax.eval_shape(space.about.network(arch, more_filters=40).init, KEY, x)
    assert changed == jax.eval_shape(wider.about.network(wider.about.parse(text)).init, KEY, x)
    assert changed["params"]["layer1"]["conv0"]["kernel"].shape == (1, 3, 42, 43)


def test_settings_of_normalisation_reach_every_layer():
    space = nas_rl_space(2, CLASSES, filters=(2, 3), convolutions=2)
    arch = space.about.parse("|3x3 2|1x3 3|")
    x = jax.random.normal(KEY, (4, 5, 5, 2))

    def logits(x=x, **changes):
        network = space.about.network(arch, running=False, **changes)
        variables = network.init(KEY, x)
        return network.apply(variables, x)[0]

    # Statistics of the first two examples: the others do not change their logits, and their own do.
    other = x.at[2:].add(1.0)
    np.testing.assert_allclose(logits(reference=2)[:2], logits(other, reference=2)[:2], rtol=1e-6)
    assert np.abs(logits()[:2] - logits(other)[:2]).max() > 1e-3
    # A large epsilon leaves little of an image.
    assert np.abs(logits(eps=1.0) - logits()).max() > 1e-3
    # Running averages: momentum 0 takes those of the batch, so that evaluation repeats training.
    network = space.about.network(arch, momentum=0.0)
    variables = network.init(KEY, x)
    trained, moved = network.apply(variables, x, train=True)
    np.testing.assert_allclose(network.apply(moved, x)[0], trained, rtol=1e-4, atol=1e-5)


def test_a_form_that_does_not_exist_is_refused():
    space = nas_rl_space(2)
    arch = space.about.parse("|3x3 24|3x3 24|")
    with pytest.raises(UserError, match="order must be one of"):
        space.about.network(arch, order="bn_conv")
    with pytest.raises(UserError, match="more_filters must be at least 0"):
        space.about.counts(arch, (8, 8, 1), more_filters=-1)
