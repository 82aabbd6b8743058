"""Pictures of a script, left out where matplotlib is not installed."""

from collections.abc import Callable
from typing import Any

from jaxnas.run import is_installed


def draw(picture: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Calls a function of `jaxnas.plot`; without matplotlib there is no picture, as every script says at its start."""
    if is_installed("matplotlib"):
        picture(*arguments, **options)
