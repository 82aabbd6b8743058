"""First weights have the spread of the published code, drawn one by one or all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.ops import Classifier, ConvNorm, DilConv, from_linen
from jaxnas.ops.initialisers import he_fan_out, one_draw, torch_uniform

KEY = jax.random.key(2)
X = jnp.zeros((2, 4, 4, 16))


def is_uniform(values, bound):
    """Whether values fill an interval of that half width evenly."""
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.98 * bound
    np.testing.assert_allclose(np.std(values), bound / np.sqrt(3), rtol=0.05)
    assert abs(np.mean(values)) < 0.1 * bound


@pytest.mark.parametrize("together", [False, True])
def test_weights_are_uniform_within_one_over_the_root_of_the_fan_in(together):
    """PyTorch's default: `U(-b, b)` with `b = 1 / sqrt(k k C)`; a depthwise kernel sees one channel."""
    for block, bounds in (
        (ConvNorm(64, kernel=3), {"kernel": 1 / 12}),
        (DilConv(64, kernel=5), {"depthwise": 1 / 5, "pointwise": 1 / 4}),
        (Classifier(200), {"kernel": 1 / 4}),
    ):
        init = from_linen(block).init
        params = jax.jit(one_draw(init) if together else init)(KEY, X)
        for name, bound in bounds.items():
            is_uniform(np.asarray(params[name]), bound)


def test_he_normal_has_the_variance_of_the_fan_out():
    draw = he_fan_out(8)(KEY, (100, 100))
    np.testing.assert_allclose(np.std(draw), 0.5, rtol=0.03)
    assert np.abs(draw).max() > 1.5
    is_uniform(np.asarray(torch_uniform(4)(KEY, (100, 100))), 0.5)
