"""How reading a checkpoint fails: in silence on Orbax's part, and as one kind of error."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from jaxnas.files import Damaged

__all__ = ["Broken", "breaking", "first_line", "quiet"]


class Broken(Exception):
    """One step that does not verify; `Checkpoints.restore` falls back to an older one."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Orbax from writing to stderr: what matters is raised or printed by its caller."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    former = logger.level

    # After a broken step, reads that are still under way end in errors that nobody asked for.
    def ignore_late_reads(problem: Any) -> None:
        if "Event loop is closed" not in str(problem.exc_value):
            hook(problem)

    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = ignore_late_reads
    try:
        yield
    finally:
        sys.unraisablehook = hook
        logger.setLevel(former)


@contextlib.contextmanager
def breaking() -> Iterator[None]:
    """Whatever goes wrong while a step is read means that the step is broken."""
    try:
        yield
    except Broken:
        raise
    except Damaged as error:
        raise Broken(str(error)) from None
    except Exception as error:
        time.sleep(0.2)  # the reads of the other leaves end after the loop that asked for them is closed
        raise Broken(first_line(error)) from None


def first_line(error: BaseException) -> str:
    """The name of an error and the first line of its text.

    Example:
      >>> first_line(KeyError("no such layer"))
      "KeyError: 'no such layer'"
    """
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"
