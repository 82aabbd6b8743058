"""Kinds of arguments that benchmarks have in common."""

import argparse

__all__ = ["at_least_one"]


def at_least_one(text: str) -> int:
    """A whole number of at least one, for the `type` of an argument.

    Raises:
      ArgumentTypeError: any other text, which a parser reports in one line.

    Example:
      >>> at_least_one("3")
      3
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
