"""The canvas of NAS-RL's layers with predicted strides computes what the networks of their own compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import one_hot_paths, sparse_paths
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl import layer_plan, nas_rl_space
from jaxnas.spaces.nas_rl.canvas import canvas_cut

# Layers of different sizes, an orphan, and a second reader of the image; every stride along both axes.
TEXTS = (
    "|3x1/2x1 2|1x3/1x3 3|3x3/1x2 3 from 0,1|1x1/3x1 2 from 0|",
    "|1x3/1x2 3|3x3/1x1 2 from 0|3x1/3x3 2|3x3/2x2 3 from 1,2|",
)
SETTINGS = (
    {},
    {"order": "conv_relu_bn", "reference": 4, "pooling": (1, 3)},
    {"convolutions": 2, "pooling": (2,), "more_filters": 1},
)


def _problem(settings):
    """A space, images of 7 by 6 pixels, and weights of its canvas away from their first values."""
    space = nas_rl_space(4, 3, filters=(2, 3), kernels=(1, 3), strides=(1, 2, 3), **settings)
    x = jax.random.normal(jax.random.key(0), (5, 7, 6, 2))
    params = jax.jit(space.init)(jax.random.key(1), x)
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), params)
    return space, x, params


def _loss(apply, weights, x):
    logits = apply(weights, x)
    return jnp.sum(logits * jnp.arange(logits.size).reshape(logits.shape)), logits


@pytest.mark.parametrize(
    ("settings", "texts"), [(SETTINGS[0], TEXTS), (SETTINGS[1], TEXTS[1:]), (SETTINGS[2], TEXTS[:1])]
)
def test_logits_and_gradients_are_those_of_a_network_of_its_own(settings, texts):
    space, x, params = _problem(settings)

    @jax.jit
    def canvas(params, arch):
        apply = functools.partial(lambda paths, params, x: space.apply(params, paths, x), sparse_paths(arch))
        return jax.value_and_grad(functools.partial(_loss, apply), has_aux=True)(params, x)

    for text in texts:
        arch = space.about.parse(text)
        (_, found), grads = canvas(params, arch)
        network = space.about.network(arch, running=False, reference=settings.get("reference", 0))

        def apply(weights, x, network=network):
            return network.apply({"params": weights}, x)[0]

        cut = canvas_cut(layer_plan(space), params, arch)
        own = jax.jit(jax.value_and_grad(functools.partial(_loss, apply), has_aux=True))
        (_, expected), own_grads = own(cut, x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        kept = canvas_cut(layer_plan(space), grads, arch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3), kept, own_grads)
        # What the architecture does not use has a gradient of exactly zero.
        used = space.used(params, sparse_paths(arch))
        assert all(jax.tree.leaves(jax.tree.map(lambda on, leaf: not np.any(leaf[~on]), used, grads)))
    assert canvas._cache_size() == 1


def test_dense_and_sparse_paths_agree():
    space, x, params = _problem(SETTINGS[1])
    arch = space.about.parse(TEXTS[0])
    apply = jax.jit(space.apply)
    sparse = apply(params, sparse_paths(arch), x)
    np.testing.assert_allclose(apply(params, one_hot_paths(space.choices, arch), x), sparse, rtol=1e-5, atol=1e-5)


def test_weights_of_strides_have_gradients():
    space, x, params = _problem({})
    dense = one_hot_paths(space.choices, space.about.parse(TEXTS[0])).weight

    @jax.jit
    def along(step):
        moved = {**dense, "stride_height": dense["stride_height"].at[3, 0].add(step)}
        paths = one_hot_paths(space.choices, space.about.parse(TEXTS[0]))._replace(weight=moved)
        return jnp.sum(space.apply(params, paths, x)[:, 0] * jnp.arange(5.0))

    step = 1e-2
    expected = (along(step) - along(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(along)(0.0), expected, rtol=2e-2)
    assert abs(float(expected)) > 1e-3


def test_a_batch_that_may_leave_too_few_values_to_normalise_over_is_refused():
    space = nas_rl_space(2, 3, filters=(2, 3), kernels=(1, 3), strides=(1, 2), pooling=(1,))
    arch = space.about.parse("|1x1/2x2 2|1x1/2x2 2 from 0|")
    params = jax.eval_shape(space.init, jax.random.key(0), jnp.zeros((4, 8, 8, 1)))

    def logits(space, shape):
        return jax.eval_shape(space.apply, params, sparse_paths(arch), jnp.zeros((*shape, 1)))

    # 8 pixels are divided by a stride, a pooling and a stride, so each image leaves one value.
    message = "batch normalisation needs B\\*H\\*W >= 4, got 3 behind the largest strides of the space"
    for shape, few in ((4, 8, 8), (3, 8, 8)), ((1, 9, 9), (1, 24, 8)):
        assert logits(space, shape).shape == (shape[0], 3)
        with pytest.raises(UserError, match=message):
            logits(space, few)
    # The network of its own refuses the same batch.
    with pytest.raises(UserError, match="needs B\\*H\\*W >= 4, got 3"):
        space.about.network(arch, running=False).init(jax.random.key(0), jnp.zeros((3, 8, 8, 1)))
    # Reference examples alone give the statistics.
    few = nas_rl_space(**{**space.about.config, "reference": 3})
    with pytest.raises(UserError, match=message):
        logits(few, (8, 8, 8))
