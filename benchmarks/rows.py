"""Rows of a benchmark, printed as a table while they are measured."""

import argparse
import json
from collections.abc import Callable, Iterable
from typing import Any

from jaxnas.run import environment

__all__ = ["measured", "print_rows"]


def measured(parser: argparse.ArgumentParser, measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict:
    """The row `measure(*arguments)`; what it refuses, a `ValueError`, ends the program with one line of the parser."""
    try:
        return measure(*arguments)
    except ValueError as error:
        parser.error(str(error))


def print_rows(rows: Iterable[dict[str, Any]], about: tuple[str, ...] = ("device", "devices", "jax", "commit")) -> None:
    """Prints a Markdown table, each row as soon as it is there, and then as JSON where it was measured.

    Args:
      rows: what was measured, dictionaries with the same names.
      about: the entries of `jaxnas.run.environment` to print.

    Example:
      >>> print_rows([{"strategy": "map", "per hour": 10}], about=())
      | strategy | per hour |
      |---|---|
      | map | 10 |
      {}
    """
    names: list[str] = []
    for row in rows:
        if not names:
            names = list(row)
            print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
        print(f"| {' | '.join(str(row[name]) for name in names)} |", flush=True)
    print(json.dumps({name: environment()[name] for name in about}))
