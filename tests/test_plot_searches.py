"""What the picture of a search's history shows, and the means of the best children so far."""

import importlib

import numpy as np
import pytest

from jaxnas import plot
from jaxnas.errors import UserError


def test_a_history_draws_children_and_the_least_so_far_without_those_that_failed(monkeypatch):
    searches, drawn = importlib.import_module("jaxnas.plot.searches"), []
    monkeypatch.setattr(searches, "_saved", lambda figure, path: drawn.append(figure) or path)
    values = np.array([np.nan, 3.0, np.inf, 4.0, 1.0])
    assert searches.history("picture.png", {"evolution": values}, xlabel="children", ylabel="error") == "picture.png"
    dots, line = drawn[0].axes[0].lines
    np.testing.assert_array_equal(dots.get_xydata(), [[2, 3.0], [4, 4.0], [5, 1.0]])
    np.testing.assert_array_equal(line.get_xydata(), [[2, 3.0], [3, 3.0], [4, 3.0], [5, 1.0]])
    assert line.get_label() == "evolution"


def test_means_of_the_best_so_far_are_those_of_a_sorted_list():
    rng = np.random.default_rng(0)
    fitness = rng.permutation(60).reshape(3, 20).astype(float)
    fitness[1, ::3], fitness[2, 5] = np.nan, np.inf  # children that failed are never among the best
    for count in (1, 5, 15):
        found = plot.top_means(fitness, count)
        for row, means in zip(fitness, found, strict=True):
            for place, mean in enumerate(means):
                best = sorted(value for value in row[: place + 1] if np.isfinite(value))[:count]
                expected = np.mean(best) if len(best) == count else np.nan
                np.testing.assert_allclose(mean, expected)
    np.testing.assert_array_equal(plot.top_means(fitness[0], 5), plot.top_means(fitness, 5)[0])
    with pytest.raises(UserError, match="count is 0, expected at least 1"):
        plot.top_means(fitness, 0)


def test_the_first_evaluations_do_not_take_the_height_of_a_picture_of_progress(monkeypatch):
    searches, drawn = importlib.import_module("jaxnas.plot.searches"), []
    monkeypatch.setattr(searches, "_saved", lambda figure, path: drawn.append(figure) or path)
    times = np.arange(1.0, 41)
    rising, falling = np.sqrt(times)[None] * np.ones((3, 1)), -times[None] * np.ones((3, 1))
    rising[:, 0], falling[:, 0] = -100, 100  # before a twentieth of the time
    for values, least, greatest in ((rising, np.sqrt(2), np.sqrt(40)), (falling, -40, -2)):
        searches.progress("picture.png", times, {"search": values}, xlabel="children", ylabel="accuracy")
        bottom, top = drawn[-1].axes[0].get_ylim()
        height = greatest - least
        assert least - 0.1 * height < bottom <= least
        assert greatest <= top < greatest + 0.1 * height
