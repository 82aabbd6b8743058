"""Any network of NAS-RL's layers on the canvas computes what its own program computes; what it lacks stays zero."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import random_archs
from jaxnas.base import Paths, dense_paths, one_hot_paths, sparse_paths
from jaxnas.errors import UserError
from jaxnas.ops import conv
from jaxnas.spaces.nas_rl import canvas as canvas_module
from jaxnas.spaces.nas_rl import layer_plan, nas_rl_prefix, nas_rl_space
from jaxnas.spaces.nas_rl.canvas import canvas_apply, canvas_cut, canvas_init, canvas_used
from jaxnas.spaces.nas_rl.taps import InUse, conv_in_use

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (5, 6, 5, 2))
# Outputs that nobody reads, several readers of the image, and a layer that reads all.
TEXTS = (
    "|3x1 2|1x3 3|3x3 3 from 0,1|1x1 2 from 0|",
    "|1x3 3|3x3 2|3x1 3|3x3 2 from 0,1,2|",
    "|3x3 2|1x1 3 from 0|3x3 3|1x3 3|",
)
SETTINGS = {
    "plain": {},
    "masked": {"lowering": "lax"},
    "pools": {"order": "conv_relu_bn", "reference": 3, "pooling": (2,)},
    "branches": {"num_layers": 3},
    "blocks": {"num_layers": 2, "convolutions": 2, "more_filters": 1},
}


def space_of_texts(**settings):
    return nas_rl_space(**{"num_layers": 4, "num_classes": 3, "filters": (3, 2), "kernels": (1, 3), **settings})


def made(**settings):
    """A space, its plan, and weights of the canvas none of which is zero or one."""
    space = space_of_texts(**settings)
    plan = layer_plan(space)
    params = jax.jit(functools.partial(canvas_init, plan))(KEY, X)
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    return space, plan, jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), params)


def loss(logits):
    return jnp.sum(jnp.sin(logits + jnp.arange(logits.size).reshape(logits.shape)))


def close(found, wanted, tolerance=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, wanted)


def zero_where(unused, tree):
    jax.tree.map(lambda leaf, out: np.testing.assert_array_equal(np.where(out, leaf, 0), 0), tree, unused)


@pytest.mark.parametrize("name", SETTINGS)
def test_logits_and_gradients_are_those_of_a_network_of_its_own(name, monkeypatch):
    monkeypatch.setattr(canvas_module, "BRANCHING", 3 if name == "branches" else 4)
    settings = SETTINGS[name]
    space, plan, params = made(**settings)
    traced = []

    @jax.jit
    def canvas(params, arch):
        traced.append(arch)
        return jax.value_and_grad(lambda params: loss(canvas_apply(plan, params, sparse_paths(arch), X)))(params)

    for text in TEXTS if name == "plain" else TEXTS[1:2]:
        arch = nas_rl_prefix(space_of_texts().about.parse(text), plan.num_layers)
        value, grads = canvas(params, jax.tree.map(np.asarray, arch))
        network = space.about.network(arch, running=False, reference=settings.get("reference", 0))
        own = jax.jit(jax.value_and_grad(lambda params, apply=network.apply: loss(apply({"params": params}, X)[0])))
        wanted, own_grads = own(canvas_cut(plan, params, arch))
        close(value, wanted)
        close(canvas_cut(plan, grads, arch), own_grads)
        # What the network does not have gets a gradient of exactly zero.
        used = jax.jit(functools.partial(canvas_used, plan))(params, sparse_paths(arch))
        count = sum(int(leaf.sum()) for leaf in jax.tree.leaves(used))
        assert count == space.about.counts(arch, X.shape[1:])["parameters"]
        zero_where(jax.tree.map(jnp.logical_not, used), grads)
    assert len(traced) == 1


def test_fifty_architectures_share_a_program():
    space, plan, params = made()
    canvas = jax.jit(lambda params, arch: canvas_apply(plan, params, sparse_paths(arch), X))
    archs = random_archs(KEY, space, 50)
    logits = [np.asarray(canvas(params, jax.tree.map(lambda leaf, n=n: leaf[n], archs))) for n in range(50)]
    assert canvas._cache_size() == 1
    assert np.isfinite(logits).all()
    assert len(np.unique(np.array(logits)[:, 0, 0])) > 45


@pytest.mark.parametrize("lowering", ["shifts", "lax"])
def test_architectures_side_by_side_are_those_in_turn(lowering):
    space, plan, params = made(num_layers=3, lowering=lowering)
    archs = random_archs(KEY, space, 3)
    step = jax.grad(lambda params, arch: loss(canvas_apply(plan, params, sparse_paths(arch), X)))
    beside = jax.jit(jax.vmap(step, (None, 0)))(params, archs)
    close(beside, jax.jit(lambda params, archs: jax.lax.map(lambda arch: step(params, arch), archs))(params, archs))


def test_options_that_are_probed_get_the_gradients_of_the_dense_form():
    space, plan, params = made(num_layers=3)
    arch = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), random_archs(KEY, space, 1))
    dense = one_hot_paths(space.choices, arch)

    def of_dense(params, weight):
        return loss(canvas_apply(plan, params, dense_paths(weight), X))

    def of_probe(params, weight):
        paths = sparse_paths(arch)
        every = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.arange(leaf.shape[1]), leaf.shape), space.choices)
        return loss(canvas_apply(plan, params, Paths(paths.index, paths.weight, Paths(every, weight)), X))

    wanted = jax.jit(jax.value_and_grad(of_dense, (0, 1)))(params, dense.weight)
    close(jax.jit(jax.value_and_grad(of_probe, (0, 1)))(params, dense.weight), wanted, 1e-4)
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(wanted[1][1]["filters"]))


def test_weights_of_options_mix_their_masks():
    _, plan, params = made(num_layers=1)
    weight = {"filters": jnp.array([[0.4, 0.6]]), "height": jnp.array([[0.3, 0.7]]), "width": jnp.array([[0.5, 0.5]])}
    # By hand: rows by height, columns by width, and the third filter by the option that has three.
    area = np.outer([0.7, 1.0, 0.7], [0.5, 1.0, 0.5])[:, :, None, None]
    weights = params["layer0"]["conv0"]
    y = np.asarray(conv(X, weights["kernel"] * area))
    y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-3)
    scale, bias = (np.asarray(weights["norm"][name]) for name in ("scale", "bias"))
    y = np.maximum(y * scale + bias, 0) * np.array([1.0, 1.0, 0.4])
    wanted = y.mean((1, 2)) @ np.asarray(params["classifier"]["kernel"]) + np.asarray(params["classifier"]["bias"])
    close(canvas_apply(plan, params, dense_paths(weight), X, eps=1e-3), wanted)
    assert all(leaf.all() for leaf in jax.tree.leaves(canvas_used(plan, params, dense_paths(weight))))


def test_first_weights_are_scaled_by_the_inputs_of_the_child():
    space, plan, _ = made(num_layers=3, filters=(12, 20), kernels=(1, 3, 5))
    init, used = jax.jit(functools.partial(canvas_init, plan)), jax.jit(functools.partial(canvas_used, plan))
    archs = random_archs(jax.random.key(8), space, 3)
    squares, wrong = [], []
    for number in range(3):
        arch = jax.tree.map(lambda leaf, n=number: np.asarray(leaf[n]), archs)
        first = init(KEY, X, arch)
        zero_where(jax.tree.map(jnp.logical_not, used(first, sparse_paths(arch))), first)
        cut = jax.device_get(canvas_cut(plan, first, arch))
        assert all((cut[f"layer{i}"]["conv0"]["norm"]["scale"] == 1).all() for i in range(3))
        assert all((cut[f"layer{i}"]["conv0"]["norm"]["bias"] == 0).all() for i in range(3))
        kernels = [cut[f"layer{i}"]["conv0"]["kernel"] for i in range(3)]
        for kernel in [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels] + [cut["classifier"]["kernel"]]:
            squares.append(kernel.ravel() ** 2 * len(kernel))
            wrong.append(squares[-1] * kernel.shape[1] / len(kernel))  # outputs instead of inputs
        assert np.abs(cut["classifier"]["bias"]).max() <= 1 / math.sqrt(len(cut["classifier"]["kernel"]))

    def score(squares):
        # The square of a uniform number in +-1 has the mean 1/3 and the variance 4/45.
        values = np.concatenate(squares)
        return abs(values.mean() - 1 / 3) / math.sqrt(4 / 45 / values.size)

    assert np.concatenate(squares).max() <= 1 + 1e-5
    assert score(squares) < 4.5
    assert score(wrong) > 4.5


def test_all_weights_of_a_supernet_are_drawn():
    _, plan, _ = made()
    first = canvas_init(plan, KEY, X)
    assert all((leaf != 0).all() for path, leaf in jax.tree_util.tree_leaves_with_path(first) if path[-1].key != "bias")
    kernel = first["layer3"]["conv0"]["kernel"]
    assert kernel.shape == (3, 3, 2 + 3 * 3, 3)
    assert 0.9 < np.abs(kernel).max() * math.sqrt(9 * 11) <= 1


def test_computation_in_bfloat16_keeps_logits_in_float32():
    space, plan, params = made(dtype="bfloat16")
    arch = space.about.parse(TEXTS[0])
    logits = jax.jit(functools.partial(canvas_apply, plan))(params, sparse_paths(arch), X)
    exact = jax.jit(functools.partial(canvas_apply, made()[1]))(params, sparse_paths(arch), X)
    assert logits.dtype == jnp.float32
    error = float(jnp.abs(logits - exact).max())
    assert 0 < error < 0.1


def test_gates_of_outputs_are_refused():
    _, plan, params = made(num_layers=1)
    index = {kind: jnp.zeros((1, 1), jnp.int32) for kind in ("filters", "height", "width")}
    weight = {kind: jnp.ones((1, 2)) for kind in index}
    with pytest.raises(UserError, match=r"paths: weights of shape \(1, 2\) beside an index of shape \(1, 1\)"):
        canvas_apply(plan, params, Paths(index, weight), X)


WIDTHS = ((2, 4), (5, 3))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 1), (1, 5), (3, 3), (0, 0)])
def test_a_kernel_that_is_partly_zero_is_convolved_by_the_part_in_use(rows, columns):
    x = jax.random.normal(KEY, (2, 6, 7, 4))
    kernel = jax.random.normal(jax.random.key(5), (3, 5, 4, 5))
    g = jax.random.normal(jax.random.key(6), (2, 6, 7, 5))
    inside = np.zeros((3, 5, 1, 1), np.float32)
    inside[1 - rows // 2 : 1 + (rows + 1) // 2, 2 - columns // 2 : 2 + (columns + 1) // 2] = 1
    value = jax.jit(functools.partial(conv_in_use, WIDTHS))
    gradients = jax.jit(lambda x, k, use, g: jax.vjp(lambda x, k: conv_in_use(WIDTHS, x, k, use), x, k)[1](g))
    for inputs, outputs in np.ndindex(2, 2):
        use = InUse(*map(jnp.int32, (rows, columns, inputs, outputs)))
        narrow = (np.arange(4) < WIDTHS[0][inputs]).astype(np.float32).reshape(1, 1, 1, 4)
        fewer = (np.arange(5) < WIDTHS[1][outputs]).astype(np.float32).reshape(1, 1, 1, 5)
        mask = inside * narrow.reshape(1, 1, 4, 1) * fewer
        y, pull = jax.vjp(conv, x * narrow, kernel * mask)
        close(value(x * narrow, kernel, use), y)
        to_images, to_kernel = pull(g * fewer)
        close(gradients(x * narrow, kernel, use, g * fewer), (to_images * narrow, to_kernel * mask))
