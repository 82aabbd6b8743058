"""Benchmark files written down here, so that what is made of their columns is known without the published ones."""

import itertools

import numpy as np
import pytest

from jaxnas.spaces.nasbench201 import all_cells
from jaxnas.tabular import lookup, nas_bench_macro, nasbench201
from jaxnas.tabular.benchmarks import CELL
from jaxnas.tabular.counts import cell_counts

ARCH = {"cell": np.array([3, 0, 4, 1, 2, 3])}


def test_seconds_of_an_evaluation_are_twelve_epochs_and_one_validation(tmp_path):
    cells = all_cells()
    count = len(cells)
    columns = {
        f"{short}_{part}_{epochs}": np.full(count, 50.0)
        for short, part, epochs in itertools.product(("c10", "c100", "in16"), ("valid", "test"), (12, 200))
    }
    exact = cell_counts({"cell": cells})
    path = tmp_path / "nasbench201.npz"
    np.savez(
        path,
        ops=cells,
        train_s_epoch=np.full(count, 3.0),
        valid_s_pass_est=np.full(count, 7.0),
        c10_test_200_runs=np.full((count, 3), 50.0),
        params_m=exact["parameters"] / 1e6,
        flops_m=exact["macs"] / 1e6,
        **columns,
    )
    table = nasbench201(path)
    # The sizes of the data sets in units of CIFAR-10's training half, trained on and validated on.
    expected = {"cifar10": 36 + 7, "cifar100": 72 + 1.4, "imagenet16-120": 36 * 6.068 + 0.84}
    for name, seconds in expected.items():
        assert float(lookup(table, f"{name}_seconds_12", ARCH)) == pytest.approx(seconds, rel=1e-5)
    assert table.choices == CELL


def test_a_mean_is_over_the_runs_that_there_are(tmp_path):
    ops = np.array(list(itertools.product(range(3), repeat=8)))
    runs = np.tile([90.0, 93.0, np.nan], (len(ops), 1))
    path = tmp_path / "macro.npz"
    np.savez(path, ops=ops, c10_test_runs=runs, params=np.ones(len(ops)), flops=np.ones(len(ops)))
    assert float(lookup(nas_bench_macro(path), "test", {"blocks": ops[100]})) == 91.5
