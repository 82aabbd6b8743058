"""The figures of a table of cells, on numbers whose spread is known, and the benchmark of their training run small."""

import numpy as np
import pytest

from benchmarks import recurrent_cells
from benchmarks.cell_table import noise


def test_the_spread_of_runs_and_of_classes_is_that_of_the_numbers():
    rng = np.random.default_rng(0)
    classes, seeds, count = 0.3, 0.05, 4000
    runs = 3 + classes * rng.standard_normal((count, 1)) + seeds * rng.standard_normal((count, 3))
    runs[7, 1], runs[8] = np.nan, 1e5  # left out of the spread
    found = noise(np.nanmean(runs, 1), runs)
    assert found.median == pytest.approx(3, abs=5 * classes / count**0.5)
    assert found.between_seeds == pytest.approx(seeds, rel=0.05)
    # The median of a deviation from three runs: of a chi-square with two degrees of freedom, sqrt(ln 2).
    assert found.between_seeds_median == pytest.approx(seeds * np.log(2) ** 0.5, rel=0.05)
    assert found.between_classes == pytest.approx((classes**2 + seeds**2 / 3) ** 0.5, rel=0.05)
    assert 0.95 < found.rank < 0.98, "6 / pi arcsin(rho / 2) of rho = 0.973"
    # In the best tenth classes differ less, and the runs by which they were chosen do not count.
    assert 0.6 < found.rank_best < found.rank


def test_without_three_runs_there_is_no_spread():
    found = noise(np.array([2.0, 4.0]), np.array([[2.0, np.nan, np.nan], [4.0, np.nan, np.nan]]))
    assert found[:2] == (3, 2)
    assert np.isnan(found[2:]).all()


def test_runs_without_truth_have_no_rank():
    runs = np.random.default_rng(0).standard_normal((1000, 3))
    found = noise(runs.mean(1), runs)
    assert abs(found.rank) < 4 / 1000**0.5
    assert abs(found.rank_best) < 4 / 100**0.5


@pytest.mark.slow
def test_a_row_for_each_strategy(capsys):
    recurrent_cells.main(["--strategies", "vmap", "--sizes", "2", "--steps", "2"])
    row = capsys.readouterr().out.splitlines()[2].strip("|").split("|")
    assert [entry.strip() for entry in row[:2]] == ["vmap", "2"]
    assert int(row[2]) > 0
    assert int(row[4]) == 4
