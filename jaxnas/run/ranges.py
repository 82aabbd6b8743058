"""The ranges of a configuration's fields: written beside their types, shown in `--help`, checked here.

A range is a constraint of `annotated_types` in the type of a field, `Annotated[float, Gt(0), Le(1)]`. `ranged` makes
such types for the command line, which then shows the range beside the option.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import annotated_types as at

from jaxnas.errors import UserError

__all__ = ["Option", "check_ranges", "options_of", "ranged"]

# Each kind of bound: the attribute that holds it, what it asks for, and the bracket that shows it.
_BOUNDS: dict[type, tuple[str, Callable[[Any, Any], bool], str]] = {
    at.Gt: ("gt", operator.gt, "("),
    at.Ge: ("ge", operator.ge, "["),
    at.Lt: ("lt", operator.lt, ")"),
    at.Le: ("le", operator.le, "]"),
}
_KINDS = {int: "a whole number", float: "a number", str: "text"}


class Option(NamedTuple):
    """One field of a configuration as the command line sees it.

    Attributes:
      name: the word that sets the field, for example `--search.learning-rate`.
      value: the value that the field has.
      kind: the type of the field, constraints included.
    """

    name: str
    value: Any
    kind: Any


def ranged(kind: type, *constraints: Any) -> Any:
    """The type `Annotated[kind, *constraints]` of one word of the command line, whose help shows the constraints.

    Args:
      kind: int, float or str.
      *constraints: objects of `annotated_types`: bounds, `MinLen`, or a `Predicate` beside a `doc` that says what it
        accepts.

    Example:
      >>> import dataclasses
      >>> from annotated_types import Gt, Le
      >>> Config = dataclasses.make_dataclass("Config", [("rate", ranged(float, Gt(0), Le(1)))])
      >>> check_ranges(Config(2.0))
      Traceback (most recent call last):
      jaxnas.errors.UserError: --rate is 2.0, expected a number in (0, 1]
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
    """Yields every field of nested dataclasses, in order.

    Args:
      config: a dataclass instance. The fields of a nested one that has the metadata `flat` get no prefix.
      prefix: text with which all names begin.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        name, value = prefix + field.name.replace("_", "-"), getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from options_of(value, prefix if field.metadata.get("flat") else f"{name}.")
        else:
            yield Option(name, value, hints[field.name])


def check_ranges(config: Any) -> None:
    """Refuses a configuration with a value outside of its field's range.

    Args:
      config: a dataclass instance, as for `options_of`.

    Raises:
      UserError: a value is outside; the message names the option, the value and what is accepted.
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
        allowed = all(_allows(value, constraint) for constraint in constraints)
        return _outside(value, inner) if allowed else (value, _expected(inner, constraints))
    if origin in (Union, types.UnionType):  # None fits the branch of None alone, and nothing else does
        found = [_outside(value, branch) for branch in arguments if (branch is type(None)) == (value is None)]
        return None if None in found or not found else found[0]
    if origin is tuple and isinstance(value, tuple):  # the first entry that is outside speaks for all
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        return next(filter(None, map(_outside, value, kinds)), None)
    if origin is Literal:
        return None if value in arguments else (value, f"one of {', '.join(map(str, arguments))}")
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        return value, "a finite number"
    return None


def _allows(value: Any, constraint: Any) -> bool:
    """Whether a value keeps one constraint."""
    if type(constraint) in _BOUNDS:
        attribute, holds, _ = _BOUNDS[type(constraint)]
        return holds(value, getattr(constraint, attribute))  # NaN fails every comparison
    if isinstance(constraint, at.MinLen):
        return len(value) >= constraint.min_length
    return not isinstance(constraint, at.Predicate) or constraint.func(value)


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
    symbols = [(*_BOUNDS[type(constraint)], constraint) for constraint in constraints if type(constraint) in _BOUNDS]
    bounds = {bracket: getattr(constraint, attribute) for attribute, _, bracket, constraint in symbols}
    if not bounds:
        return ""
    # The side without a bound is open and goes to infinity.
    opening, closing = "[" if "[" in bounds else "(", "]" if "]" in bounds else ")"
    return f" in {opening}{_number(bounds.get(opening, -math.inf))}, {_number(bounds.get(closing, math.inf))}{closing}"


def _number(value: float) -> str:
    """A bound as Python would read it, `1_000_000` or `0.5`."""
    return f"{value:,}".replace(",", "_") if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    """A value for the line of an error: text as it is, everything cut to 80 characters."""
    text = value if isinstance(value, str) and value else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
