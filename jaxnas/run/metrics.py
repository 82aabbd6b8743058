"""Metrics as rows of plain numbers, and what takes them: `metrics.jsonl` always, TensorBoard when installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

__all__ = ["Row", "Writer", "has_bad_loss", "rows_of"]

Row = dict[str, Any]  # name -> number or nested list of numbers


class Writer(Protocol):
    """A sink of metrics. A writer may also have `close()`, which a run calls at its end."""

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics after `step` steps; `metrics["phase"]` names the phase."""
        ...


def rows_of(infos: Any, count: int) -> list[Row]:
    """Cuts stacked infos into one row per step.

    Args:
      infos: pytree of arrays `[n, ...]` with `n >= count`; entries beyond `count` are left out.
      count: number of rows.

    Returns:
      One dictionary per step, from the path of a leaf, `grads/norm`, to a Python number, or to nested lists of numbers
      for a leaf that is not a scalar.

    Example:
      >>> rows_of({"loss": jnp.array([2.0, 1.0]), "grads": {"norm": jnp.array([4, 3])}}, 2)
      [{'grads/norm': 4, 'loss': 2.0}, {'grads/norm': 3, 'loss': 1.0}]
    """
    # A name and a column of numbers for each leaf, cut into rows.
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(infos))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "value" for path, _ in leaves]
    columns = [_numbers(np.asarray(leaf)[:count]) for _, leaf in leaves]
    return [{name: column[i] for name, column in zip(names, columns, strict=True)} for i in range(count)]


def _numbers(array: np.ndarray) -> list[Any]:
    """An array as lists of Python numbers; types that Python does not know, such as bfloat16, go through float32."""
    return (array if array.dtype.kind in "biuf" else array.astype(np.float32)).tolist()


def has_bad_loss(row: Row) -> bool:
    """Whether the step of a row went bad.

    A row with entries whose name ends in `nonfinite` says so itself, wherever the cause lay: in a loss, a gradient or
    the weights that came out. A NaN among its losses may then mean that there was no such loss in this step. In a row
    without such an entry every loss, whose name ends in `loss`, must be finite.

    Args:
      row: the metrics of one step, from `rows_of`.
    """
    rejected = [value for name, value in row.items() if name.endswith("nonfinite")]
    if rejected:
        return any(np.any(np.asarray(value)) for value in rejected)
    losses = [value for name, value in row.items() if name.endswith("loss")]
    return not all(np.isfinite(np.asarray(value, np.float64)).all() for value in losses)
