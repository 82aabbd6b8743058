"""What of a run's records becomes a curve, before anything is drawn."""

import importlib

import numpy as np

curves = importlib.import_module("jaxnas.plot._curves")


def test_what_does_not_apply_to_a_step_is_no_point_and_a_bad_step_leaves_a_gap():
    nan = float("nan")
    steps = ((1, 0.5, "NaN", 0.0), (2, 0.0, 0.7, 0.0), (3, "NaN", "NaN", 1.0), (4, 0.25, nan, 0.0), (5, 0.1, 0.6, 0.0))
    names = ("step", "loss", "policy_loss", "nonfinite")
    records = [
        {"phase": "search", **dict(zip(names, values, strict=True)), "temperature": "NaN", "note": [1]}
        for values in steps
    ]
    found = {series.name: series for series in curves._series(records)}
    assert set(found) == {"loss", "policy_loss", "nonfinite", "temperature"}
    np.testing.assert_array_equal(found["loss"].steps, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found["loss"].values, [0.5, 0.0, np.nan, 0.25, 0.1])
    np.testing.assert_array_equal(found["policy_loss"].steps, [2, 3, 5])
    np.testing.assert_array_equal(found["policy_loss"].values, [0.7, np.nan, 0.6])
    assert curves._panels([found["temperature"]]) == []  # a panel of NaN says nothing


def test_a_running_mean_is_over_the_finite_neighbours():
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    found = curves._running_mean(values, 2)
    expected = [np.nan, 1.5, np.nan, (2 + 4 + 5 + 6) / 4, (4 + 5 + 6 + 7) / 4, 6.0, 7.0, 8.0, np.nan]
    np.testing.assert_allclose(found, expected)


def test_records_with_an_epoch_are_drawn_over_epochs():
    records = [{"phase": "search", "step": n, "loss": 1.0} for n in (10, 20)]
    records += [{"phase": "retrain", "step": 100 * n, "epoch": n, "loss": 2.0} for n in (1, 2, 3)]
    search, retrain = curves._series(records)
    assert (search.unit, search.steps.tolist()) == ("step", [10, 20])
    assert (retrain.unit, retrain.steps.tolist()) == ("epoch", [1, 2, 3])
