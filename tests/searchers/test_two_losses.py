"""A searcher with two losses, made of the library's parts: a second path teaches the sampled one (as in Cream)."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.architectures import enumerate_architectures
from jaxnas.base import Batch, sparse_paths
from jaxnas.estimators import binary_gate
from jaxnas.policies import categorical
from jaxnas.searchers import alternating, classification_loss, gradient_search
from jaxnas.spaces import chain_space

KEY = jax.random.key(8)
OPS = {"dense": nn.Dense(5), "tanh": jnp.tanh, "half": lambda x: x / 2}
SPACE = chain_space(OPS, 3, stem=nn.Dense(5), head=nn.Dense(4))
POLICY = categorical(SPACE.choices)
X, Y = jax.random.normal(KEY, (16, 3)), jnp.arange(16) % 4
BATCH = Batch((X, Y), (X[::-1], Y[::-1]))


def divergence(taught, logits):
    """`KL(teacher || student)`, mean over the examples; the teacher is a constant."""
    targets = jax.nn.softmax(jax.lax.stop_gradient(taught))
    return optax.losses.kl_divergence(jax.nn.log_softmax(logits), targets).mean()


def distilling(factor):
    """A search in which the student, a sampled path, is also drawn to what another sampled path says."""

    def step(parts, key, state, batch):
        key_teacher, key_student = jax.random.split(key)
        teacher = sparse_paths(parts.policy.sample(key_teacher, state.policy_params))

        def loss(paths, params, data, key):
            value, aux = parts.loss(paths, params, data, key)
            kl = factor * divergence(parts.loss(teacher, params, data, None)[1]["logits"], aux["logits"])
            return value + kl, {**aux, "penalty": kl}

        return alternating(parts._replace(loss=loss), key_student, state, batch)

    return gradient_search(SPACE, POLICY, binary_gate(), optax.sgd(0.2), optax.adam(0.01), step=step)


def run(searcher, steps):
    """The states after every step, and what was shown."""

    def body(state, _):
        state, info = searcher.step(jax.random.fold_in(KEY, state.step), state, BATCH)
        return state, (state, info)

    return jax.jit(lambda state: jax.lax.scan(body, state, length=steps)[1])(searcher.init(KEY, BATCH))


def test_the_weights_descend_on_both_losses():
    searcher = distilling(0.7)
    state = jax.jit(searcher.init)(KEY, BATCH)
    new, info = jax.jit(searcher.step)(KEY, state, BATCH)
    teacher = sparse_paths(POLICY.sample(jax.random.split(KEY)[0], state.policy_params))
    plain = classification_loss(SPACE)

    def moved(arch):
        """The weights after a step of the student `arch`, and its cross-entropy."""

        def both(params):
            value, aux = plain(sparse_paths(arch), params, BATCH.weights)
            return value + 0.7 * divergence(SPACE.apply(params, teacher, X), aux["logits"]), value

        grads, value = jax.grad(both, has_aux=True)(state.params)
        return jax.tree.map(lambda w, g: w - 0.2 * g, state.params, grads), value

    every, losses = jax.jit(lambda archs: jax.lax.map(moved, archs))(enumerate_architectures(SPACE.choices))
    (student,) = np.flatnonzero(np.abs(losses - info.loss) < 1e-6)  # the loss that is shown is without the second one
    chex.assert_trees_all_close(new.params, jax.tree.map(lambda leaf: leaf[student], every), rtol=1e-4, atol=1e-6)
    without, _ = jax.jit(distilling(0.0).step)(KEY, state, BATCH)
    assert optax.tree.norm(optax.tree.sub(new.params, without.params)) > 1e-3


def test_paths_that_teach_each_other_come_to_agree():
    def disagreement(params):
        logits = jax.lax.map(
            lambda arch: SPACE.apply(params, sparse_paths(arch), X), enumerate_architectures(SPACE.choices)
        )
        return divergence(jnp.broadcast_to(logits.mean(0), logits.shape), logits)

    apart = {}
    for factor in (0.0, 5.0):
        states, info = run(distilling(factor), 150)
        assert not info.nonfinite.any()
        assert info.loss[-20:].mean() < info.loss[:20].mean()
        assert bool((info.penalty > 0).any()) == (factor > 0)
        apart[factor] = jax.jit(disagreement)(jax.tree.map(lambda leaf: leaf[-1], states.params))
    assert apart[5.0] < 0.5 * apart[0.0]
