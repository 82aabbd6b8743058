"""The official files of NATS-Bench and HW-NAS-Bench, turned into tables."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.errors import UserError
from jaxnas.spaces.nasbench201 import OPERATIONS
from jaxnas.spaces.nasbench201.genotype import parse
from jaxnas.tabular.benchmarks import CELL, with_metrics
from jaxnas.tabular.counts import checked_counts
from jaxnas.tabular.pickles import read_pickle
from jaxnas.tabular.table import Table, from_arrays

__all__ = ["add_hw_nas_bench", "nats_topology"]

# By name of an accuracy in the table, the data set and the evaluation that the file has it under. CIFAR-10 is validated
# on half of its training images.
SOURCES = {
    "cifar10_valid": ("cifar10-valid", "x-valid"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_valid": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16-120_valid": ("ImageNet16-120", "x-valid"),
    "imagenet16-120_test": ("ImageNet16-120", "x-test"),
}


def nats_topology(directory: str | Path) -> Table:
    """NATS-Bench's topology benchmark from its directory `NATS-tss-v1_0-3ffb9-simple`.

    Every file is read without unpickling anything but containers and numbers. Metrics are those of
    `jaxnas.tabular.nasbench201`, each accuracy with its single `_runs`. Architectures without a file are holes.
    Numbers of parameters and multiply-adds are exact counts of this library: files hold other ones for some seeds, of
    which one warning gives the number and the first cell.

    Args:
      directory: the folder in which `meta.pickle.pbz2` and `000000.pickle.pbz2`, ... lie.

    Raises:
      UserError: no such directory or file, a pickle with anything else in it, one of another benchmark or of another
        architecture than its place says, a data set without a result.
    """
    folder = Path(directory).expanduser()
    # The list of all architectures, then the file of each of them, where it is there.
    names = _plain_entry(read_pickle(folder / "meta.pickle.pbz2"), "meta_archs", folder)
    archs = np.array([parse(OPERATIONS, name)["cell"] for name in names])
    rows: list[dict[str, Any]] = []
    for number in range(len(names)):
        file = folder / f"{number:06d}.pickle.pbz2"
        rows.append(_checked_row(read_pickle(file), file, number, names[number]) if file.exists() else {})
    if not any(rows):
        raise UserError(f"{folder} holds no architecture's file, such as 000000.pickle.pbz2")
    cells = {"cell": archs[[bool(row) for row in rows]]}
    rows = [row for row in rows if row]
    # One column per metric; the sizes that the files record are only held against the exact ones.
    recorded = {name: _column([row.pop(name) for row in rows]) for name in ("parameters", "macs")}
    metrics = {name: _column([row.get(name) for row in rows]) for name in sorted(set().union(*rows))}
    metrics |= checked_counts(folder, cells, recorded)
    return from_arrays(CELL, metrics, archs=cells, name="nats-topology", holes=True)


def add_hw_nas_bench(table: Table, path: str | Path, *, dataset: str = "cifar10") -> Table:
    """A table with the measurements of HW-NAS-Bench (Li et al. 2021, 2103.10584), from `HW-NAS-Bench-v1_0.pickle`.

    Latencies in milliseconds become `latency/<device>`, energies in millijoules `energy/<device>`.

    Args:
      table: a table of NAS-Bench-201's cell.
      path: the official file.
      dataset: the data set whose size of images the devices saw, `cifar10`, `cifar100` or `ImageNet16-120`.

    Raises:
      UserError: a table of another space or one that has such measurements already, an unreadable file, one of another
        benchmark, an unknown data set.
    """
    if table.choices != CELL:
        raise UserError(f"{table.name} is not a table of NAS-Bench-201's cell")
    part = _plain_entry(_plain_entry(read_pickle(path), "nasbench201", path), dataset, path)
    configs = _plain_entry(part, "config", path)
    # The cells in the order of the file.
    archs = np.array([parse(OPERATIONS, _plain_entry(config, "arch_str", path))["cell"] for config in configs])
    # Columns of the file whose names end in a kind of measurement; others are left out.
    metrics = {}
    for name, values in part.items():
        device, _, kind = name.rpartition("_")
        if kind in ("latency", "energy"):
            metrics[f"{kind}/{device}"] = np.asarray(values, np.float32)
    known = sorted(set(metrics) & set(table.metrics))
    if known:
        raise UserError(f"{table.name} has {known[0]!r} already, which the measurements in {path} would replace")
    # The file has another order; a table of its measurements has that of every table.
    ordered = from_arrays(CELL, metrics, archs={"cell": archs}, name="hw-nas-bench")
    return with_metrics(table, {name: np.asarray(values) for name, values in ordered.metrics.items()})


def _checked_row(content: Any, file: Path, number: int, name: str) -> dict[str, Any]:
    """The `_row` of a file; refuses one that is not laid out like an official one, or is not of this cell."""
    for epochs in ("12", "200"):
        entry = _plain_entry(content, epochs, file)
        for field, wanted in (("arch_index", number), ("arch_str", name)):
            if field in entry and entry[field] != wanted:
                raise UserError(f"{file}: {field} is {entry[field]!r}, expected {wanted!r} in the file of this name")
    try:
        return _row(content, file)
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{file} is not laid out like the official file: {type(error).__name__} {error}") from None


def _row(content: Any, file: Path) -> dict[str, Any]:
    """The numbers of one architecture.

    Returns:
      By metric one number or the list of its single runs; under `parameters` and `macs` all that was recorded of them.
    """
    row: dict[str, Any] = {"parameters": [], "macs": []}
    for epochs in ("12", "200"):
        results = _plain_entry(_plain_entry(content, epochs, file), "all_results", file)
        for name, (dataset, evaluation) in SOURCES.items():
            runs = _runs(results, dataset, f"{file} ({epochs} epochs)")
            # Accuracies after the last epoch: those of all seeds, and their mean.
            key = f"{evaluation}@{int(epochs) - 1}"
            row[f"{name}_{epochs}_runs"] = [float(run["eval_acc1es"][key]) for run in runs]
            row[f"{name}_{epochs}"] = float(np.mean(row[f"{name}_{epochs}_runs"]))
            if epochs == "12" and name.endswith("_valid"):  # what one evaluation costs: training, and one validation
                costs = [sum(run["train_times"].values()) + run["eval_times"][key] for run in runs]
                row[f"{name.removesuffix('_valid')}_seconds_12"] = float(np.mean(costs))
        for dataset in ("cifar10-valid", "cifar10"):  # the same network; the other data sets have more classes
            for run in _runs(results, dataset, file):
                row["parameters"].append(1e6 * float(run["params"]))
                row["macs"].append(1e6 * float(run["flop"]))
    return row


def _runs(results: dict[tuple[str, int], Any], dataset: str, where: Any) -> list[Any]:
    """The results of all seeds on one data set, in the order of the seeds."""
    runs = [result for (of, _), result in sorted(results.items()) if of == dataset]
    if not runs:
        known = ", ".join(sorted({of for of, _ in results})) or "none"
        raise UserError(f"{where} has no result of data set {dataset!r}, there are {known}")
    return runs


def _column(values: list[Any]) -> np.ndarray:
    """Numbers `[A]`, or lists of runs as `[A, R]` filled up with NaN."""
    if not any(isinstance(value, list) for value in values):
        return np.array([np.nan if value is None else value for value in values], np.float32)
    column = np.full((len(values), max(len(value) for value in values)), np.nan, np.float32)
    for row, value in zip(column, values, strict=True):
        row[: len(value)] = value
    return column


def _plain_entry(mapping: Any, name: str, where: Any) -> Any:
    """The entry of a dictionary; refuses what is no dictionary, or has no such entry."""
    if not isinstance(mapping, dict) or name not in mapping:
        known = ", ".join(map(str, list(mapping)[:10])) if isinstance(mapping, dict) else type(mapping).__name__
        raise UserError(f"{where} has no entry {name!r}, expected the official file; it has {known}")
    return mapping[name]
