"""Checks of settings that every space needs."""

from collections.abc import Iterable, Sequence
from typing import Any

from jaxnas.errors import UserError

__all__ = ["at_least_one", "known_operations", "reference_examples"]


def at_least_one(config: Any, names: Iterable[str]) -> None:
    """Raises `UserError` that names the attribute if one of the named sizes of `config` is below one."""
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(config, name)}")


def known_operations(chosen: Sequence[str], accepted: Sequence[str]) -> None:
    """Raises `UserError` if a choice has fewer than two operations, one of them twice, or an unknown one."""
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise UserError(f"operations: need two or more different ones, got {list(chosen)}")
    for name in chosen:
        if name not in accepted:
            raise UserError(f"operations: unknown {name!r}, accepted are {', '.join(accepted)}")


def reference_examples(number: int) -> None:
    """Raises `UserError` if the number of examples that give a batch's statistics is below zero."""
    if number < 0:
        raise UserError(f"reference must be a number of examples, at least 0, got {number}")
