"""The ProxylessNAS space: exact counts, and one function in its three forms."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import costs, derive
from jaxnas.architectures import decisions
from jaxnas.base import SearchSpace, dense_paths, one_hot_paths, sparse_paths
from jaxnas.costs import count_parameters
from jaxnas.spaces import proxyless_space
from jaxnas.spaces.proxyless.network import ProxylessConfig, places

KEY = jax.random.key(0)
IMAGENET = (224, 224, 3)
SMALL = {
    "widths": (4, 6),
    "blocks": (2, 2),
    "strides": (1, 2),
    "stem_channels": 4,
    "stem_stride": 1,
    "first_channels": 4,
    "last_channels": 8,
    "num_classes": 3,
    "kernels": (3, 5),
    "expansions": (2,),
}
# The published network for mobile phones, whose first stage is 32 channels wide.
MOBILE = """5x5_e3 3x3_e3 zero zero  7x7_e3 3x3_e3 5x5_e3 5x5_e3  7x7_e6 5x5_e3 5x5_e3 5x5_e3
            5x5_e6 5x5_e3 5x5_e3 5x5_e3  7x7_e6 7x7_e6 7x7_e3 7x7_e3  7x7_e6""".split()


def test_size_decisions_and_weights_of_the_imagenet_space():
    space = proxyless_space()
    assert space.about.size == 6**6 * 7**15 == 221_502_229_807_900_608
    assert {kind: leaf.shape for kind, leaf in space.choices.items()} == {"entry": (6, 6), "inner": (15, 7)}
    assert sum(leaf.size for leaf in jax.tree.leaves(space.choices)) == 141
    shapes = jax.eval_shape(space.init, KEY, jnp.zeros((2, *IMAGENET)))
    assert count_parameters(shapes) == 16_034_168


def test_published_mobile_network():
    space = proxyless_space((32, 40, 80, 96, 192, 320))
    arch = space.about.parse(MOBILE)
    assert space.about.genotype(arch) == MOBILE
    tables = costs.space_tables(space, IMAGENET)
    found = {name: int(costs.cost(table, arch)) for name, table in tables.items()}
    assert found == {"parameters": 4_080_512, "macs": 320_427_584}
    network = space.about.network(arch)
    variables = jax.eval_shape(network.init, KEY, jnp.zeros((2, *IMAGENET)))
    assert count_parameters(variables["params"]) == 4_080_512


@pytest.mark.parametrize("multiplier", [0.35, 0.5, 0.75, 1.4])
def test_width_multipliers_round_to_eight(multiplier):
    config = ProxylessConfig(width_multiplier=multiplier)
    assert config.head == (1280 if multiplier < 1 else 1792)
    for width in (32, 16, *config.widths):
        scaled = config.scaled(width)
        assert scaled % 8 == 0
        assert 0.9 * multiplier * width <= scaled <= max(8, multiplier * width) + 8
    found = list(places(config))
    assert all(later.features_in == before.features for before, later in itertools.pairwise(found))
    assert all(
        (place.kind == "inner") == (place.stride == 1 and place.features_in == place.features) for place in found
    )


class Small(NamedTuple):
    """A small space with weights, images, and the compiled `(params, paths, x) -> (loss, gradients)`."""

    space: SearchSpace
    params: Any
    x: jax.Array
    run: Callable[..., Any]


@pytest.fixture(scope="module")
def small():
    space = proxyless_space(**SMALL)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 2)), jnp.float32)

    def loss(params, x, weight, paths):
        logits = space.apply(params, paths._replace(weight=weight), x)
        return jnp.sum(jnp.sin(logits)), logits

    graded = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    return Small(space, jax.jit(space.init)(KEY, x), x, lambda params, paths, x: graded(params, x, paths.weight, paths))


def arch_of(space, seed):
    flat = decisions(space.choices)
    return flat.split(flat.random(jax.random.key(seed), 1)[0])


def test_dense_sparse_and_stand_alone_agree_in_value_and_gradient(small):
    space, params, x, run = small
    assert {kind: leaf.shape for kind, leaf in space.choices.items()} == {"entry": (1, 2), "inner": (3, 3)}
    for seed in range(2):
        arch = arch_of(space, seed)
        sparse, dense = sparse_paths(arch), one_hot_paths(space.choices, arch)
        ((_, y), one), ((_, other), all_of_them) = (run(params, paths, x) for paths in (sparse, dense))
        chex.assert_trees_all_close((y, one[:2]), (other, all_of_them[:2]), rtol=1e-4, atol=1e-5)
        network, variables = derive.network(space, params, arch)
        alone, _ = jax.jit(functools.partial(network.apply, train=True))(variables, x)
        np.testing.assert_allclose(alone, y, rtol=1e-4, atol=1e-5)
        counted = costs.space_tables(space, (8, 8, 2))["parameters"]
        assert count_parameters(variables["params"]) == int(costs.cost(counted, jax.device_get(arch)))


def test_zero_leaves_a_block_out_and_its_gates_are_answered_by_the_probe(small):
    space, params, x, run = small
    arch = {"entry": jnp.array([1]), "inner": jnp.array([2, 2, 2])}
    dense = one_hot_paths(space.choices, arch)

    @jax.jit
    @jax.grad
    def probed(asked):
        paths = sparse_paths(arch)._replace(probe=dense_paths(asked))
        return jnp.sum(jnp.sin(space.apply(params, paths, x)))

    gates = run(params, dense, x)[1][2]
    chex.assert_trees_all_close(probed(jax.tree.map(jnp.zeros_like, dense.weight)), gates, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(gates["inner"][:, 2], 0)


def test_used_names_what_took_part(small):
    space, params, x, run = small
    arch = arch_of(space, 5)
    used = space.used(params, sparse_paths(arch))

    def check(mask, grad):
        moved = np.broadcast_to(np.asarray(mask), grad.shape)
        assert not np.asarray(grad)[~moved].any()

    jax.tree.map(check, used, run(params, sparse_paths(arch), x)[1][0])
    shares = [np.asarray(leaf).mean() for leaf in jax.tree.leaves(used["runs"])]
    assert 0 < np.mean(shares) < 1


def test_initial_weights_have_the_published_spread():
    space = proxyless_space((64,), (2,), (1,), stem_channels=32, first_channels=32, last_channels=64, num_classes=50)
    params = jax.jit(space.init)(KEY, jnp.zeros((2, 8, 8, 3)))
    wanted = {"expand": 192, "depthwise": 9 * 192, "project": 64}
    for name, fan_out in wanted.items():
        leaf = params["runs"][0]["3x3_e6"][name]
        assert float(leaf.std()) == pytest.approx(np.sqrt(2 / fan_out), rel=0.1)
        assert float(jnp.abs(leaf).max()) > 2.2 * np.sqrt(2 / fan_out), "normal, not uniform"
    kernel = params["classifier"]["kernel"]
    assert float(jnp.abs(kernel).max()) <= 1 / 8
    assert float(kernel.std()) == pytest.approx(1 / 8 / np.sqrt(3), rel=0.1)
    np.testing.assert_array_equal(params["classifier"]["bias"], 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"widths": (8, 8), "blocks": (1,), "strides": (1, 1)},
        {"blocks": (0, 4, 4, 4, 4, 1)},
        {"kernels": (4,)},
        {"kernels": (3,), "expansions": (3,)},
        {"width_multiplier": 0.0},
        {"num_classes": 0},
        {"dtype": "float8"},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must|need"):
        proxyless_space(**settings)


def released(config, names, *, zero):
    """A network as the released code describes it; `zero(place)` is what stands for a block that is left out."""
    fixed = {"in_channels": config.stem, "out_channels": config.first, "kernel_size": 3, "stride": 1, "expand_ratio": 1}
    blocks = [{"name": "MBInvertedConvLayer", **fixed}]
    for place, name in zip(places(config), names, strict=True):
        kernel, _, expand = name.partition("_e")
        sizes = {"in_channels": place.features_in, "out_channels": place.features, "stride": place.stride}
        if name == "zero":
            blocks += zero
        else:
            sizes |= {"kernel_size": int(kernel[0]), "expand_ratio": int(expand)}
            blocks.append({"name": "MBInvertedConvLayer", **sizes})
    return {"name": "ProxylessNASNets", "blocks": [{"mobile_inverted_conv": block} for block in blocks]}


@pytest.mark.parametrize("zero", [[], [None], [{"name": "ZeroLayer", "stride": 1}]])
def test_released_description_of_a_network_is_read(zero):
    space = proxyless_space((32, 40, 80, 96, 192, 320))
    network = released(ProxylessConfig((32, 40, 80, 96, 192, 320)), MOBILE, zero=zero)
    chex.assert_trees_all_equal(space.about.parse(network), space.about.parse(MOBILE))
    with pytest.raises(ValueError, match=r"block 0 has channels and stride \(16, 32, 2\), the space has \(16, 24, 2\)"):
        proxyless_space().about.parse(network)
    with pytest.raises(ValueError, match="1 more blocks than the space has"):
        space.about.parse({"blocks": [*network["blocks"], network["blocks"][-1]]})


def test_bad_genotypes_are_refused(small):
    with pytest.raises(ValueError, match="expected 4 blocks"):
        small.space.about.parse(["3x3_e2"])
    with pytest.raises(ValueError, match="block 2 is 'zero', accepted"):
        proxyless_space((4, 6), (2, 1), (1, 2), first_channels=4).about.parse(["zero", "zero", "zero"])
