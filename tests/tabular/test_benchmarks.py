"""The benchmarks against what is known of them, and the official files against files of their shape made here."""

import bz2
import collections
import datetime
import os
import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import decisions
from jaxnas.spaces import nasbench201_space
from jaxnas.spaces.nasbench201 import OPERATIONS, all_cells
from jaxnas.spaces.nasbench201.genotype import genotype, parse
from jaxnas.tabular import (
    add_hw_nas_bench,
    exhaustive,
    from_arrays,
    load,
    lookup,
    nas_bench_macro,
    nasbench201,
    nats_topology,
    table_task,
)
from jaxnas.tabular.__main__ import main as command
from jaxnas.tabular.benchmarks import CELL
from jaxnas.tabular.counts import cell_counts

DATA = Path(os.environ.get("JAXNAS_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(not (DATA / "nasbench201.npz").exists(), reason="JAXNAS_DATA has no nasbench201.npz")


@pytest.fixture(scope="module")
def published():
    return nasbench201(DATA / "nasbench201.npz", DATA / "nasbench201_latency.npz")


@needs_data
def test_fixed_points_of_nasbench201(published):
    """The best of every column, the mean over all cells, and the cell of skips: properties of the table."""
    best = {
        "cifar10_valid_200": 91.61,
        "cifar10_test_200": 94.37,
        "cifar100_valid_200": 73.49,
        "cifar100_test_200": 73.51,
        "imagenet16-120_valid_200": 46.73,
        "imagenet16-120_test_200": 47.31,
    }
    skips = (39.77, 54.30, 15.03, 15.61, 16.43, 16.32)
    cell = {"cell": jnp.full(6, OPERATIONS.index("skip_connect"))}
    for (metric, value), skip in zip(best.items(), skips, strict=True):
        assert float(published.metrics[metric].max()) == pytest.approx(value, abs=0.006)
        assert float(lookup(published, metric, cell)) == pytest.approx(skip, abs=0.006)
    for dataset, mean in (("cifar10", 87.06), ("cifar100", 61.39), ("imagenet16-120", 33.57)):
        assert float(published.metrics[f"{dataset}_test_200"].mean()) == pytest.approx(mean, abs=0.006)
    assert float(published.metrics["cifar10_seconds_12"].mean()) == pytest.approx(113, abs=0.5)
    assert sum(name.startswith("latency/") for name in published.metrics) == 27


@needs_data
def test_parameters_and_macs_are_whole_numbers_equal_to_our_own_counts_and_to_the_file(published):
    tables = nasbench201_space(16, 5, 10).about.costs((32, 32, 3))
    rows = np.load(DATA / "nasbench201.npz")
    places = decisions(CELL).number(rows["ops"].astype(np.int32))
    for name, column in (("parameters", "params_m"), ("macs", "flops_m")):
        own = tables[name].fixed + tables[name].table["cell"][np.arange(6), all_cells()].sum(1)
        assert published.metrics[name].dtype == jnp.int32
        np.testing.assert_array_equal(published.metrics[name], own)
        np.testing.assert_array_equal(np.asarray(published.metrics[name])[places], np.rint(1e6 * rows[column]))


@needs_data
def test_records_that_disagree_are_counted_and_the_first_cell_is_named(tmp_path):
    rows = dict(np.load(DATA / "nasbench201.npz"))
    np.savez(tmp_path / "other.npz", **(rows | {"params_m": rows["params_m_recorded"]}))
    with pytest.warns(UserWarning, match=r"204 of 15625 records, in 204 of 15625 cells, disagree .* cell \|skip_con"):
        table = nasbench201(tmp_path / "other.npz")
    np.testing.assert_array_equal(np.unique(table.metrics["parameters"]), np.unique(np.rint(1e6 * rows["params_m"])))
    rows["c10_test_200"][7] += 1
    np.savez(tmp_path / "other.npz", **rows)
    with pytest.warns(UserWarning, match=r"1 of 15625 records, in 1 of 15625 cells, .* mean of c10_test_200_runs"):
        nasbench201(tmp_path / "other.npz")


@needs_data
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names, times: (names[:-1], times), r"latency_ms has shape \(15625, 27\), expected \(15625, 26\)"),
        (lambda names, times: (names, times[:-1]), r"latency_ms has shape \(15624, 27\), expected \(15625, 27\)"),
        (lambda names, times: (np.append(names[:-1], names[0]), times), "devices names '1080ti_1' more than once"),
    ],
)
def test_latencies_of_other_rows_or_of_a_device_twice_are_refused(change, message, tmp_path):
    arrays = np.load(DATA / "nasbench201_latency.npz")
    names, times = change(arrays["devices"], arrays["latency_ms"])
    np.savez(tmp_path / "latency.npz", devices=names, latency_ms=times)
    with pytest.raises(ValueError, match=message):
        nasbench201(DATA / "nasbench201.npz", tmp_path / "latency.npz")


@needs_data
def test_single_runs_average_to_their_mean(published):
    runs = np.asarray(published.metrics["cifar10_test_200_runs"])
    np.testing.assert_allclose(np.nanmean(runs, 1), published.metrics["cifar10_test_200"], atol=0.01)
    assert [int((np.isfinite(runs).sum(1) == n).sum()) for n in (1, 2, 3)] == [2225, 5439, 7961]


@needs_data
def test_nas_bench_macro():
    table = nas_bench_macro(DATA / "nas_bench_macro.npz")
    assert float(table.metrics["test"].max()) == pytest.approx(93.127, abs=1e-3)
    assert float(lookup(table, "test", {"blocks": jnp.array([2, 2, 2, 1, 2, 2, 0, 2])})) == pytest.approx(
        93.127, abs=1e-3
    )


def test_benchmarks_by_name(tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark 'digit'; did you mean digits"):
        load("digit")
    with pytest.raises(ValueError, match="takes 1 to 2 files"):
        load("nasbench201")
    with pytest.raises(ValueError, match="there is no file"):
        load(f"nas-bench-macro:{tmp_path / 'missing.npz'}")
    np.savez(tmp_path / "other.npz", ops=np.zeros(3))
    with pytest.raises(ValueError, match="has no array"):
        load(f"nasbench201:{tmp_path / 'other.npz'}")
    with pytest.raises(ValueError, match="sha256 is"):
        nas_bench_macro(tmp_path / "other.npz", sha256="0" * 64)


NAMES = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("ori-test", "x-valid", "x-test"),
    "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
}


def official(number, epochs, runs, cell):
    """What the official file holds of one architecture and one number of epochs: right counts, accuracies made up."""
    counts = cell_counts({"cell": cell[None]})
    results = {}
    for place, (dataset, evaluations) in enumerate(NAMES.items()):
        for seed in (777, 888, 999)[:runs]:
            base = 10 * place + number / 100 + seed / 1000
            results[dataset, seed] = {
                "name": dataset,
                "train_times": collections.OrderedDict((e, 2.0 + place) for e in range(epochs)),
                "eval_acc1es": {f"{e}@{epochs - 1}": np.float64(base + i) for i, e in enumerate(evaluations)},
                "eval_times": {f"{e}@{epochs - 1}": 0.5 for e in evaluations},
                "params": np.float64(counts["parameters"][0] / 1e6),
                "flop": counts["macs"][0] / 1e6,
            }
    name = genotype(OPERATIONS, {"cell": cell})
    return {"all_results": results, "arch_index": number, "arch_str": name, "dataset_seed": {}}


def write(path, content):
    with bz2.open(path, "wb") as file:
        pickle.dump(content, file, protocol=4)


@pytest.fixture
def simple(tmp_path):
    """A directory as NATS-Bench ships it, with three of the architectures; their order there is not ours."""
    order = np.random.default_rng(0).permutation(len(all_cells()))
    cells = all_cells()[order]
    names = [genotype(OPERATIONS, {"cell": cell}) for cell in cells]
    write(tmp_path / "meta.pickle.pbz2", {"meta_archs": names, "total_archs": len(names), "evaluated_indexes": set()})
    for number, runs in ((0, 1), (7, 3), (11, 2)):
        content = collections.OrderedDict((str(e), official(number, e, runs, cells[number])) for e in (12, 200))
        write(tmp_path / f"{number:06d}.pickle.pbz2", content)
    return tmp_path, names


def test_nats_directory_becomes_a_table(simple):
    folder, names = simple
    table = nats_topology(folder)
    arch = parse(OPERATIONS, names[7])
    seeds = np.array([0.777, 0.888, 0.999])
    runs = 0.07 + seeds  # number / 100 + seed / 1000
    np.testing.assert_allclose(lookup(table, "cifar10_valid_12_runs", arch), runs, rtol=1e-6)
    assert float(lookup(table, "cifar10_test_200", arch)) == pytest.approx(10 + runs.mean())
    assert float(lookup(table, "cifar100_valid_200", arch)) == pytest.approx(21 + runs.mean())
    assert float(lookup(table, "imagenet16-120_test_12", arch)) == pytest.approx(32 + runs.mean())
    assert float(lookup(table, "cifar10_seconds_12", arch)) == pytest.approx(12 * 2 + 0.5)
    assert float(lookup(table, "cifar100_seconds_12", arch)) == pytest.approx(12 * 4 + 0.5)
    for name in ("parameters", "macs"):
        np.testing.assert_array_equal(lookup(table, name, arch), cell_counts({"cell": arch["cell"][None]})[name][0])
        assert table.metrics[name].dtype == jnp.int32
    fewer = lookup(table, "cifar10_valid_12_runs", parse(OPERATIONS, names[11]))
    assert np.isnan(fewer).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="no architecture"):
        lookup(table, "macs", parse(OPERATIONS, names[1]))
    assert int(table.present.sum()) == 3


def changed(folder, number, change):
    """Changes what one file of the directory holds after 200 epochs."""
    file = folder / f"{number:06d}.pickle.pbz2"
    with bz2.open(file) as stream:
        content = pickle.load(stream)
    change(content["200"], content["200"]["all_results"])
    write(file, content)


def test_counts_that_disagree_with_the_exact_ones_are_not_believed(simple):
    folder, names = simple
    exact = cell_counts(parse(OPERATIONS, names[7]) | {"cell": parse(OPERATIONS, names[7])["cell"][None]})

    def spoil(entry, results):
        results["cifar10", 777]["params"] = 0.316346

    changed(folder, 7, spoil)
    text = f"1 of 24 records, in 1 of 3 cells, disagree with the number of parameters, .* cell {re.escape(names[7])}"
    with pytest.warns(UserWarning, match=text) as warned:
        table = nats_topology(folder)
    assert int(lookup(table, "parameters", parse(OPERATIONS, names[7]))) == exact["parameters"][0]
    assert len(warned) == 1
    assert f"316346 for {exact['parameters'][0]}" in str(warned[0].message)


def test_the_command_says_in_one_line_that_records_disagree(simple, capsys):
    folder, names = simple
    changed(folder, 0, lambda entry, results: results["cifar10", 777].update(flop=1.0))
    assert command(["nats", str(folder), str(folder / "table.npz")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {folder}: 1 of 24 records")
    assert names[0] in lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda entry, results: results.pop(("cifar10", 777)),
            r"000000.*\(200 epochs\) has no result .* 'cifar10', there",
        ),
        (lambda entry, results: results.clear(), "has no result of data set 'cifar10-valid', there are none"),
        (lambda entry, results: results["cifar100", 777].pop("eval_acc1es"), "KeyError 'eval_acc1es'"),
        (lambda entry, results: results.update({"cifar10": {}}), "is not laid out like the official file"),
        (lambda entry, results: entry.update(arch_index=4), "arch_index is 4, expected 0"),
        (lambda entry, results: entry.update(arch_str="|none~0|"), r"arch_str is '\|none~0\|', expected"),
    ],
)
def test_a_file_that_is_not_complete_or_of_another_cell_is_refused_in_one_line(simple, change, message, capsys):
    folder, _ = simple
    changed(folder, 0, change)
    with pytest.raises(ValueError, match=message):
        nats_topology(folder)
    assert command(["nats", str(folder), str(folder / "table.npz")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_hw_nas_bench_joins_a_table(tmp_path):
    cells = all_cells()[::-1]
    part = {
        "config": [{"arch_str": genotype(OPERATIONS, {"cell": cell}), "C": 16} for cell in cells],
        "raspi4_latency": np.arange(15625.0),
        "eyeriss_energy": list(range(15625)),
        "eyeriss_arithmetic_intensity": [1.0] * 15625,
    }
    with (tmp_path / "hw.pickle").open("wb") as file:
        pickle.dump({"nasbench201": {"cifar10": part}, "fbnet": {}}, file)
    table = from_arrays(CELL, {"accuracy": np.arange(15625.0)})
    joined = add_hw_nas_bench(table, tmp_path / "hw.pickle")
    assert set(joined.metrics) == {"accuracy", "latency/raspi4", "energy/eyeriss"}
    np.testing.assert_array_equal(joined.metrics["latency/raspi4"], np.arange(15625.0)[::-1])
    with pytest.raises(ValueError, match=r"has 'energy/eyeriss' already, which .*hw.pickle would replace"):
        add_hw_nas_bench(joined, tmp_path / "hw.pickle")
    with pytest.raises(ValueError, match="no entry 'cifar99'"):
        add_hw_nas_bench(table, tmp_path / "hw.pickle", dataset="cifar99")
    other = from_arrays({"x": jax.ShapeDtypeStruct((1, 2), jnp.float32)}, {"accuracy": np.zeros(2)})
    with pytest.raises(ValueError, match="not a table of NAS-Bench-201"):
        add_hw_nas_bench(other, tmp_path / "hw.pickle")


def marker(path):
    """What a hostile pickle would run."""
    Path(path).write_text("ran")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return marker, (str(self.path),)


@pytest.mark.parametrize("content", [Hostile, lambda path: datetime.date(2020, 1, 1), lambda path: os.system])
def test_pickles_with_anything_else_in_them_are_refused_before_it_runs(content, tmp_path):
    write(tmp_path / "meta.pickle.pbz2", {"meta_archs": content(tmp_path / "ran")})
    with pytest.raises(ValueError, match="is refused: it wants to load"):
        nats_topology(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_other_directories_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        nats_topology(tmp_path)
    (tmp_path / "meta.pickle.pbz2").write_bytes(b"BZh91AY&SYgarbage")
    with pytest.raises(ValueError, match="not a readable pickle"):
        nats_topology(tmp_path)
    write(tmp_path / "meta.pickle.pbz2", {"other": 1})
    with pytest.raises(ValueError, match="no entry 'meta_archs'"):
        nats_topology(tmp_path)
    write(tmp_path / "meta.pickle.pbz2", {"meta_archs": [genotype(OPERATIONS, {"cell": all_cells()[0]})]})
    with pytest.raises(ValueError, match="no architecture's file"):
        nats_topology(tmp_path)


def test_command_line_converts_and_describes(simple, capsys):
    folder, names = simple
    out = folder / "table.npz"
    assert command(["nats", str(folder), str(out)]) == 0
    assert "sha256" in capsys.readouterr().out
    read, arch = load(f"table:{out}"), parse(OPERATIONS, names[0])
    assert int(lookup(read, "macs", arch)) == cell_counts({"cell": arch["cell"][None]})["macs"][0]
    assert read.metrics["macs"].dtype == jnp.int32
    assert command(["describe", f"table:{out}"]) == 0
    assert "cifar10_valid_12" in capsys.readouterr().out
    assert command(["nats", str(folder / "missing"), str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert command(["describe", "digit"]) == 2


def hits(classes, runs, epochs, rng):
    return rng.integers(0, 100, (classes, runs, epochs)).astype(np.uint16)


def test_what_the_exhaustive_experiment_writes_is_read(tmp_path):
    rng = np.random.default_rng(0)
    classes = np.arange(15625) % 10
    validation, test = hits(10, 2, 3, rng), hits(10, 2, 3, rng) // 2
    validation[3, 1], validation[4] = 65535, 65535
    arrays = {
        "cells": all_cells().astype(np.uint8),
        "class_of": classes.astype(np.uint16),
        "epochs": np.array([1, 2, 8]),
        "validation_hits": validation,
        "test_hits": test,
        "validation_size": np.array(100),
        "test_size": np.array(50),
        "seconds": np.arange(10.0),
        "parameters": np.arange(15625),
        "macs": np.arange(15625),
    }
    np.savez(tmp_path / "table.npz", **arrays)
    table = exhaustive(tmp_path / "table.npz")
    cell = {"cell": all_cells()[23]}
    assert float(lookup(table, "valid_8", cell)) == validation[3, 0, 2]
    assert float(lookup(table, "test_2", cell)) == pytest.approx(2 * test[3, :, 1].mean())
    assert float(lookup(table, "seconds", cell)) == 3
    assert np.isnan(lookup(table, "valid_1", {"cell": all_cells()[4]}))
    assert table_task(table, "-test_8", single_runs=True).cheapest == 1
    assert table.metrics["parameters"].dtype == jnp.int32
    for change, message in (
        ({"class_of": np.full(15625, 10, np.uint16)}, "class_of names class 10, and there are 10 classes"),
        ({"test_hits": validation}, "test_hits has 10 rows of up to 9., expected 10 rows of at most 50"),
        ({"validation_hits": validation[:9]}, "validation_hits has 9 rows of up to 9., expected 10 rows"),
    ):
        np.savez(tmp_path / "table.npz", **(arrays | change))
        with pytest.raises(ValueError, match=message):
            exhaustive(tmp_path / "table.npz")
