"""The spaces that come with the library, by name: one line in `SPACES` makes a space known to the command lines.

A space has the name here that it gives itself in `about.name`, which is what an `architecture.json` records. Code that
knows which space it wants calls its factory; this is for names that come from a file or a person.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxnas.base import SearchSpace
from jaxnas.errors import UserError
from jaxnas.spaces.darts import darts_space, snas_space
from jaxnas.spaces.nas_rl import nas_rl_space
from jaxnas.spaces.nasbench201 import nasbench201_small_space, nasbench201_space
from jaxnas.spaces.proxyless import proxyless_space, proxyless_tree_space
from jaxnas.spaces.toy import quadratic_space, table_space

__all__ = ["SPACES", "build", "defaults", "names", "needed", "settings_from_text"]

SPACES: dict[str, Callable[..., SearchSpace]] = {
    "darts": darts_space,
    "snas": snas_space,
    "nasbench201": nasbench201_space,
    "nasbench201-small": nasbench201_small_space,
    "nas-rl": nas_rl_space,
    "proxyless": proxyless_space,
    "proxyless-tree": proxyless_tree_space,
    "table": table_space,
    "quadratic": quadratic_space,
}


def names() -> tuple[str, ...]:
    """The names that `build` knows."""
    return tuple(SPACES)


def defaults(name: str) -> dict[str, Any]:
    """The settings of a space with their default values, `inspect.Parameter.empty` where there is none.

    Raises:
      UserError: an unknown space.
    """
    if name not in SPACES:
        raise UserError(f"unknown space {name!r};{_hint(name, SPACES)} the spaces are {', '.join(SPACES)}")
    return {setting.name: setting.default for setting in inspect.signature(SPACES[name]).parameters.values()}


def needed(name: str) -> tuple[str, ...]:
    """The settings of a space that have no default value.

    Raises:
      UserError: an unknown space.
    """
    return tuple(setting for setting, value in defaults(name).items() if value is inspect.Parameter.empty)


def settings_from_text(name: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Settings as they stand on a command line, each in the type of its default value.

    Args:
      name: name of the space.
      pairs: settings as `NAME=VALUE`; the entries of a sequence are separated by commas, with or without brackets
        around them, and the value of a setting without a default is JSON.

    Raises:
      UserError: an unknown space; a pair in another form, or a value of another type.

    Example:
      >>> settings_from_text("proxyless", ["widths=8,16", "dtype=bfloat16"])
      {'widths': (8, 16), 'dtype': 'bfloat16'}
    """
    known, settings = defaults(name), {}
    for pair in pairs:
        setting, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"setting {pair}: expected name=value")
        # In the type of the default; a sequence entry by entry.
        default = known.get(setting, text)
        if isinstance(default, tuple | list):
            settings[setting] = tuple(_value(setting, part.strip(), default[0]) for part in _entries(text))
        else:
            settings[setting] = _value(setting, text, default)
    return settings


def build(name: str, **settings: Any) -> SearchSpace:
    """Builds a space by name.

    Args:
      name: name of the space, one of `names()`.
      **settings: arguments of the space's factory.

    Raises:
      UserError: an unknown space or setting, with a suggestion; a missing setting; a value that the factory refuses.

    Example:
      >>> build("nasbench201", channels=4).about.size
      15625
    """
    # Names are checked here, values by the factory.
    known = defaults(name)
    for setting in settings:
        if setting not in known:
            hint = _hint(setting, known)
            raise UserError(f"unknown setting {setting!r} of space {name};{hint} the settings are {', '.join(known)}")
    missing = [setting for setting in needed(name) if setting not in settings]
    if missing:
        raise UserError(f"space {name} needs a value for {', '.join(missing)}")
    return SPACES[name](**settings)


def _entries(text: str) -> list[str]:
    """The entries of a sequence: `8,16` and `(8, 16)` are the same two."""
    return text.strip("()[] ").removesuffix(",").split(",")


def _value(name: str, text: str, default: Any) -> Any:
    """Reads one value: of the type of the default, or JSON where there is none."""
    kind = "a whole number" if type(default) is int else "a number"
    try:
        if default is None or default is inspect.Parameter.empty:
            kind = "JSON"
            return json.loads(text)
        if isinstance(default, bool):
            kind = "true or false"
            return {"true": True, "false": False}[text.lower()]
        return type(default)(text) if isinstance(default, int | float) else text
    except (KeyError, ValueError, RecursionError):
        raise UserError(f"setting {name}: expected {kind}, got {text!r}") from None


def _hint(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f" did you mean {close[0]}?" if close else ""
