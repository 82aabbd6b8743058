"""What every estimator has in common, checked for one table of all of them.

To add an estimator, add a row to `ROWS`: a name and a factory without arguments, once for each of its modes that has
code of its own. Everything below then runs on it; put what is special to it into `test_oracles.py`. The loss takes
dense and sparse paths and probes, and its weights are a plain dictionary. `temperature` says what the estimator's
`info["temperature"]` reads at its first two steps, where it has one.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import Estimate, Estimator
from jaxnas.estimators import exact, pathwise
from jaxnas.relaxations import annealed, gumbel_softmax, softmax, straight_through
from jaxnas.spaces import gates

ANNEALED = annealed(1.0, 0.5, epochs=4)


class Row(NamedTuple):
    name: str
    factory: Callable[[], Estimator]
    temperature: tuple[float, float] | None = None


ROWS = [
    Row("exact", exact),
    Row("exact sparse", lambda: exact(dense=False)),
    Row("softmax", lambda: pathwise(softmax), (1.0, 1.0)),
    Row("gumbel_softmax", lambda: pathwise(gumbel_softmax, ANNEALED), (0.875, 0.75)),
    Row("gumbel_softmax, 3 samples", lambda: pathwise(gumbel_softmax, 0.7, num_samples=3), (0.7, 0.7)),
    Row("straight-through", lambda: pathwise(straight_through(gumbel_softmax), ANNEALED), (0.875, 0.75)),
]
EVERY = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])

KEY = jax.random.key(0)
LOGITS = {"a": jnp.array([[0.4, -0.7, 1.1], [0.2, 0.3, -1.0]]), "b": jnp.array([[0.8, -0.2]])}
PARAMS = {
    "ops": jnp.linspace(-1.0, 1.0, 18).reshape(2, 3, 3),
    "gain": jnp.array([0.5, -1.5]),
    "bias": jnp.array(0.3),
}


def loss_fn(paths, params):
    """A smooth loss in the gates of both leaves and in all weights; the auxiliary output is a dictionary."""
    a = gates(paths.select(lambda tree: tree["a"]), 3)
    b = gates(paths.select(lambda tree: tree["b"]), 2)
    x = jnp.tanh(jnp.einsum("ek,ekd->d", a, params["ops"]) + params["bias"])
    loss = jnp.sum(x**2 * (1 + b[0] @ params["gain"]))
    return loss, {"accuracy": jnp.mean(x)}


def start(row, logits=LOGITS):
    estimator = row.factory()
    return estimator, estimator.init(KEY, logits)


def run(estimator):
    """`(key, state, logits) -> (state, estimate)` on the loss above."""
    return lambda key, state, logits=LOGITS: estimator.estimate(key, state, logits, loss_fn, PARAMS)


@functools.cache
def compiled(row):
    """`run` as a program that all tests of a row share, and that refuses to be traced twice."""
    estimate, traces = run(row.factory()), []

    def once(key, state, logits):
        traces.append(key)
        assert len(traces) == 1, f"{row.name} was traced {len(traces)} times"
        return estimate(key, state, logits)

    return jax.jit(once)


@EVERY
def test_parameter_names(row):
    estimator = row.factory()
    assert list(inspect.signature(estimator.init).parameters) == ["key", "policy_params"]
    names = ["key", "state", "policy_params", "loss_fn", "params"]
    assert list(inspect.signature(estimator.estimate).parameters) == names


@EVERY
def test_state_is_a_fixed_point_and_gradients_look_like_what_they_are_of(row):
    estimator, state = start(row)
    new, estimate = jax.eval_shape(run(estimator), KEY, state)
    assert isinstance(estimate, Estimate)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(estimate.policy_grads, LOGITS)
    chex.assert_trees_all_equal_shapes_and_dtypes(estimate.weight_grads, PARAMS)
    scalars = [estimate.value, estimate.aux["accuracy"], *estimate.info.values()]
    assert all(leaf.shape == () for leaf in scalars)
    assert jax.tree.structure(estimate.paths.weight) == jax.tree.structure(LOGITS)


@EVERY
def test_jit_equals_eager_and_gradients_are_finite(row):
    estimator, state = start(row)
    eager = run(estimator)(KEY, state, LOGITS)
    chex.assert_trees_all_close(compiled(row)(KEY, state, LOGITS), eager, rtol=1e-5, atol=1e-6)
    chex.assert_tree_all_finite(eager)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(eager[1].weight_grads))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(eager[1].policy_grads))


@EVERY
def test_vmap_over_keys_equals_a_loop(row):
    estimator, state = start(row)
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(run(estimator), (0, None)))(keys, state)
    for i, key in enumerate(keys):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        chex.assert_trees_all_close(own, compiled(row)(key, state, LOGITS), rtol=1e-5, atol=1e-6)


@EVERY
def test_scan_equals_a_loop_and_repeats_do_not_trace_again(row):
    estimator, state = start(row)
    keys = jax.random.split(KEY, 3)
    last, estimates = jax.jit(lambda keys: jax.lax.scan(lambda s, key: run(estimator)(key, s), state, keys))(keys)
    for i, key in enumerate(keys):
        state, estimate = compiled(row)(key, state, LOGITS)
        own = jax.tree.map(lambda leaf, i=i: leaf[i], estimates)
        chex.assert_trees_all_close(own, estimate, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(last, state)


@EVERY
def test_bfloat16_in_is_bfloat16_out(row):
    logits, params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (LOGITS, PARAMS))
    estimator, state = start(row, logits)

    def estimate(logits, params):
        return estimator.estimate(KEY, state, logits, loss_fn, params)

    new, found = jax.eval_shape(estimate, logits, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal_dtypes(found.policy_grads, logits)
    chex.assert_trees_all_equal_dtypes(found.weight_grads, params)
    chex.assert_trees_all_equal_dtypes(jax.eval_shape(estimate, logits, PARAMS)[1].weight_grads, PARAMS)
    chex.assert_trees_all_equal_dtypes(jax.eval_shape(estimate, LOGITS, params)[1].policy_grads, LOGITS)
    if found.paths.index is None:
        chex.assert_trees_all_equal_dtypes(found.paths.weight, logits)


@EVERY
def test_a_shift_of_logits_changes_nothing(row):
    _, state = start(row)
    _, estimate = compiled(row)(KEY, state, LOGITS)
    _, shifted = compiled(row)(KEY, state, jax.tree.map(lambda leaf: leaf + 2.0, LOGITS))
    chex.assert_trees_all_close(shifted, estimate, rtol=1e-4, atol=1e-5)
    for leaf in jax.tree.leaves(shifted.policy_grads):
        np.testing.assert_allclose(leaf.sum(-1), 0.0, atol=1e-5)


@EVERY
def test_schedules_of_temperature_advance_with_the_state(row):
    _, state = start(row)
    state, first = compiled(row)(KEY, state, LOGITS)
    state, second = compiled(row)(KEY, state, LOGITS)
    if row.temperature is None:
        assert "temperature" not in first.info
    else:
        found = float(first.info["temperature"]), float(second.info["temperature"])
        assert found == pytest.approx(row.temperature, rel=1e-6)


def test_a_temperature_can_be_swept_under_vmap():
    @jax.jit
    @jax.vmap
    def grads(temperature):
        estimator = pathwise(gumbel_softmax, temperature)
        return estimator.estimate(KEY, estimator.init(KEY, LOGITS), LOGITS, loss_fn, PARAMS)[1].policy_grads

    row = Row("gumbel_softmax, at 0.7", lambda: pathwise(gumbel_softmax, 0.7))
    expected = compiled(row)(KEY, start(row)[1], LOGITS)[1].policy_grads
    cold, mild = (jax.tree.map(lambda leaf, i=i: leaf[i], grads(jnp.array([0.7, 1.0]))) for i in (0, 1))
    chex.assert_trees_all_close(cold, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(mild["a"] - cold["a"]).max() > 1e-2


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_above_zero(temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        pathwise(gumbel_softmax, temperature)


def test_number_of_samples_and_of_architectures_are_bounded():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        pathwise(num_samples=0)
    with pytest.raises(ValueError, match="18 architectures, more than the limit of 17"):
        run(exact(limit=17))(KEY, exact().init(KEY, LOGITS))
