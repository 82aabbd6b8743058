"""Which edges of a stand-alone network drop path may leave out: all but identities."""

import jax
import jax.numpy as jnp
import pytest

from jaxnas.spaces import darts_space
from jaxnas.spaces.parts import cells

SPACE = darts_space(4, 3, 3, nodes=1, operations=("none", "skip_connect", "max_pool_3x3"))
X = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)


@pytest.mark.parametrize(("normal", "dropped"), [(1, 4), (2, 6)])
def test_identities_are_exempt(normal, dropped, monkeypatch):
    """One normal and two reduction cells of two edges each; a skip that halves the grid is no identity."""
    seen = []

    def record(key, y, rate):
        seen.append(rate)
        return y

    monkeypatch.setattr(cells, "drop_path", record)
    network = SPACE.about.network({"normal": [normal] * 2, "reduce": [1, 1]})
    variables = jax.eval_shape(network.init, jax.random.key(0), X)

    def train(variables, x):
        return network.apply(variables, x, key=jax.random.key(1), train=True, drop_path=0.3)

    jax.eval_shape(train, variables, X)
    assert seen == [0.3] * dropped
    seen.clear()
    jax.eval_shape(lambda variables, x: network.apply(variables, x), variables, X)
    assert seen == []
