"""The benchmarks that come as arrays: two that are bundled, and NAS-Bench-201 and NAS-Bench-Macro from files.

Accuracies are per cent, losses nats, costs seconds, latencies milliseconds. `X_runs` holds the single runs behind the
mean `X`.
"""

import difflib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.errors import UserError
from jaxnas.spaces.nasbench201 import EDGES, OPERATIONS
from jaxnas.tabular.cell_table import cells, exhaustive_cells
from jaxnas.tabular.counts import checked_counts, warn_of_disagreements
from jaxnas.tabular.files import load_table, read_npz
from jaxnas.tabular.table import Table, from_arrays, mean_of_runs

__all__ = ["BENCHMARKS", "CELL", "DATASETS", "digits", "load", "nas_bench_macro", "nasbench201", "with_metrics"]

# The choices of the two spaces: six edges of the cell, and eight blocks of NAS-Bench-Macro.
CELL = {"cell": jax.ShapeDtypeStruct((len(EDGES), len(OPERATIONS)), jnp.float32)}
MACRO = {"blocks": jax.ShapeDtypeStruct((8, 3), jnp.float32)}
DIGITS_SHA256 = "8a271087b25e966b18db6a8629e469ee8ae26ab4951ca83eabc613d0aac2cc8a"
MISSING = 65535  # in a number of hits: no such run, or one that failed

# By data set the prefix of its columns in nasbench201.npz, and how many images it trains and validates on, in units of
# the 25,000 of CIFAR-10's training half. ImageNet16-120 has 151,700 training images of 16x16 pixels and 3,000 for
# validation.
DATASETS = {
    "cifar10": ("c10", 1.0, 1.0),
    "cifar100": ("c100", 2.0, 0.2),
    "imagenet16-120": ("in16", 6.068, 0.12),
}


def digits() -> Table:
    """Every cell of NAS-Bench-201 in a small network on scikit-learn's digits, trained with this library.

    Metrics are `valid_E` and `test_E`, the accuracies after `E` epochs, each with its `_runs`; `seconds`, what training
    and judging took; `parameters`; and `macs`. `jaxnas/tabular/data/README.md` says how the table was made.

    Example:
      >>> digits().metrics["test_16"].shape
      (15625,)
    """
    with resources.as_file(resources.files("jaxnas.tabular") / "data" / "digits.npz") as path:
        return exhaustive(path, name="digits", sha256=DIGITS_SHA256)


def exhaustive(path: str | Path, *, name: str = "exhaustive", sha256: str | None = None) -> Table:
    """A table that `python -m experiments.exhaustive` wrote.

    Args:
      path: the `.npz` file.
      name: words for people to know the table by.
      sha256: the checksum that the file must have, if given.

    Raises:
      UserError: a missing, damaged or other file; another checksum; a class without results, more hits than examples.
    """
    needed = {"cells", "class_of", "epochs", "validation_hits", "test_hits", "seconds", "parameters", "macs"}
    arrays = read_npz(path, needed | {"validation_size", "test_size"}, sha256=sha256)
    # Cells that compute the same function form a class, and one network was trained for all of them.
    classes = arrays["class_of"].astype(np.int64)
    if classes.min() < 0 or classes.max() >= len(arrays["seconds"]):
        raise UserError(f"{path}: class_of names class {classes.max()}, and there are {len(arrays['seconds'])} classes")
    metrics = {metric: arrays[metric] for metric in ("parameters", "macs")} | {"seconds": arrays["seconds"][classes]}
    for part, short in (("validation", "valid"), ("test", "test")):
        hits = arrays[f"{part}_hits"]
        # Numbers of hits, of every class, run and epoch, become per cent of the examples.
        size, most = int(arrays[f"{part}_size"]), hits[hits != MISSING].max(initial=0)
        if len(hits) != len(arrays["seconds"]) or most > size:
            expected = f"{len(arrays['seconds'])} rows of at most {size}"
            raise UserError(f"{path}: {part}_hits has {len(hits)} rows of up to {most}, expected {expected}")
        percent = np.where(hits == MISSING, np.nan, 100 * hits.astype(np.float32) / size)
        for place, epoch in enumerate(arrays["epochs"].tolist()):
            runs = percent[classes, :, place]
            metrics |= {f"{short}_{epoch}": mean_of_runs(runs), f"{short}_{epoch}_runs": runs}
    partial = bool(np.isnan(metrics[f"valid_{epoch}"]).any())
    return from_arrays(CELL, metrics, archs={"cell": arrays["cells"]}, name=name, holes=partial)


def nasbench201(path: str | Path, latency: str | Path | None = None, *, sha256: str | None = None) -> Table:
    """NAS-Bench-201, which is NATS-Bench's topology space (Dong and Yang 2020, 2001.00326; 2021, 2009.00437).

    Metrics of each of `cifar10`, `cifar100` and `imagenet16-120` are `<set>_valid_12`, `<set>_test_12`,
    `<set>_valid_200`, `<set>_test_200`, and `<set>_seconds_12`, what one evaluation of 12 epochs costs. Further metrics
    are `cifar10_test_200_runs`, `parameters`, `macs` and `latency/<device>`. Numbers of parameters and multiply-adds
    are exact counts of this library; one warning says where the file has others, or single runs that do not average to
    their mean.

    Args:
      path: an `.npz` with `ops` and the columns `c10_valid_12`, ..., `train_s_epoch`, `valid_s_pass_est`.
      latency: an `.npz` with `devices` and `latency_ms[15625, devices]`, its rows in the order of those of `path`.
      sha256: the checksum that the first file must have, if given.

    Raises:
      UserError: a missing, damaged or other file, another checksum, holes; latencies of other rows, of a device twice.
    """
    splits = [(part, epochs) for part in ("valid", "test") for epochs in (12, 200)]
    columns = {f"{short}_{part}_{epochs}" for short, *_ in DATASETS.values() for part, epochs in splits}
    needed = columns | {"ops", "train_s_epoch", "valid_s_pass_est", "c10_test_200_runs", "params_m", "flops_m"}
    arrays = read_npz(path, needed, sha256=sha256)
    # What the file records of sizes is in millions; exact counts take its place.
    archs, runs = {"cell": arrays["ops"]}, arrays["c10_test_200_runs"]
    recorded = {"parameters": 1e6 * arrays["params_m"][:, None], "macs": 1e6 * arrays["flops_m"][:, None]}
    metrics = checked_counts(path, archs, recorded) | {"cifar10_test_200_runs": runs}
    mean = arrays["c10_test_200"]
    warn_of_disagreements(path, "mean of c10_test_200_runs", archs, mean[:, None], mean_of_runs(runs)[:, None], 0.01)
    for name, (short, trained, validated) in DATASETS.items():
        metrics |= {f"{name}_{part}_{epochs}": arrays[f"{short}_{part}_{epochs}"] for part, epochs in splits}
        # An evaluation is 12 epochs of training and one pass over the validation images.
        cost = 12 * trained * arrays["train_s_epoch"] + validated * arrays["valid_s_pass_est"]
        metrics[f"{name}_seconds_12"] = cost
    if latency is not None:
        metrics |= _latencies(latency, len(arrays["ops"]))
    return from_arrays(CELL, metrics, archs=archs, name="nasbench201")


def _latencies(path: str | Path, rows: int) -> dict[str, np.ndarray]:
    """The metrics `latency/<device>` of all architectures, from a file with `devices` and `latency_ms`."""
    arrays = read_npz(path, {"devices", "latency_ms"})
    devices, latencies = arrays["devices"].tolist(), arrays["latency_ms"]
    if latencies.shape != (rows, len(devices)):
        raise UserError(f"{path}: latency_ms has shape {latencies.shape}, expected {(rows, len(devices))}")
    twice = sorted({name for name in devices if devices.count(name) > 1})
    if twice:
        raise UserError(f"{path}: devices names {twice[0]!r} more than once")
    return {f"latency/{name}": latencies[:, i] for i, name in enumerate(devices)}


def nas_bench_macro(path: str | Path, *, sha256: str | None = None) -> Table:
    """NAS-Bench-Macro (Su et al. 2021, 2103.11922): eight blocks, three choices each, CIFAR-10.

    Metrics are `test`, `test_runs`, `parameters` and `macs`. There is no validation accuracy: papers search on that of
    the test.

    Args:
      path: an `.npz` with `ops`, `c10_test_runs`, `params` and `flops`.
      sha256: the checksum that the file must have, if given.

    Raises:
      UserError: a missing, damaged or other file, another checksum, holes.
    """
    arrays = read_npz(path, {"ops", "c10_test_runs", "params", "flops"}, sha256=sha256)
    runs = arrays["c10_test_runs"]
    metrics = {"test": mean_of_runs(runs), "test_runs": runs, "parameters": arrays["params"], "macs": arrays["flops"]}
    return from_arrays(MACRO, metrics, archs={"blocks": arrays["ops"]}, name="nas-bench-macro")


def with_metrics(table: Table, metrics: dict[str, np.ndarray]) -> Table:
    """A table with further metrics.

    Args:
      table: the table, which stays as it is.
      metrics: arrays by name, `[N]` or `[N, R]`, in the order of the table; they replace metrics of the same name.

    Raises:
      UserError: an array of another length.

    Example:
      >>> table = with_metrics(digits(), {"rank": np.arange(15625)})
      >>> int(table.metrics["rank"][-1])
      15624
    """
    further = from_arrays(table.choices, metrics, name=table.name, holes=True).metrics
    return table._replace(metrics=table.metrics | further)


BENCHMARKS: dict[str, Callable[..., Table]] = {
    "digits": digits,
    "cells": cells,
    "exhaustive": exhaustive,
    "exhaustive-cells": exhaustive_cells,
    "nasbench201": nasbench201,
    "nas-bench-macro": nas_bench_macro,
    "table": load_table,
}


def load(name: str) -> Table:
    """A benchmark by name.

    Args:
      name: `digits`, `cells`, or `KIND:FILE[,FILE]` with a kind of `BENCHMARKS`: `nasbench201:A.npz,B.npz` takes
        accuracies and latencies, `table:FILE` takes what `save_table` or the converters wrote.

    Raises:
      UserError: an unknown kind, too many or too few files, or what the kind's own function refuses.
    """
    kind, _, rest = name.partition(":")
    files = [part for part in rest.split(",") if part]
    if kind not in BENCHMARKS:
        close = difflib.get_close_matches(kind, BENCHMARKS, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown benchmark {kind!r};{hint} there are {', '.join(BENCHMARKS)}")
    # How few and how many files a kind takes.
    allowed = {"digits": (0, 0), "cells": (0, 0), "nasbench201": (1, 2)}.get(kind, (1, 1))
    if not allowed[0] <= len(files) <= allowed[1]:
        raise UserError(f"benchmark {name!r}: {kind} takes {' to '.join(map(str, sorted(set(allowed))))} files")
    return BENCHMARKS[kind](*files)
