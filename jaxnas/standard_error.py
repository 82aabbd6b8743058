"""The one way in which the library speaks on standard error."""

import contextlib
import sys

__all__ = ["say"]


def say(text: str, *, end: str = "\n") -> None:
    """Prints a line on standard error, or nothing in a process that has none or has closed it."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)
