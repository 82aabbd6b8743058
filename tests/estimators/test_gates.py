"""Estimators that look into the choice between operations, on chains of small operations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Paths, dense_paths, one_hot_paths
from jaxnas.estimators import binary_gate, gdas, pathwise, two_path_gate, two_path_rescale
from jaxnas.relaxations import st_gumbel
from jaxnas.spaces import chain_space

KEY = jax.random.key(7)
X = jax.random.normal(jax.random.key(1), (5, 3))
OPS = {"sin": jnp.sin, "half": lambda x: 0.5 * x + 0.3, "cube": lambda x: x**3 / 4, "zero": lambda x: 0.0 * x}
SPACE = chain_space(OPS, 2)
LOGITS = {"chain": jnp.array([[0.4, -0.7, 1.1, 0.1], [0.2, 0.3, -1.0, -0.5]])}


def loss_fn(paths, params):
    return jnp.sum(jnp.tanh(SPACE.apply(params, paths, X)) ** 2) + jnp.sum(SPACE.apply(params, paths, X)), None


PARAMS = SPACE.init(KEY, X)


def estimate(estimator, key=KEY):
    return jax.jit(lambda key: estimator.estimate(key, estimator.init(key, LOGITS), LOGITS, loss_fn, PARAMS)[1])(key)


def gate_gradient(arch):
    """`<dL/dy, o_j(x)>` of every operation, by differentiating the dense form at an architecture."""
    weight = one_hot_paths(SPACE.choices, arch).weight
    return jax.jit(jax.grad(lambda weight: loss_fn(dense_paths(weight), PARAMS)[0]))(weight)["chain"]


def through(q, g):
    return q * (g - jnp.sum(q * g, -1, keepdims=True))


def test_one_path_in_memory_gives_the_gradient_of_all_paths():
    found = estimate(binary_gate())
    g = gate_gradient(jax.tree.map(lambda leaf: leaf[:, 0], found.paths.index))
    wanted = through(jax.nn.softmax(LOGITS["chain"]), g)
    np.testing.assert_allclose(found.policy_grads["chain"], wanted, rtol=1e-5, atol=1e-6)
    own = estimate(binary_gate(), jax.random.key(8)).policy_grads["chain"]
    assert np.abs(own - wanted).max() > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_two_paths_share_what_the_pair_has(seed):
    found = estimate(two_path_gate(), jax.random.key(seed))
    pair, active = found.paths.probe.index["chain"], found.paths.index["chain"]
    assert np.all(pair[:, 0] != pair[:, 1])
    assert np.all(np.any(pair == active, -1))
    g = gate_gradient({"chain": active[:, 0]})
    q = jax.nn.softmax(jnp.take_along_axis(LOGITS["chain"], pair, -1))
    wanted = np.zeros((2, 4), np.float32)
    np.put_along_axis(wanted, np.asarray(pair), np.asarray(through(q, jnp.take_along_axis(g, pair, -1))), -1)
    np.testing.assert_allclose(found.policy_grads["chain"], wanted, rtol=1e-5, atol=1e-6)


def test_rescaling_keeps_the_probabilities_of_what_was_not_drawn():
    logits, step = {"e": jnp.array([[0.2, 0.5, -0.3, 0.9]])}, {"e": jnp.array([[0.0, 0.01, 0.0, -0.007]])}
    pair = {"e": jnp.array([[3, 1]], jnp.int32)}
    paths = Paths({"e": jnp.array([[1]])}, {"e": jnp.ones((1, 1))}, Paths(pair, {"e": jnp.zeros((1, 2))}))
    tx = two_path_rescale()
    update, _ = tx.update(step, tx.init(logits), logits, paths=paths)

    def others(step):
        return np.asarray(jax.nn.softmax(logits["e"] + step["e"])[0, jnp.array([0, 2])], np.float64)

    np.testing.assert_allclose(others(update), [0.20120149, 0.12203487], atol=1e-7)
    np.testing.assert_allclose(others(step), [0.20122095, 0.12204668], atol=1e-7)  # without the rescale
    apart = update["e"][0, 1] - update["e"][0, 3]
    np.testing.assert_allclose(apart, 0.017, atol=1e-6)


def test_rescaling_ends_a_chain_of_optax_and_names_what_it_misses():
    tx = optax.chain(optax.adam(0.1, b1=0.0), two_path_rescale())
    state, found = tx.init(LOGITS), estimate(two_path_gate())
    update, _ = jax.jit(lambda grads, paths: tx.update(grads, state, LOGITS, paths=paths))(
        found.policy_grads, found.paths
    )
    before, after = (jax.nn.softmax(leaf) for leaf in (LOGITS["chain"], (LOGITS["chain"] + update["chain"])))
    drawn = np.zeros((2, 4), bool)
    np.put_along_axis(drawn, np.asarray(found.paths.probe.index["chain"]), True, -1)
    np.testing.assert_allclose(after[~drawn], before[~drawn], atol=1e-7)
    assert np.abs(after - before)[drawn].min() > 1e-3
    for paths in (None, estimate(binary_gate()).paths):
        with pytest.raises(ValueError, match="needs the logits as params and the paths of two_path_gate"):
            tx.update(found.policy_grads, state, LOGITS, paths=paths)


def test_gdas_adds_gates_of_operations_that_do_not_run():
    # The release in one line: sum of h_k o_k(x) for the sampled k and of h_k alone for the others.
    found = estimate(gdas(0.7))
    index = found.paths.index["chain"][:, 0]

    def released(logits):
        h, x = st_gumbel(optax.tree.split_key_like(KEY, LOGITS)["chain"], logits, 0.7), X
        for row, i in zip(h, index, strict=True):
            y = list(OPS.values())[int(i)](x)
            x = row[i] * y + sum(row[k] for k in range(4) if k != i)
        return jnp.sum(jnp.tanh(x) ** 2) + jnp.sum(x)

    value, grad = jax.value_and_grad(released)(LOGITS["chain"])
    np.testing.assert_allclose(found.value, value, rtol=1e-6)
    np.testing.assert_allclose(found.policy_grads["chain"], grad, rtol=1e-4, atol=1e-6)
    right = estimate(pathwise(st_gumbel, 0.7))
    np.testing.assert_allclose(right.value, value, rtol=1e-5)
    assert np.abs(right.policy_grads["chain"] - grad).max() > 1e-2
    used = SPACE.used(PARAMS, found.paths)
    chex.assert_trees_all_equal_structs(used, jax.tree.map(lambda leaf: True, PARAMS))
