"""The ranges of a configuration's fields: written beside their types, shown in `--help`, checked here.

A range is a constraint of `annotated_types` in the type of a field, `Annotated[float, Gt(0), Le(1)]`. `ranged` makes
such types for the command line, which then shows the range beside the option.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import annotated_types as at

from jaxnas.errors import UserError

__all__ = ["Option", "check_ranges", "options_of", "ranged"]

_LOWER: dict[type, tuple[str, str, Callable[[Any, Any], bool]]] = {
    at.Gt: ("(", "gt", lambda value, bound: value > bound),
    at.Ge: ("[", "ge", lambda value, bound: value >= bound),
}
_UPPER: dict[type, tuple[str, str, Callable[[Any, Any], bool]]] = {
    at.Lt: (")", "lt", lambda value, bound: value < bound),
    at.Le: ("]", "le", lambda value, bound: value <= bound),
}
_KINDS = {int: "a whole number", float: "a number", str: "text"}


class Option(NamedTuple):
    """One field of a configuration as the command line sees it.

    Attributes:
      name: for example `--search.learning-rate`.
      value: of the field.
      kind: its type, constraints included.
    """

    name: str
    value: Any
    kind: Any


def ranged(kind: type, *constraints: Any) -> Any:
    """The type `Annotated[kind, *constraints]` of one word of the command line, whose help shows the constraints.

    Args:
      kind: int, float or str.
      constraints: of `annotated_types`: bounds, `MinLen`, or a `Predicate` with a `doc` that says what it accepts.
    """
    from tyro.constructors import PrimitiveConstructorSpec

    accepted = (int, float) if kind is float else kind
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{kind.__name__.upper()}{_interval(constraints)}",
        instance_from_str=lambda words: kind(words[0]),
        is_instance=lambda value: isinstance(value, accepted),
        str_from_instance=lambda value: [str(value)],
    )
    return Annotated[(kind, *constraints, spec)]  # type: ignore[return-value]


def options_of(config: Any, prefix: str = "--") -> Iterator[Option]:
    """Every field of nested dataclasses, in order; the fields of one with the metadata `flat` get no prefix."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        name, value = prefix + field.name.replace("_", "-"), getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from options_of(value, prefix if field.metadata.get("flat") else f"{name}.")
        else:
            yield Option(name, value, hints[field.name])


def check_ranges(config: Any) -> None:
    """Refuses a configuration with a value outside of its field's range.

    Raises:
      UserError: names the option, the value and what is accepted.
    """
    for option in options_of(config):
        wrong = _outside(option.value, option.kind)
        if wrong is not None:
            value, expected = wrong
            verb = "is" if value is option.value else "has"
            raise UserError(f"{option.name} {verb} {_shown(value)}, expected {expected}")


def _outside(value: Any, kind: Any) -> tuple[Any, str] | None:
    """The part of a value that no branch of its type allows, and what is allowed there; None if all of it is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner, *constraints = arguments
        return _outside(value, inner) if _allows(value, constraints) else (value, _expected(inner, constraints))
    if origin in (Union, types.UnionType):
        found = [_outside(value, branch) for branch in arguments if (branch is type(None)) == (value is None)]
        return None if None in found or not found else found[0]
    if origin is tuple and isinstance(value, tuple):
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        return next(filter(None, map(_outside, value, kinds)), None)
    if origin is Literal:
        return None if value in arguments else (value, f"one of {', '.join(map(str, arguments))}")
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        return value, "a finite number"
    return None


def _allows(value: Any, constraints: list[Any]) -> bool:
    for constraint in constraints:
        for symbols in (_LOWER, _UPPER):
            if type(constraint) in symbols:
                _, attribute, holds = symbols[type(constraint)]
                if not holds(value, getattr(constraint, attribute)):  # NaN fails every comparison
                    return False
        if isinstance(constraint, at.MinLen) and len(value) < constraint.min_length:
            return False
        if isinstance(constraint, at.Predicate) and not constraint.func(value):
            return False
    return True


def _expected(kind: Any, constraints: list[Any]) -> str:
    """What a constrained type accepts, in words."""
    for constraint in constraints:
        if isinstance(constraint, at.DocInfo):
            return constraint.documentation
    if any(isinstance(constraint, at.MinLen) for constraint in constraints):
        return "text that is not empty" if kind is str else "at least one value"
    return _KINDS.get(kind, "a value") + _interval(constraints)


def _interval(constraints: Any) -> str:
    """The bounds as ` in (0, 1]`; nothing without bounds."""
    below = [(_LOWER[type(c)][0], getattr(c, _LOWER[type(c)][1])) for c in constraints if type(c) in _LOWER]
    above = [(_UPPER[type(c)][0], getattr(c, _UPPER[type(c)][1])) for c in constraints if type(c) in _UPPER]
    if not below and not above:
        return ""
    opening, least = below[0] if below else ("(", -math.inf)
    closing, most = above[0] if above else (")", math.inf)
    return f" in {opening}{_number(least)}, {_number(most)}{closing}"


def _number(value: float) -> str:
    return f"{value:,}".replace(",", "_") if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
