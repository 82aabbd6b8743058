"""What becomes of measured times: a table of the blocks' own, on a clock that is written down here."""

import numpy as np

from jaxnas.costs import latency
from jaxnas.costs.latency import measure
from jaxnas.spaces import proxyless_space

SPACE = proxyless_space(
    (4, 4), (1, 1), (1, 1), stem_channels=4, first_channels=4, last_channels=8, kernels=(3, 5), expansions=(2,)
)


def test_a_block_takes_its_median_time_without_that_of_a_call_that_does_nothing(monkeypatch):
    """The median is one of differences within a turn, not the difference of two medians."""
    own = [[5.0, 9.0, 6.0], [1.0, 4.0, 2.0]]  # of the first two blocks, in three turns
    idle = [[1.0, 8.0, 1.5], [0.5, 0.5, 3.0]]

    def times(programs, *, rounds, repeats):
        assert (rounds, repeats) == (3, 7)
        found = np.ones((rounds, len(programs)))
        found[:, 0], found[:, 2] = own
        found[:, 1], found[:, 3] = idle
        return found

    monkeypatch.setattr(measure, "milliseconds_in_turn", times)
    monkeypatch.setattr(measure, "_pair", lambda part, batch_size, dtype: [None, None])
    table = latency.measure_space(SPACE, (8, 8, 3), rounds=3, repeats=7)
    first, second, *others = table.entries.values()
    assert (first, second) == (4.0, 0.5)
    assert set(others) == {1e-6}, "a time is never zero"
