"""A benchmark as arrays on the device: what is known of every architecture of a space, looked up inside `jit`.

Architectures are numbered in the order of counting, the last decision fastest (`jaxnas.architectures.decisions`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import decisions
from jaxnas.base import Arch, Tree
from jaxnas.errors import UserError

__all__ = ["Table", "floats", "from_arrays", "lookup", "mean_of_runs", "metric_of", "missing", "sample_run"]

LARGEST = 2**24  # architectures in a table; a metric of so many takes 64 MB


class Table(NamedTuple):
    """What is known of each of `N` architectures, in the order of counting (`Decisions.number`).

    Attributes:
      choices: the choices of the space, as in `SearchSpace.choices`.
      metrics: arrays by name, `[N]`, or `[N, R]` for `R` single runs. What was given as integers, such as a number of
        parameters, is int32 and exact (int64 where it is too large for that); all else is float32. Where nothing is
        known stands `missing(dtype)`.
      name: words for people to know the table by.
      present: bool `[N]`, whether an architecture is in the table, or None where all of them are.
    """

    choices: Tree
    metrics: dict[str, jax.Array]
    name: str = "table"
    present: jax.Array | None = None


def from_arrays(
    choices: Tree,
    metrics: Mapping[str, np.ndarray],
    *,
    archs: Arch | None = None,
    name: str = "table",
    holes: bool = False,
) -> Table:
    """A table from anyone's arrays.

    Args:
      choices: pytree of `jax.ShapeDtypeStruct((E, K), float32)`, the choices of the space.
      metrics: arrays by name, with one value or one row of single runs per architecture: `[A]` or `[A, R]`. Integers
        stay exact, other numbers become float32.
      archs: the architecture that each entry belongs to, leaves `[A, E]`; by default all of the space, in the order of
        counting.
      name: words for people to know the table by.
      holes: whether architectures may be missing, whose metrics are then NaN, and metrics may be NaN.

    Raises:
      UserError: lengths that do not fit, an architecture outside of the space, twice in the table or, unless `holes`,
        missing from it; a value that is NaN, unless `holes`; a space too large for a table; integers beyond 32 bits
        without 64-bit JAX.

    Example:
      >>> choices = {"op": jax.ShapeDtypeStruct((1, 3), jnp.float32)}
      >>> table = from_arrays(choices, {"accuracy": np.array([0.5, 0.7, 0.6])})
      >>> float(lookup(table, "accuracy", {"op": jnp.array([1])}))
      0.699999988079071
    """
    # Every entry gets its place in the order of counting.
    flat = decisions(choices)
    if flat.size > LARGEST:
        raise UserError(f"{name}: {flat.size:.3g} architectures are too many for a table, at most {LARGEST}")
    places = np.arange(flat.size) if archs is None else _places(name, flat, archs)
    for metric, values in metrics.items():
        if np.ndim(values) not in (1, 2) or len(values) != len(places):
            expected = f"({len(places)},) or ({len(places)}, runs)"
            raise UserError(f"{name}: {metric} has shape {np.shape(values)}, expected {expected}")
    present = np.zeros(flat.size, bool)
    present[places] = True
    if not holes:
        _check_whole(name, flat, present, metrics)
    # Values in the types of a table, at their places; what nothing is known of is `missing`.
    stored = {metric: _stored(f"{name}: {metric}", values) for metric, values in metrics.items()}
    filled = {metric: jnp.asarray(_filled(flat.size, places, values)) for metric, values in stored.items()}
    return Table(choices, filled, name, None if present.all() else jnp.asarray(present))


def missing(dtype: Any) -> Any:
    """What stands in a metric where nothing is known: NaN, or the least number of an integer type.

    Example:
      >>> int(missing(np.int32)), float(missing(np.float32))
      (-2147483648, nan)
    """
    dtype = np.dtype(dtype)
    return dtype.type(np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else np.nan)


def floats(values: Any) -> Any:
    """The values of a metric as floating numbers, NaN where nothing is known.

    Args:
      values: an array of any shape, from `metric_of` or `lookup`.

    Returns:
      Numpy arrays of integers as float64, which is exact up to `2**53`; JAX arrays of integers as float32, which is
      exact up to `2**24`; floating numbers as they are.

    Example:
      >>> floats(np.array([7, missing(np.int32)], np.int32)).tolist()
      [7.0, nan]
    """
    if not np.issubdtype(values.dtype, np.integer):
        return values
    if isinstance(values, np.ndarray):
        return np.where(values == missing(values.dtype), np.nan, values)
    return jnp.where(values == missing(values.dtype), jnp.float32(jnp.nan), values.astype(jnp.float32))


def metric_of(table: Table, metric: str) -> jax.Array:
    """A metric of all architectures, `[N]` or `[N, R]`.

    Args:
      table: the table.
      metric: the name of the metric.

    Raises:
      UserError: the table has no such metric.
    """
    if metric not in table.metrics:
        raise UserError(f"{table.name} has no metric {metric!r}; it has {', '.join(sorted(table.metrics))}")
    return table.metrics[metric]


def lookup(table: Table, metric: str, archs: Arch) -> jax.Array:
    """A metric of given architectures.

    Args:
      table: the table.
      metric: the name of the metric.
      archs: the architectures, leaves `[..., E]`.

    Returns:
      The values `[...]`, or `[..., R]` of a metric with single runs. Inside `jit` an architecture that is not there has
      `missing(dtype)`, which is NaN unless the metric is one of integers.

    Raises:
      UserError: no such metric; outside of `jit`, an architecture that is not in the table.

    Example:
      >>> from jaxnas.tabular import digits
      >>> cell = {"cell": jnp.array([3, 3, 3, 3, 3, 3])}  # a 3x3 convolution on every edge
      >>> lookup(digits(), "parameters", cell).item()
      4878
    """
    every = metric_of(table, metric)
    flat = decisions(table.choices)
    rows = flat.join(archs)
    number = jnp.clip(flat.number(rows), 0, flat.size - 1)
    # Known are architectures of the space that the table has an entry for.
    known = jnp.all((rows >= 0) & (rows < flat.counts.reshape((1,) * (rows.ndim - 1) + (-1,))), -1)
    if table.present is not None:
        known &= table.present[number]
    if not isinstance(known, jax.core.Tracer) and not np.all(known):
        first = np.asarray(rows)[~np.asarray(known)][0] if known.ndim else rows
        raise UserError(f"{table.name} has no architecture {np.asarray(first).tolist()}")
    # What is not known is looked up at some place of the table all the same, and replaced here.
    values = every[number]
    return jnp.where(known.reshape(known.shape + (1,) * (values.ndim - known.ndim)), values, missing(values.dtype))


def sample_run(key: jax.Array, table: Table, metric: str, archs: Arch) -> jax.Array:
    """One of the stored runs of each architecture, drawn uniformly and independently: `[...]`.

    Args:
      key: the key of all draws.
      table: the table.
      metric: the name of a metric with single runs, `[N, R]`.
      archs: the architectures, leaves `[..., E]`.

    Raises:
      UserError: a metric without single runs, or what `lookup` refuses.

    Example:
      >>> choices = {"op": jax.ShapeDtypeStruct((1, 2), jnp.float32)}
      >>> table = from_arrays(choices, {"runs": np.array([[0.5, 0.5], [0.7, np.nan]])})
      >>> round(float(sample_run(jax.random.key(0), table, "runs", {"op": jnp.array([1])})), 4)
      0.7
    """
    runs = floats(lookup(table, metric, archs))
    if runs.ndim != jax.tree.leaves(archs)[0].ndim:
        raise UserError(f"{table.name}: {metric} has no single runs to draw from")
    # Runs that are not there are never drawn, the others equally often.
    logits = jnp.where(jnp.isnan(runs), jnp.float32(-jnp.inf), jnp.float32(0))
    chosen = jax.random.categorical(key, logits)
    return jnp.take_along_axis(runs, chosen[..., None], -1)[..., 0]


def mean_of_runs(runs: np.ndarray) -> np.ndarray:
    """The mean over the runs that there are, `[A]` of `[A, R]`; NaN where there is none.

    Example:
      >>> mean_of_runs(np.array([[1.0, 3.0], [5.0, np.nan]])).tolist()
      [2.0, 5.0]
    """
    there = ~np.isnan(runs)
    number = there.sum(1)
    return np.where(number > 0, np.where(there, runs, 0).sum(1) / np.maximum(number, 1), np.nan)


def _places(name: str, flat, archs: Arch) -> np.ndarray:
    """The number of each architecture; refuses those outside of the space and those that come twice."""
    rows = np.asarray(flat.join(archs))
    outside = np.flatnonzero(((rows < 0) | (rows >= flat.counts)).any(1))
    if len(outside):
        entry = outside[0]
        raise UserError(f"{name}: entry {entry} is {rows[entry].tolist()}, which is not an architecture of the space")
    places = np.asarray(flat.number(rows))
    # Every architecture at most once.
    numbers, counts = np.unique(places, return_counts=True)
    if (counts > 1).any():
        twice = rows[places == numbers[counts > 1][0]][0].tolist()
        raise UserError(f"{name}: {int((counts > 1).sum())} architectures occur more than once, the first is {twice}")
    return places


def _check_whole(name: str, flat, present: np.ndarray, metrics: Mapping[str, np.ndarray]) -> None:
    """Refuses a table with holes: architectures without an entry, or without a number in one of the metrics."""
    if not present.all():
        first = np.unravel_index(int(np.argmin(present)), tuple(flat.counts))
        raise UserError(
            f"{name}: {int((~present).sum())} of {flat.size} architectures are missing, the first is "
            f"{[int(k) for k in first]}; with holes=True they are allowed"
        )
    for metric, values in metrics.items():
        array = floats(np.asarray(values))
        bad = np.isnan(array.reshape(len(array), -1).astype(np.float32)).all(1)
        if bad.any():
            raise UserError(f"{name}: {metric} is NaN for {int(bad.sum())} architectures; with holes=True it may be")


def _stored(name: str, values: Any) -> np.ndarray:
    """The values in the type in which a table holds them."""
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32)
    # Integers that come out of a table mark the unknown by the least number of their type.
    unknown = values == missing(values.dtype) if values.dtype in (np.int32, np.int64) else np.zeros(values.shape, bool)
    known = values[~unknown]
    # Exact in 32 bits where all of them fit, else in 64.
    low, high = (int(known.min()), int(known.max())) if known.size else (0, 0)
    dtype = np.int32 if np.iinfo(np.int32).min < low and high <= np.iinfo(np.int32).max else np.int64
    if dtype is np.int64 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise UserError(
            f"{name} holds integers from {low} to {high}, which only 64-bit JAX (JAX_ENABLE_X64=1) keeps exactly; as "
            "floating numbers they are rounded to seven digits"
        )
    stored = values.astype(dtype)
    stored[unknown] = missing(dtype)
    return stored


def _filled(size: int, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """All `size` values of a metric: those that are known at their places, `missing` everywhere else."""
    filled = np.full((size, *values.shape[1:]), missing(values.dtype))
    filled[places] = values
    return filled
