"""Equal fitness: the older architecture stays, in every search with one objective."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.policies import categorical
from jaxnas.searchers import local_search, policy_search, random_search, regularized_evolution
from jaxnas.spaces import table_space

CHOICES = table_space(np.zeros((3, 3))).choices
KEY = jax.random.key(0)
SEARCHES = {
    "random_search": random_search(CHOICES),
    "regularized_evolution": regularized_evolution(CHOICES, population_size=4, sample_size=2),
    "local_search": local_search(CHOICES),
    "policy_search": policy_search(categorical(CHOICES), optax.sgd(0.1)),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_the_older_of_two_equally_good_architectures_stays(search):
    state, tell = search.init(KEY), jax.jit(search.tell)
    for arch in ([2, 1], [0, 0], [1, 2]):
        state, info = tell(KEY, state, {"edges": jnp.array([arch])}, jnp.array([[0.5]]))
    assert search.decode(state)["edges"].tolist() == [2, 1]
    state, info = tell(KEY, state, {"edges": jnp.array([[0, 1]])}, jnp.array([[0.25]]))
    assert search.decode(state)["edges"].tolist() == [0, 1]
    assert float(info.best) == 0.25
