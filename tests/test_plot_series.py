"""What of a run's records becomes a curve, before anything is drawn."""

import importlib

import numpy as np

curves = importlib.import_module("jaxnas.plot.curves")


def test_steps_in_which_the_policy_rests_are_no_points_and_a_loss_of_zero_is_one():
    records = [
        {"phase": "search", "step": step, "loss": loss, "policy_loss": policy, "note": [1, 2]}
        for step, loss, policy in ((1, 0.5, 0.0), (2, 0.0, 0.7), (3, "NaN", 0.0), (4, 0.25, 0.6))
    ]
    found = {series.name: series for series in curves._series(records)}
    assert set(found) == {"loss", "policy_loss"}
    np.testing.assert_array_equal(found["loss"].steps, [1, 2, 3, 4])
    np.testing.assert_array_equal(found["loss"].values, [0.5, 0.0, np.nan, 0.25])
    np.testing.assert_array_equal(found["policy_loss"].steps, [2, 4])
    np.testing.assert_array_equal(found["policy_loss"].values, [0.7, 0.6])


def test_a_running_mean_is_over_the_finite_neighbours():
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    found = curves._running_mean(values, 2)
    expected = [np.nan, 1.5, np.nan, (2 + 4 + 5 + 6) / 4, (4 + 5 + 6 + 7) / 4, 6.0, 7.0, 8.0, np.nan]
    np.testing.assert_allclose(found, expected)
