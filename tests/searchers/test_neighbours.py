"""What local search tries: every neighbour once, the last one too, before it moves or starts anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.searchers import local_search
from jaxnas.spaces import table_space

CHOICES = table_space(np.zeros((3, 3))).choices
KEY = jax.random.key(5)


@pytest.mark.parametrize("last", [0.5, 2.0])
def test_all_four_neighbours_are_tried_and_the_last_may_win(last):
    search = local_search(CHOICES)
    state, ask, tell = search.init(KEY), jax.jit(search.ask), jax.jit(search.tell)
    tried = []
    for i, fitness in enumerate((1.0, 3.0, 3.0, 3.0, last)):
        _, archs = ask(jax.random.fold_in(KEY, i), state)
        tried.append(archs["edges"][0].tolist())
        state, _ = tell(jax.random.fold_in(KEY, i), state, archs, jnp.array([[fitness]]))
    centre, *others = np.array(tried)
    assert ((np.array(others) != centre).sum(1) == 1).all()
    assert len({tuple(row) for row in others}) == 4
    if last < 1:
        assert state.centre.row.tolist() == tried[-1]
    else:
        assert not np.isfinite(state.centre.fitness), "no neighbour is better: the next one asked is a new start"
