"""Limits that tie one estimator to another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.relaxations import gumbel_rao, reinmax, st_softmax

LOGITS = jnp.array([[0.4, -0.6, 0.9]])
KEYS = jax.random.split(jax.random.key(3), 32)


@functools.partial(jax.jit, static_argnums=0)
def jacobian(relaxation, key, temperature):
    """The sample of a relaxation, and the Jacobian `[K, K]` that its backward pass applies."""
    grads = jax.jacrev(lambda logits: relaxation(key, logits, temperature)[0])(LOGITS)
    return jnp.argmax(relaxation(key, LOGITS, temperature)[0]), grads[:, 0]


def by_sample(relaxation, temperature):
    """The Jacobian for each of the three samples, from the first key that draws it."""
    found = {}
    for key in KEYS:
        sample = int(jacobian(reinmax if relaxation is reinmax else gumbel_rao_of_one, key, 1.0)[0])
        if sample not in found:
            found[sample] = np.asarray(jacobian(relaxation, key, temperature)[1])
    return np.stack([found[sample] for sample in range(3)])


gumbel_rao_of_one = gumbel_rao(1)


def test_reinmax_at_temperature_one_is_the_limit_of_gumbel_rao_at_temperature_zero():
    """Given the sample `D`, entry `(D, j)` tends to `-p_j / 2`: the noise's density where `D` and `j` are level."""
    p = np.asarray(jax.nn.softmax(LOGITS[0]), np.float64)
    expected = np.zeros((3, 3, 3))
    for sample in range(3):
        expected[sample, sample] = expected[sample, :, sample] = -p / 2
        expected[sample] += np.diag(p / 2)
        expected[sample, sample, sample] = (1 - p[sample]) / 2
    exact = by_sample(reinmax, 1.0)
    np.testing.assert_allclose(exact, expected, atol=1e-6)
    many = gumbel_rao(100_000)
    cold, warm = (by_sample(many, temperature) for temperature in (0.02, 1.0))
    assert np.abs(cold - exact).max() < 0.025
    assert np.abs(warm - exact).max() > 0.05


def test_jacobians_at_another_temperature():
    """The softmax at the temperature is differentiated with respect to the logits, which divides by it once more."""

    def through(q):
        return np.diag(q) - np.outer(q, q)

    p, cold = (np.asarray(jax.nn.softmax(LOGITS[0] / t), np.float64) for t in (1.0, 0.5))
    found = jacobian(st_softmax, KEYS[0], 0.5)[1]
    np.testing.assert_allclose(found, through(cold) / 0.5, atol=1e-6)
    for sample, found in enumerate(by_sample(reinmax, 0.5)):
        between = (cold + np.eye(3)[sample]) / 2
        np.testing.assert_allclose(found, 2 * through(between) - through(p) / 2, atol=1e-6)
