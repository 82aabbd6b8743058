"""Rewards of NAS-RL on curves whose answer is known, and the schedule of depths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.errors import UserError
from jaxnas.searchers import accuracy_cubed, best_of_last, depth_schedule, inverse_square_perplexity


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray])
def test_the_best_of_the_last_five_judgements(of):
    curve = np.full(50, 0.3)
    curve[10], curve[44], curve[45], curve[47], curve[49] = 0.9, 0.8, 0.7, 0.6, 0.2
    assert float(best_of_last(of(curve))) == pytest.approx(
        0.7
    )  # not the peak, not the sixth from the end, not the last
    assert float(best_of_last(of(curve), last=6)) == pytest.approx(0.8)
    assert float(best_of_last(of(curve), last=1)) == pytest.approx(0.2)
    assert float(best_of_last(of(curve[:3]))) == pytest.approx(0.3)  # all of them, where there are fewer
    rows = best_of_last(of(np.stack([curve, curve + 0.1])))
    np.testing.assert_allclose(rows, [0.7, 0.8], rtol=1e-6)


def test_a_child_that_diverged_is_not_rewarded_for_what_it_was_before():
    curves = np.array([[0.5, 0.6, np.nan, np.nan, np.nan], [0.1, 0.2, 0.3, 0.4, 0.5]])
    np.testing.assert_array_equal(np.isnan(best_of_last(curves)), [True, False])
    for rewards in (accuracy_cubed(1 - best_of_last(curves)), inverse_square_perplexity(best_of_last(curves))):
        assert float(rewards[0]) == 0.0
        assert float(rewards[1]) > 0.0


def test_rewards_are_those_of_the_paper():
    errors, nats = np.array([0.0, 0.1, 0.5, 1.0]), np.log([1.0, 8.0, 100.0])
    np.testing.assert_allclose(accuracy_cubed(errors), [1.0, 0.729, 0.125, 0.0], rtol=1e-6)
    np.testing.assert_allclose(inverse_square_perplexity(nats), [80.0, 1.25, 0.008], rtol=1e-5)
    np.testing.assert_allclose(inverse_square_perplexity(nats, c=1.0), [1.0, 1 / 64, 1e-4], rtol=1e-5)


def test_networks_grow_by_two_layers_after_every_1600_children():
    growth = jax.jit(depth_schedule(tokens_per_layer=6))
    depths = [int(growth(asked)) / 6 for asked in range(0, 16_000, 800)]
    assert depths == [6, 6, 8, 8, 10, 10, 12, 12, 14, 14, 16, 16, 18, 18, 20, 20, 20, 20, 20, 20]
    assert [int(depth_schedule(1, 3, 5, 6, 2)(asked)) for asked in (0, 4, 5, 9, 10)] == [2, 2, 8, 8, 12]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: best_of_last(np.zeros(3), last=0), "last must be at least 1"),
        (lambda: best_of_last(np.zeros((2, 0))), "at least one judgement"),
        (lambda: best_of_last(np.zeros(())), "at least one judgement"),
        (lambda: depth_schedule(every=0), "every must be at least 1"),
        (lambda: depth_schedule(start=7, most=6), "most must be at least start, which is 7, got 6"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
