"""The tree space of ProxylessNAS: exact counts, and one function in its three forms."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import costs, derive
from jaxnas.base import one_hot_paths, sparse_paths
from jaxnas.costs import count_parameters
from jaxnas.ops import PreActConv, PreActSepConv, Style, channel_shuffle, from_linen
from jaxnas.spaces import proxyless_tree_space
from jaxnas.spaces.proxyless.tree_network import EDGES, TreeConfig

KEY = jax.random.key(0)
FEW = ("sep_conv_3x3", "identity", "avg_pool_3x3")  # the others differ in side, dilation or kind
SIZES = {"blocks": 1, "stages": 2, "stem_channels": 4, "alpha": 4.0, "bottleneck": 2, "num_classes": 3}
SMALL = {**SIZES, "operations": FEW}
RNG = np.random.default_rng(0)


def test_widths_edges_and_size_of_the_published_space():
    config = TreeConfig()
    widths = [cell.features for cell in config.cells]
    assert (len(widths), widths[:5], widths[-2:]) == (54, [72, 72, 80, 88, 96], [392, 400])
    assert (config.cells[0].inner, config.cells[-1].inner) == (18, 100)
    assert [cell.number for cell in config.cells if cell.stride == 2] == [18, 36]
    space = proxyless_tree_space()
    assert space.choices["edges"].shape == (648, 7)
    assert space.about.size == 7**648
    assert math.log10(space.about.size) == pytest.approx(547.6, abs=0.05)
    tables = costs.space_tables(space, (32, 32, 3))
    # The published network that this space contains has 5.7 million parameters; so have random ones.
    arch = {"edges": RNG.integers(0, 7, 648)}
    assert 5.2e6 < costs.cost(tables["parameters"], arch) < 6.2e6


def test_the_tree_has_two_branches_of_two_edges_of_two_edges():
    sources, targets = (list(ends) for ends in zip(*EDGES, strict=True))
    assert (sources[:4], len(set(targets[:4]))) == ([0, 0, 1, 1], 4)
    for branch, out in ((0, 6), (1, 7)):
        inner = [target for source, target in EDGES if source == branch]
        assert sorted(source for source, target in EDGES if target == out) == sorted(2 * inner)


@pytest.fixture(scope="module")
def small():
    space = proxyless_tree_space(**SMALL)
    x = jnp.asarray(RNG.standard_normal((4, 8, 8, 2)), jnp.float32)
    return space, jax.jit(space.init)(KEY, x), x, jax.jit(space.apply)


def test_dense_sparse_and_stand_alone_agree_in_value_and_gradient(small):
    space, params, x, run = small
    arch = {"edges": jnp.asarray(RNG.permutation(np.arange(24) % len(FEW)))}

    @jax.jit
    def loss(params, paths, x):
        return jnp.sum(jnp.sin(space.apply(params, paths, x)))

    sparse, dense = sparse_paths(arch), one_hot_paths(space.choices, arch)
    found = [jax.value_and_grad(loss, (0, 2))(params, paths, x) for paths in (sparse, dense)]
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-4)
    network, variables = derive.network(space, params, arch)
    y, _ = jax.jit(lambda v: network.apply(v, x, train=True))(variables)
    np.testing.assert_allclose(y, run(params, sparse, x), rtol=1e-4, atol=1e-4)
    counted = costs.space_tables(space, (8, 8, 2))["parameters"]
    assert count_parameters(variables["params"]) == int(costs.cost(counted, jax.device_get(arch)))

    used = space.used(params, sparse)
    jax.tree.map(lambda mask, g: np.testing.assert_array_equal(np.where(mask, 0, g), 0), used, found[0][1][0])
    shares = [np.asarray(leaf).mean() for cell in used["cells"] for leaf in jax.tree.leaves(cell["edges"])]
    assert 0 < np.mean(shares) < 1


def test_the_network_by_hand(small):
    """Identities everywhere: each branch comes back four times, so the cell is its entry and its exit."""
    _, params, x, run = small
    arch = {"edges": np.full(24, FEW.index("identity"))}
    y = np.asarray(x)

    def norm(x, own=None):
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / np.sqrt(variance + 1e-5)

    def conv(x, kernel, stride=1):
        pads = [(kernel.shape[0] // 2,) * 2] * 2
        return np.asarray(
            jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        )

    y = norm(conv(y, params["stem"]["kernel"]))
    for number, own in enumerate(params["cells"]):
        narrow = conv(norm(y), own["entry"]["narrow"]["kernel"])
        kernel, inner = own["entry"]["root"]["kernel"], narrow.shape[-1]
        halves = np.split(np.maximum(norm(narrow), 0), 2, -1)
        root = [conv(half, kernel[..., i * inner : (i + 1) * inner], 1 + number) for i, half in enumerate(halves)]
        mixed = np.stack(root, -1).reshape(*root[0].shape[:3], -1)  # channels of both groups in turn
        total = sum(branch + norm(4 * branch) for branch in np.split(mixed, 2, -1))
        residual = norm(conv(np.maximum(norm(total), 0), own["exit"]["widen"]["kernel"]))
        if number:
            y = y.reshape(len(y), y.shape[1] // 2, 2, y.shape[2] // 2, 2, -1).mean((2, 4))
        y = residual + np.pad(y, ((0, 0),) * 3 + ((0, residual.shape[-1] - y.shape[-1]),))
    features = np.maximum(norm(y), 0).mean((1, 2))
    expected = features @ np.asarray(params["classifier"]["kernel"])
    np.testing.assert_allclose(run(params, sparse_paths(arch), x), expected, rtol=1e-3, atol=1e-4)


def test_dropping_edges_and_cells(small):
    space, params, x, run = small
    arch = {"edges": np.arange(24) % len(FEW)}
    dropping = proxyless_tree_space(**SMALL, drop_path=0.5)
    still, moved = (jax.jit(own.apply)(params, sparse_paths(arch), x, key=KEY) for own in (space, dropping))
    np.testing.assert_allclose(still, run(params, sparse_paths(arch), x), rtol=1e-4, atol=1e-5)
    assert not np.allclose(still, moved, atol=1e-3)
    with pytest.raises(ValueError, match=r"cell_drop must lie in \[0, 0.75\)"):
        space.about.network(arch, cell_drop=0.75)


def test_later_cells_are_left_out_more_often(small):
    """Of two cells the first goes with probability 0.4 and the second with 0.8, so both with 0.32, not 0.6 squared."""
    space, params, x, _ = small
    arch = {"edges": np.full(24, FEW.index("identity"))}
    _, variables = derive.network(space, params, arch)
    dropped = space.about.network(arch, cell_drop=0.6)
    with_key = jax.jit(jax.vmap(lambda key: dropped.apply(variables, x, key=key, drop_path=0.0)[0]))
    found = with_key(jax.random.split(KEY, 2000))
    y = jax.lax.conv_general_dilated(
        x, params["stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = jax.nn.relu(y.reshape(4, 4, 2, 4, 2, -1).mean((2, 4)) / (1 + 1e-5)).mean((1, 2))
    alone = y @ params["classifier"]["kernel"][: y.shape[-1]]
    share = float(np.mean(np.all(np.abs(found - alone[None]) < 1e-4, -1)))
    deviation = np.sqrt(0.32 * 0.68 / (4 * len(found)))
    assert abs(share - 0.32) < 4.5 * deviation
    assert abs(share - 0.36) > 6 * deviation


def test_groups_and_shuffle():
    np.testing.assert_array_equal(channel_shuffle(jnp.arange(6.0), 2), [0, 3, 1, 4, 2, 5])
    x = jnp.asarray(RNG.standard_normal((2, 5, 5, 4)), jnp.float32)
    op = from_linen(PreActConv(6, 2, Style(affine=True), kernel=3, groups=2))
    params = op.init(KEY, x)
    changed = op.apply(params, x) != op.apply(params, x.at[..., :2].add(jnp.sin(jnp.arange(5.0))[None, :, None, None]))
    assert changed.any((0, 1, 2)).tolist() == [True] * 3 + [False] * 3
    for block in (PreActConv(6, 2, Style(affine=True), kernel=3, groups=2), PreActSepConv(6, 1, Style(affine=True))):
        weights = count_parameters(jax.eval_shape(from_linen(block).init, KEY, x))
        assert block.cost(4, 5, 5).parameters == weights


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"stem_channels": 1}, "stem_channels must be at least groups"),
        ({"operations": ("identity",)}, "two or more"),
        ({"operations": ("identity", "zero")}, "unknown 'zero'"),
        ({"drop_path": 1.0}, "drop_path must lie"),
        ({"dtype": "float8"}, "dtype"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        proxyless_tree_space(**settings)


def test_bad_images_and_genotypes_are_refused(small):
    space, *_ = small
    with pytest.raises(ValueError, match="even height and width, got 7x7"):
        jax.eval_shape(space.init, KEY, jnp.zeros((4, 7, 7, 2)))
    genotype = space.about.genotype({"edges": np.arange(24) % len(FEW)})
    np.testing.assert_array_equal(space.about.parse(genotype)["edges"], np.arange(24) % len(FEW))
    with pytest.raises(ValueError, match="expected 2 cells, got 1"):
        space.about.parse(genotype[:1])
    with pytest.raises(ValueError, match="cell 1 has 11 operations"):
        space.about.parse([genotype[0], genotype[1][:11]])
    with pytest.raises(ValueError, match="cell 0 has 'zero'"):
        space.about.parse([["zero"] * 12, genotype[1]])
