"""What did not take part stays as it is, for any optax transformation, and the rest moves as if it were alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.searchers import skip_unused

PARAMS = {"a": jnp.arange(1.0, 7.0).reshape(3, 2), "b": jnp.array(2.0), "c": jnp.ones(4)}
USED = {"a": jnp.array([[True], [False], [True]]), "b": True, "c": False}
TRANSFORMS = {
    "sgd": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9, nesterov=True)),
    "adam": lambda: optax.adamw(0.1, weight_decay=0.1),
    "rmsprop": lambda: optax.rmsprop(0.1, momentum=0.5),
    "schedule": lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "lion": lambda: optax.lion(0.1, weight_decay=0.1),
}
EVERY = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)


def gradients(step):
    """Of the whole tree; what does not run has none, so zeros."""
    full = jax.tree.map(lambda leaf: jnp.cos(leaf + step), PARAMS)
    return jax.tree.map(lambda g, own: jnp.where(own, g, 0.0), full, USED)


def used(params, paths):
    """What took part, as a rule of the space would read it from the paths."""
    del params
    return paths["used"]


def stepped(tx, params, state, step, **extra):
    updates, state = tx.update(gradients(step), state, params, **extra)
    return optax.apply_updates(params, updates), state


def warm(tx, steps=3):
    """A state whose moments are not zero anywhere."""
    params, state = PARAMS, tx.init(PARAMS)
    for step in range(steps):
        updates, state = tx.update(jax.tree.map(lambda leaf: jnp.sin(leaf + step), PARAMS), state, params)  # noqa: B023
        params = optax.apply_updates(params, updates)
    return params, state


def moments(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.shape == (4,)]


@EVERY
def test_what_is_not_used_stays_bit_for_bit(make):
    tx = skip_unused(make(), used)
    params, state = warm(tx)
    step = jax.jit(lambda p, s, i, used: stepped(tx, p, s, i, paths={"used": used}))
    after, new = params, state
    for i in range(3):
        after, new = step(after, new, i, USED)
    np.testing.assert_array_equal(after["c"], params["c"])
    np.testing.assert_array_equal(after["a"][1], params["a"][1])
    chex.assert_trees_all_equal(moments(new), moments(state))
    rows = [leaf for leaf in jax.tree.leaves(new) if leaf.shape == (3, 2)]
    before = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (3, 2)]
    for one, other in zip(rows, before, strict=True):
        np.testing.assert_array_equal(one[1], other[1])
    assert not np.array_equal(after["a"][0], params["a"][0])
    assert float(after["b"]) != float(params["b"])


@EVERY
def test_a_plain_optimiser_would_have_moved_it(make):
    """The wrong variant: a gradient of zeros."""
    tx = make()
    params, state = warm(tx)
    after, new = stepped(tx, params, state, 0)
    moved = not np.array_equal(after["c"], params["c"])
    assert moved or any(not np.array_equal(a, b) for a, b in zip(moments(new), moments(state), strict=True))


@EVERY
def test_what_is_used_moves_as_in_the_plain_optimiser(make):
    tx, plain = skip_unused(make(), used), make()
    params, state = warm(tx)
    after, new = stepped(tx, params, state, 0, paths={"used": USED})
    expected, _ = stepped(plain, params, state, 0)
    np.testing.assert_array_equal(after["b"], expected["b"])
    np.testing.assert_array_equal(after["a"][::2], expected["a"][::2])
    everything, _ = stepped(tx, params, state, 0)
    chex.assert_trees_all_equal(everything, expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
