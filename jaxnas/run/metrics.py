"""Metrics as rows of plain numbers, and what takes them: `metrics.jsonl` always, TensorBoard when installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

__all__ = ["Row", "Writer", "has_bad_loss", "rows_of"]

Row = dict[str, Any]  # name -> number or nested list of numbers


class Writer(Protocol):
    """A sink of metrics. A writer may also have `close()`."""

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics after `step` steps; `metrics["phase"]` names the phase."""
        ...


def rows_of(infos: Any, count: int) -> list[Row]:
    """Cuts stacked infos into one row per step.

    Args:
      infos: pytree of arrays `[n, ...]` with `n >= count`.
      count: number of rows.

    Returns:
      Rows of Python numbers (lists of them for leaves that are not scalars) named by tree path, `grads/norm`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(infos))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "value" for path, _ in leaves]
    columns = [_numbers(np.asarray(leaf)[:count]) for _, leaf in leaves]
    return [{name: column[i] for name, column in zip(names, columns, strict=True)} for i in range(count)]


def _numbers(array: np.ndarray) -> list[Any]:
    return array.tolist() if array.dtype.kind in "biuf" else array.astype(np.float32).tolist()  # bfloat16


def has_bad_loss(row: Row) -> bool:
    """Whether an entry whose name ends in `loss` is NaN or infinite, or one whose name ends in `nonfinite` is not zero.

    The second says that the step was rejected wherever the cause lay, in a gradient or in the weights that came out.
    """
    losses = [value for name, value in row.items() if name.endswith("loss")]
    rejected = [value for name, value in row.items() if name.endswith("nonfinite")]
    finite = all(np.isfinite(np.asarray(value, np.float64)).all() for value in losses)
    return not finite or any(np.any(np.asarray(value)) for value in rejected)
