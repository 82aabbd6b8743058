"""Normalisation with the statistics of the first examples of a batch, which keeps judged examples apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.ops import Norm

X = np.random.default_rng(3).normal(loc=2.0, scale=3.0, size=(7, 3, 2, 4))


def normalised(x, known, eps=1e-5):
    """By hand: mean and biased variance of the known examples."""
    return (x - known.mean((0, 1, 2))) / np.sqrt(known.var((0, 1, 2)) + eps)


@pytest.mark.parametrize("reference", [0, 3])
def test_statistics_are_those_of_the_first_examples(reference):
    norm = Norm(reference=reference)
    y = jax.jit(lambda x: norm.apply({}, x))(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(y, normalised(X, X[: reference or None]), rtol=1e-4, atol=1e-5)


def test_epsilon_is_added_to_the_variance():
    quiet = X * 0.03
    for norm in (Norm(eps=0.01), Norm(eps=0.01, reference=5)):
        y = norm.apply({}, jnp.asarray(quiet, jnp.float32))
        np.testing.assert_allclose(y, normalised(quiet, quiet[: norm.reference or None], 0.01), rtol=1e-4, atol=1e-5)
