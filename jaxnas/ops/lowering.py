"""One place that decides how an operation is written for the backend at hand, and in which type it computes."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Lowering", "by_hand", "compute_dtype"]

Lowering = Literal["auto", "lax", "shifts"]


def by_hand(lowering: Lowering) -> bool:
    """Whether to use the hand-written form instead of the plain `lax` primitive.

    Args:
      lowering: `"shifts"` for the hand-written form, `"lax"` for the plain one, `"auto"` for what is faster on the
        default backend: XLA's grouped convolutions and window reductions are slow on CPU.

    Raises:
      ValueError: an unknown `lowering`.
    """
    if lowering not in ("auto", "lax", "shifts"):
        raise ValueError(f"lowering must be 'auto', 'lax' or 'shifts', got {lowering!r}")
    return lowering == "shifts" or (lowering == "auto" and jax.default_backend() == "cpu")


def compute_dtype(name: str) -> np.dtype:
    """The type in which a space computes.

    Raises:
      ValueError: another name than `"float32"` or `"bfloat16"`.
    """
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {name!r}")
    return jnp.dtype(name)
