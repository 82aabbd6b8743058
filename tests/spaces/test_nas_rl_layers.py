"""The convolutional space of NAS-RL: its decisions, their order, the rules by which they become a network, its text."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architecture_files import build_space, read_architecture, read_source
from jaxnas.architectures import decisions
from jaxnas.errors import UserError
from jaxnas.policies import controller
from jaxnas.policies.tokens import in_order
from jaxnas.spaces import registry
from jaxnas.spaces.nas_rl import (
    PUBLISHED_NETWORKS,
    LayerPlan,
    decode,
    layer_plan,
    nas_rl_prefix,
    nas_rl_space,
    nas_rl_tokens,
    recurrent_cell_space,
)
from jaxnas.spaces.nas_rl.decoding import IMAGE, Layer, grids

# Layers 1 to 14 of the published network: the earlier layers that each of them reads.
INPUTS = (
    "0 | 0,1 | 0-2 | 2,3 | 1-4 | 1-5 | 0,5,6 | 0,4,5,7 | 0,2-8 | 0,1,4-9 | 0-3,5,10 | 0,2,5-11 | 2,6,11,12 | 6,10-13"
)
FILTERS = (36, 48, 36, 36, 48, 48, 48, 36, 36, 36, 36, 48, 48, 48, 48)
KERNELS = ("33", "33", "33", "55", "37", "77", "77", "73", "71", "77", "57", "77", "75", "75", "75")


def _random(space, seed=0):
    row = decisions(space.choices)
    return jax.tree.map(np.asarray, row.split(row.random(jax.random.key(seed), 1)[0]))


def _numbers(text):
    """`0,2-4` as (0, 2, 3, 4)."""
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    return tuple(j for first, *last in ends for j in range(first, (last or [first])[0] + 1))


def _network(space, text):
    return decode(layer_plan(space), space.about.parse(text))


def test_the_published_network():
    space = nas_rl_space(15)
    arch = space.about.parse(PUBLISHED_NETWORKS["nas_rl_v1"])
    network = decode(layer_plan(space), arch)
    assert [layer.inputs for layer in network.layers] == [(IMAGE,), *(_numbers(part) for part in INPUTS.split("|"))]
    assert tuple(layer.filters for layer in network.layers) == FILTERS
    assert tuple(f"{layer.height}{layer.width}" for layer in network.layers) == KERNELS
    assert network.outputs == (14,)
    assert space.about.counts(arch, (32, 32, 3))["parameters"] == 4_120_990
    assert space.about.genotype(arch) == PUBLISHED_NETWORKS["nas_rl_v1"]


def test_the_published_network_is_known_by_its_name():
    source = read_source("nas_rl_v1")
    space = build_space(source, num_classes=100)
    arch = read_architecture(space, source)
    assert space.about.genotype(arch) == PUBLISHED_NETWORKS["nas_rl_v1"]
    assert space.about.counts(arch, (32, 32, 3))["parameters"] == 4_120_990 + 90 * 49
    with pytest.raises(UserError, match=r"published cells are darts_v1, .*, and published networks nas_rl_v1"):
        read_source("nas_rl_v2")


def test_rule_1_a_layer_without_inputs_reads_the_image():
    network = _network(nas_rl_space(4), "|3x3 24|3x3 24 from 0|5x5 36|1x1 48 from 1,2|")
    assert [layer.inputs for layer in network.layers] == [(IMAGE,), (0,), (IMAGE,), (1, 2)]
    assert network.outputs == (3,)


def test_rule_2_outputs_that_nobody_reads_go_to_the_classifier():
    network = _network(nas_rl_space(5), "|3x3 24|3x3 24|3x3 36 from 1|1x1 48 from 1|1x1 64 from 1,3|")
    assert network.outputs == (0, 2, 4)  # two orphans and the last layer
    every = _network(nas_rl_space(3), "|3x3 24|3x3 24|3x3 24|")
    assert [layer.inputs for layer in every.layers] == [(IMAGE,)] * 3
    assert every.outputs == (0, 1, 2)


def test_rule_3_pads_to_the_largest_height_and_the_largest_width():
    space = nas_rl_space(4, strides=(1, 2, 3))
    text = "|3x3/2x1 24|3x3/1x3 24|3x3/1x1 36 from 0,1|1x1/3x2 48 from 0|"
    found = grids(layer_plan(space), _network(space, text), 9, 10)
    assert found.written == ((5, 10), (9, 4), (9, 10), (2, 5))
    assert found.read == ((9, 10), (9, 10), (9, 10), (5, 10))  # (5, 10) beside (9, 4) is (9, 10)
    assert found.classified == (9, 10)  # layers 2 and 3


def test_rule_3_is_never_needed_at_stride_1():
    space = nas_rl_space(8)
    for seed in range(20):
        found = grids(layer_plan(space), decode(layer_plan(space), _random(space, seed)), 7, 5)
        assert {*found.read, *found.written, found.classified} == {(7, 5)}


def test_everything_beyond_a_pooling_is_read_behind_it():
    space = nas_rl_space(4, pooling=(1, 3, 4, 9))
    text = "|3x3 24|3x3 24|3x3 24 from 0,1|3x3 24 from 0|"
    found = grids(layer_plan(space), _network(space, text), 9, 8)
    assert found.written == ((9, 8), (5, 4), (5, 4), (3, 2))
    assert found.read == found.written
    assert found.classified == (3, 2)  # poolings after the last layer are left out
    assert [layer_plan(space).stage(i) for i in range(5)] == [0, 1, 1, 2, 2]


def test_filters_are_those_chosen_and_more():
    space = nas_rl_space(2, filters=(6, 12), more_filters=40)
    network = _network(space, "|3x5 6|5x7 12 from 0|")
    assert network.layers == (Layer(3, 5, 46, (1, 1), (IMAGE,)), Layer(5, 7, 52, (1, 1), (0,)))


@pytest.mark.parametrize(
    ("num_layers", "settings", "size"),
    [
        (1, {}, 4**3),
        (6, {}, 64**6 * 2**15),
        (15, {}, 64**15 * 2**105),
        (20, {"strides": (1, 2, 3)}, 64**20 * 9**20 * 2**190),
        (13, {"filters": (6, 12, 24), "kernels": (1, 3)}, (3 * 2 * 2) ** 13 * 2**78),
    ],
)
def test_sizes(num_layers, settings, size):
    space = nas_rl_space(num_layers, **settings)
    assert space.about.size == decisions(space.choices).size == size


def test_decisions_are_a_row_for_each_layer_and_each_pair_of_layers():
    shapes = {kind: leaf.shape for kind, leaf in nas_rl_space(5, strides=(1, 2, 3)).choices.items()}
    ten = {"stride_height": (5, 3), "stride_width": (5, 3)}
    assert shapes == {"filters": (5, 4), "height": (5, 4), "skip": (10, 2), "width": (5, 4)} | ten
    assert set(nas_rl_space(1).choices) == {"filters", "height", "width"}


@pytest.mark.parametrize("strides", [None, (1, 2, 3)])
def test_tokens_are_layer_by_layer_height_width_strides_filters_and_skips(strides):
    space = nas_rl_space(4, strides=strides)
    tokens = nas_rl_tokens(space)
    between = ["stride_height", "stride_width"] if strides else []
    assert [kind for kind, _ in tokens] == ["height", "width", *between, "filters", "skip"] * 4
    in_order(space.choices, tokens)  # takes every decision once
    # Every decision with a value of its own tells which one a token takes.
    starts = np.cumsum([0, *(leaf.shape[0] for leaf in space.choices.values())])
    places = {kind: range(start, end) for kind, start, end in zip(space.choices, starts, starts[1:])}
    width = len(tokens) // 4
    for i in range(4):
        for kind, place in tokens[i * width : (i + 1) * width - 1]:
            assert place == places[kind][i]
        # Row i (i - 1) / 2 + j is the connection of layer i to layer j.
        assert tokens[(i + 1) * width - 1] == ("skip", tuple(places["skip"][i * (i - 1) // 2 + j] for j in range(i)))


def test_skips_that_tokens_name_are_the_inputs_that_decoding_reads():
    space = nas_rl_space(4)
    row = decisions(space.choices)
    zeros = np.zeros(len(row.counts), np.int32)
    anchors = [place for kind, place in nas_rl_tokens(space) if kind == "skip"]
    for i, places in enumerate(anchors):
        for j, place in enumerate(places):
            values = zeros.copy()
            values[place] = 1
            network = decode(layer_plan(space), jax.tree.map(np.asarray, row.split(values)))
            connected = {(n, k) for n, layer in enumerate(network.layers) for k in layer.inputs if k != IMAGE}
            assert connected == {(i, j)}


def test_a_controller_for_more_layers_writes_the_first_ones_with_the_same_probability():
    short, deep = nas_rl_space(2), nas_rl_space(4)
    policies = [controller(space.choices, nas_rl_tokens(space), num_units=8) for space in (short, deep)]
    params = policies[0].init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, policies[1].init(jax.random.key(0)))
    params = jax.tree.map(lambda leaf: 10 * leaf, params)  # away from uniform
    arch = jax.jit(policies[1].sample)(jax.random.key(1), params)
    expected = jax.jit(policies[0].log_prob)(params, nas_rl_prefix(arch, 2))

    # The deeper controller with a length of two layers, whose other decisions are 0.
    @jax.jit
    def cut(params, arch):
        return controller(deep.choices, nas_rl_tokens(deep), num_units=8, length=8).log_prob(params, arch)

    kept = jax.tree.map(np.zeros_like, jax.tree.map(np.asarray, arch))
    for kind, leaf in nas_rl_prefix(arch, 2).items():
        kept[kind][: len(leaf)] = leaf
    np.testing.assert_allclose(cut(params, kept), expected, rtol=1e-5)
    assert abs(float(expected) + 7 * np.log(4)) > 0.1  # not by being uniform


def test_a_prefix_is_the_network_of_the_first_layers():
    deep, short, single = nas_rl_space(5), nas_rl_space(3), nas_rl_space(1)
    arch = _random(deep, 3)
    kept = nas_rl_prefix(arch, 3)
    assert decode(layer_plan(short), kept).layers == decode(layer_plan(deep), arch).layers[:3]
    assert set(nas_rl_prefix(arch, 1)) == set(single.choices)
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), arch)
    assert jax.tree.map(np.shape, nas_rl_prefix(both, 3)) == jax.tree.map(lambda leaf: (2, *leaf.shape), kept)
    for depth in (0, 6):
        with pytest.raises(UserError, match=f"num_layers must be from 1 to 5, .* got {depth}"):
            nas_rl_prefix(arch, depth)


@pytest.mark.parametrize("settings", [{}, {"strides": (1, 2, 3)}, {"more_filters": 40}, {"filters": (6, 12)}])
@pytest.mark.parametrize("num_layers", [1, 5])
def test_a_text_is_read_as_it_is_written(num_layers, settings):
    space = nas_rl_space(num_layers, **settings)
    for seed in range(5):
        arch = _random(space, seed)
        text = space.about.genotype(arch)
        jax.tree.map(np.testing.assert_array_equal, space.about.parse(text), arch)
        assert space.about.genotype(space.about.parse(f"  {text.replace('|', ' | ')}\n")) == text


def test_a_text_says_what_was_chosen():
    space = nas_rl_space(3, strides=(1, 2, 3), more_filters=40)
    text = "|3x5/1x2 36|1x7/3x1 24|7x1/1x1 64 from 0,1|"
    arch = space.about.parse(text)
    assert jax.tree.map(np.ndarray.tolist, arch) == {
        "filters": [1, 0, 3],
        "height": [1, 0, 3],
        "skip": [0, 1, 1],
        "stride_height": [0, 2, 0],
        "stride_width": [1, 0, 0],
        "width": [2, 3, 0],
    }
    assert space.about.genotype(arch) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("|3x3 36|3x3 36 from 0|", "it has 2, for which num_layers must be 2"),
        ("|3x3 36|3x3 36 from 0|3x3 36|3x3 36|", "it has 4, for which num_layers must be 4"),
        ("|3x3 36|3x3 36 from 1|3x3 36|", "layer 1 is '3x3 36 from 1', and layer 1 is not an earlier one"),
        ("|3x3 36 from 0|3x3 36|3x3 36|", "layer 0 is '3x3 36 from 0', and layer 0 is not an earlier one"),
        ("|3x3 36|3x3 36 from 2|3x3 36|", "layer 1 is '3x3 36 from 2', and layer 2 is not an earlier one"),
        ("|3x3 36|3x3 36|3x3 36 from 0,0|", "layer 2 is '3x3 36 from 0,0', and reads layer 0 twice"),
        ("|3x3 36|3x3 36|2x3 36|", "layer 2 is '2x3 36', and its height cannot be 2"),
        ("|3x3 36|3x3 36|3x3 35|", "layer 2 is '3x3 35', and its filters cannot be 35"),
        ("|3x3 36|3x3 36|3x3/1x1 36|", "layer 2 is '3x3/1x1 36', and its stride_height cannot be 1"),
        ("|3x3 36|3x3 36|3x3 36 to 0|", "layer 2 is '3x3 36 to 0'"),
        ("|3x3 36|3x3 36|3x3 ٣٦|", "layer 2 is '3x3 ٣٦'"),  # digits of another script
        ("", "layer 0 is ''"),
    ],
)
def test_a_text_of_another_form(text, reason):
    with pytest.raises(UserError, match=r"expected 3 layers as '\|1,3,5,7x1,3,5,7 24,36,48,64 from EARLIER") as caught:
        nas_rl_space(3).about.parse(text)
    assert str(caught.value).endswith(f"|': {reason}")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"expected 1 layers as '\|1,3x1,3/1,2x1,2 24"):
        nas_rl_space(1, kernels=(1, 3), strides=(1, 2)).about.parse("|3x3 36|")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"convolutions": 0}, "convolutions must be at least 1"),
        ({"filters": (24,)}, r"filters needs two or more different whole numbers of at least 1, got \[24\]"),
        ({"filters": (24, 24)}, "filters needs two or more different"),
        ({"filters": (24, 0)}, "filters needs .* at least 1"),
        ({"kernels": (1, 3.5)}, "kernels needs .* whole numbers"),
        ({"kernels": (1, 2)}, r"kernels must be odd, got \[1, 2\]"),
        ({"strides": (1,)}, "strides needs two or more"),
        ({"strides": ()}, "strides needs two or more"),
        ({"strides": 1}, "strides needs two or more different whole numbers of at least 1, got 1"),
        ({"filters": 24}, "filters needs two or more different whole numbers of at least 1, got 24"),
        ({"filters": "24"}, "filters needs two or more different whole numbers of at least 1, got '24'"),
        ({"num_layers": 2.5}, "num_layers must be a whole number, got 2.5"),
        ({"num_classes": "ten"}, "num_classes must be a whole number, got 'ten'"),
        ({"more_filters": 1.5}, "more_filters must be a whole number, got 1.5"),
        ({"reference": None}, "reference must be a whole number, got None"),
        ({"order": "relu_conv_bn"}, "order must be one of conv_bn_relu, conv_relu_bn, got 'relu_conv_bn'"),
        ({"pooling": (0, 2)}, r"pooling needs ascending whole numbers of layers, at least 1, got \[0, 2\]"),
        ({"pooling": 3}, "pooling needs ascending whole numbers of layers, at least 1, got 3"),
        ({"pooling": (1.5,)}, r"pooling needs ascending whole numbers of layers, at least 1, got \[1.5\]"),
        ({"pooling": (3, 2)}, "pooling needs ascending"),
        ({"pooling": (2, 2)}, "pooling needs ascending"),
        ({"more_filters": -1}, "more_filters must be at least 0, got -1"),
        ({"reference": -1}, "reference must be a number of examples"),
        ({"dtype": "float16"}, "dtype"),
        ({"lowering": "fast"}, "lowering"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        nas_rl_space(**settings)


def test_a_plan_is_that_of_its_space():
    settings = {"filters": (6, 12), "strides": (1, 2), "pooling": (2,), "convolutions": 3, "order": "conv_relu_bn"}
    assert layer_plan(nas_rl_space(4, 7, **settings)) == LayerPlan(4, 7, **settings)
    assert layer_plan(nas_rl_space()) == LayerPlan()
    with pytest.raises(UserError, match="space must be one of nas_rl_space, got 'nasbench201-small'"):
        layer_plan(registry.build("nasbench201-small"))
    with pytest.raises(UserError, match="space must be one of nas_rl_space, got 'nas-rl-cell'"):
        nas_rl_tokens(recurrent_cell_space(2))


def test_numbers_of_any_integer_type_are_settings():
    space = nas_rl_space(np.int64(2), np.int32(3), filters=np.array([4, 8]), kernels=[np.uint8(1), 3], pooling=[1])
    plain = nas_rl_space(2, 3, filters=(4, 8), kernels=(1, 3), pooling=(1,))
    assert json.dumps(space.about.config) == json.dumps(plain.about.config)
    assert layer_plan(space) == layer_plan(plain)


def test_an_architecture_of_another_depth_is_refused():
    with pytest.raises(UserError, match=r"expected integers of shape"):
        decode(LayerPlan(4), _random(nas_rl_space(3)))
