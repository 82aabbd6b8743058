"""Two identities that hold for every draw of every estimator: no statistics, a few keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.estimators import ESTIMATORS, build
from jaxnas.policies import categorical
from tests.estimators.toys import MIXED_LOGITS, PAIR_LOGITS, mixed_loss, pair_loss

KEYS = jax.random.split(jax.random.key(9), 8)
NAMES = [name for name, entry in ESTIMATORS.items() if not entry.supernet]
SEVERAL = {"reinforce": 3, "reinforce_moving_average": 3, "softmax": 3, "gumbel_softmax": 3, "st_gumbel": 3}


@functools.cache
def estimated(name):
    """Eight estimates of a loss that a weight of 2 scales, with several samples where there can be."""
    settings = {"num_samples": SEVERAL[name]} if name in SEVERAL else {}
    logits, loss = (PAIR_LOGITS, pair_loss) if ESTIMATORS[name].binary else (MIXED_LOGITS, mixed_loss)
    logits = jax.tree.map(jnp.asarray, logits)
    estimator = build(name, categorical(logits), **settings)

    def scaled(paths, weight):
        return weight * loss(paths, {})[0], None

    def run(key):
        found = estimator.estimate(key, estimator.init(key, logits), logits, scaled, jnp.float32(2))[1]
        return found.policy_grads, found.weight_grads, found.value

    return jax.jit(jax.vmap(run))(KEYS)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_row_add_up_to_nothing(name):
    """A constant added to a row of logits changes no probability, so no estimate may ask for one."""
    for leaf in jax.tree.leaves(estimated(name)[0]):
        size = np.abs(leaf).max()
        assert size > 0
        np.testing.assert_allclose(leaf.sum(-1), 0.0, atol=2e-6 * max(size, 1.0))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "arsm"])  # its value is that of one evaluation
def test_the_gradient_of_a_factor_is_the_loss_without_it(name):
    """Weights and value are averaged over the same evaluations."""
    _, weight_grads, value = estimated(name)
    np.testing.assert_allclose(2 * weight_grads, value, rtol=1e-5)
