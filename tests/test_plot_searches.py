"""What the picture of a search's history shows."""

import importlib

import numpy as np


def test_a_history_draws_children_and_the_least_so_far_without_those_that_failed(monkeypatch):
    searches, drawn = importlib.import_module("jaxnas.plot.searches"), []
    monkeypatch.setattr(searches, "_saved", lambda figure, path: drawn.append(figure) or path)
    values = np.array([np.nan, 3.0, np.inf, 4.0, 1.0])
    assert searches.history("picture.png", {"evolution": values}, xlabel="children", ylabel="error") == "picture.png"
    dots, line = drawn[0].axes[0].lines
    np.testing.assert_array_equal(dots.get_xydata(), [[2, 3.0], [4, 4.0], [5, 1.0]])
    np.testing.assert_array_equal(line.get_xydata(), [[2, 3.0], [3, 3.0], [4, 3.0], [5, 1.0]])
    assert line.get_label() == "evolution"
