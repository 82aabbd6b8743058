"""One place that decides how an operation is written for the backend at hand."""

from typing import Literal

import jax

from jaxnas.errors import UserError

__all__ = ["Lowering", "by_hand"]

Lowering = Literal["auto", "lax", "shifts"]


def by_hand(lowering: Lowering) -> bool:
    """Whether to use the hand-written form instead of the plain `lax` primitive.

    Args:
      lowering: `"shifts"` for the hand-written form, `"lax"` for the plain one, `"auto"` for what is faster on the
        default backend: XLA's grouped convolutions and window reductions are slow on CPU.

    Raises:
      UserError: an unknown `lowering`.
    """
    if lowering not in ("auto", "lax", "shifts"):
        raise UserError(f"lowering must be 'auto', 'lax' or 'shifts', got {lowering!r}")
    return lowering == "shifts" or (lowering == "auto" and jax.default_backend() == "cpu")
