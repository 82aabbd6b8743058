"""Training a stand-alone network, and the loss and the score of classifiers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Network
from jaxnas.searchers import sgd_l2
from jaxnas.spaces import darts_space
from jaxnas.train import cross_entropy, hits, stand_alone

KEY = jax.random.key(1)
BATCH = jax.random.normal(KEY, (8, 4)), jax.random.randint(KEY, (8,), 0, 3)
SGD = functools.partial(sgd_l2, 0.1, clip=1.0)


def images(number=8, side=8):
    key_x, key_y = jax.random.split(KEY)
    return jax.random.normal(key_x, (number, side, side, 3)), jax.random.randint(key_y, (number,), 0, 3)


# Stand-alone networks


def recorder(calls, auxiliary=False):
    """A network of one dense layer that notes how it is called and counts batches in its statistics."""

    def init(key, x):
        return {"params": jax.random.normal(key, (x.shape[-1], 3)), "batch_stats": {"seen": jnp.zeros(())}}

    def apply(variables, x, *, key=None, train=False, drop_path=None):
        calls.append((key is not None, train, drop_path))
        y = x @ variables["params"] * (1.0 if drop_path is None else 1.0 - drop_path)
        stats = {"seen": variables["batch_stats"]["seen"] + jnp.mean(x)}
        return ((y, 2 * y) if auxiliary else y), {**variables, "batch_stats": stats}

    return Network(init, apply)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_loss_of_a_network_adds_its_auxiliary_head(auxiliary):
    calls = []
    trainer = stand_alone(recorder(calls, auxiliary), optax.sgd(0.5), auxiliary_weight=0.4, label_smoothing=0.1)
    state = trainer.init(KEY, BATCH[0])
    new, info = jax.jit(trainer.step)(KEY, state, BATCH)
    assert calls == [(False, True, None)]

    def expected(params):
        y = BATCH[0] @ params
        return cross_entropy(y, BATCH[1], 0.1) + auxiliary * 0.4 * cross_entropy(2 * y, BATCH[1], 0.1)

    loss, grads = jax.value_and_grad(expected)(state.variables["params"])
    assert info["loss"] == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(new.variables["params"], state.variables["params"] - 0.5 * grads, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new.variables["batch_stats"]["seen"], BATCH[0].mean(), rtol=1e-5)
    assert new.step == 1


def test_drop_path_follows_a_schedule_of_the_step():
    calls = []
    trainer = stand_alone(recorder(calls), optax.sgd(0.0), drop_path=lambda step: 0.25 * step)
    state, step = trainer.init(KEY, BATCH[0]), jax.jit(trainer.step)
    y = BATCH[0] @ state.variables["params"]
    for n in range(3):
        state, info = step(KEY, state, BATCH)
        assert info["loss"] == pytest.approx(float(cross_entropy((1 - 0.25 * n) * y, BATCH[1])), rel=1e-5)
    assert [call[:2] for call in calls] == [(True, True)]
    constant = stand_alone(recorder(calls), optax.sgd(0.0), drop_path=0.5)
    _, last = jax.jit(constant.step)(KEY, state, BATCH)
    assert last["loss"] == pytest.approx(float(info["loss"]), rel=1e-5)


def test_a_step_without_a_finite_loss_changes_only_the_count():
    trainer = stand_alone(recorder([]), SGD())
    state, step = trainer.init(KEY, BATCH[0]), jax.jit(trainer.step)
    new, info = step(KEY, state, (BATCH[0].at[0].set(jnp.nan), BATCH[1]))
    assert np.isnan(info["loss"])
    assert info["nonfinite"] == 1
    chex.assert_trees_all_equal(new, state._replace(step=state.step + 1, bad=state.bad + 1))
    for _ in range(3):
        new, info = step(KEY, new, BATCH)
    assert (new.step, new.bad, info["nonfinite"]) == (4, 1, 0)
    assert not np.array_equal(new.variables["params"], state.variables["params"])


def test_statistics_that_come_out_infinite_are_rejected():
    """Loss and gradient do not see them, and a running average never gets rid of an infinity."""
    network = recorder([])

    def apply(variables, x, *, key=None, train=False, drop_path=None):
        y, after = network.apply(variables, x, key=key, train=train, drop_path=drop_path)
        return y, {**after, "batch_stats": {"seen": after["batch_stats"]["seen"] * 3e38 * 1e9}}

    trainer = stand_alone(Network(network.init, apply), SGD())
    state = trainer.init(KEY, BATCH[0])
    new, info = jax.jit(trainer.step)(KEY, state, BATCH)
    assert np.isfinite(info["loss"])
    assert info["nonfinite"] == 1
    chex.assert_trees_all_equal(new, state._replace(step=state.step + 1, bad=state.bad + 1))


def test_a_network_of_the_darts_space_trains_with_drop_path():
    space = darts_space(4, 1, 3, nodes=2, stem_multiplier=1, operations=("none", "skip_connect", "dil_conv_3x3"))
    network = space.about.network({kind: np.array([2, 1, 2, 0, 2]) for kind in ("normal", "reduce")})
    rate = lambda step: jnp.where(step < 10, 0.0, 0.9)  # noqa: E731
    plain, dropped = (stand_alone(network, SGD(weight_decay=0.0), drop_path=p) for p in (0.0, rate))
    state = jax.jit(plain.init)(KEY, images()[0])
    plain_step, step = jax.jit(plain.step), jax.jit(dropped.step)
    (expected, first), (found, info) = plain_step(KEY, state, images()), step(KEY, state, images())
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)  # nothing is dropped at rate zero
    late = state._replace(step=jnp.asarray(10, jnp.int32))
    losses = [float(step(key, late, images())[1]["loss"]) for key in (KEY, KEY, jax.random.key(2))]
    assert losses[0] == losses[1] != losses[2]
    for _ in range(15):
        state, info = plain_step(KEY, state, images())
    assert info["loss"] < 0.7 * first["loss"]
    stats = jax.tree.leaves(state.variables["batch_stats"])
    assert all(np.abs(leaf).max() > 0 for leaf in stats)


# Measures


def test_hits_are_one_zero_or_unknown():
    logits = jnp.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [jnp.nan, 1.0]])
    for dtype in (jnp.int32, jnp.uint8, jnp.int8):
        labels = jnp.array([0, 1, 2, 0, 0], dtype)
        np.testing.assert_array_equal(hits(logits, labels), [1, 0, np.nan, 1, np.nan])
    wide = jnp.zeros((1, 300)).at[0, 256].set(1.0)
    np.testing.assert_array_equal(hits(wide, jnp.zeros(1, jnp.uint8)), [0])  # class 256 is not class 0 of eight bits


@pytest.mark.parametrize(
    "labels", [jnp.zeros((3, 1), jnp.int32), jnp.zeros(3), jnp.zeros(2, jnp.int32), jnp.zeros((), jnp.int32)]
)
def test_labels_of_another_form_are_refused_when_traced(labels):
    for fn in (cross_entropy, hits):
        with pytest.raises(ValueError, match=rf"labels must be integers of shape \(3,\), got {labels.dtype} of shape"):
            jax.eval_shape(fn, jnp.zeros((3, 4)), labels)


def test_a_label_outside_of_the_classes_is_nan_and_no_step_is_taken():
    for label in (-1, 3):
        for smoothing in (0.0, 0.1):
            assert np.isnan(cross_entropy(jnp.zeros((2, 3)), jnp.array([0, label]), smoothing))
        trainer = stand_alone(recorder([], auxiliary=True), SGD(), label_smoothing=0.1)
        state = trainer.init(KEY, BATCH[0])
        new, info = jax.jit(trainer.step)(KEY, state, (BATCH[0], BATCH[1].at[2].set(label)))
        assert info["nonfinite"] == 1
        chex.assert_trees_all_equal(new.variables, state.variables)


def test_cross_entropy_is_a_mean_in_float32():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]], np.float32)
    log_p, labels = np.asarray(jax.nn.log_softmax(logits)), np.array([2, 1])
    for smoothing in (0.0, 0.3):
        targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
        found = cross_entropy(jnp.asarray(logits, jnp.bfloat16), labels, smoothing)
        assert found.dtype == jnp.float32
        assert found == pytest.approx(-(targets * log_p).sum(-1).mean(), rel=1e-5)
    assert jnp.isfinite(cross_entropy(jnp.array([[0.0, -jnp.inf]]), jnp.array([0])))
