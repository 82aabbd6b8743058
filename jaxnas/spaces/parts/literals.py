"""Python literals and named tuples in text, read as data: the form in which genotypes are printed and released."""

import ast
import warnings
from typing import Any

from jaxnas.errors import UserError

__all__ = ["read_literal"]

LONGEST = 10_000  # entries of a range; longer than any genotype
FIELDS = {"Genotype": ("normal", "normal_concat", "reduce", "reduce_concat")}


def read_literal(text: str) -> Any:
    """The data in a text such as `Genotype(normal=[('skip_connect', 0)], normal_concat=range(2, 6))`.

    Constants, lists, tuples and dictionaries are read; `range(...)` is a list; any other call with names is a
    dictionary of its arguments, and `Genotype` of its four fields in order; `NAME = ...` is what stands on the right.
    Nothing is evaluated.

    Raises:
      UserError: anything else.

    Example:
      >>> read_literal("DARTS = Genotype(normal=[('sep', 1)], normal_concat=range(2, 4))")
      {'normal': [['sep', 1]], 'normal_concat': [2, 3]}
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # the compiler's, of doubtful code
            (statement,) = ast.parse(text.strip()).body
        if isinstance(statement, ast.Expr | ast.Assign):
            return _data(statement.value)
    except (SyntaxError, RecursionError, MemoryError, OverflowError, ValueError) as error:
        raise UserError(f"not a Python literal: {error}") from None
    raise UserError("not a Python literal: a statement")


def _data(node: ast.expr) -> Any:
    match node:  # everything that can stand in a released genotype, and nothing that runs
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=entries) | ast.Tuple(elts=entries):
            return [_data(entry) for entry in entries]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_key(key): _data(value) for key, value in zip(keys, values, strict=True)}
        case ast.Call(func=ast.Name(id=name)):
            return _call(name, [_data(entry) for entry in node.args], node.keywords)
    raise UserError(f"{type(node).__name__} in line {node.lineno}")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise UserError("a key that is no text")


def _call(name: str, given: list[Any], keywords: list[ast.keyword]) -> Any:
    named = {keyword.arg: _data(keyword.value) for keyword in keywords if keyword.arg is not None}
    if name == "range":
        if named or not 1 <= len(given) <= 3 or not all(type(end) is int for end in given):
            raise UserError(f"range of {given}")
        numbers = range(*given)
        if len(numbers) > LONGEST:
            raise UserError(f"range of {len(numbers)} entries")
        return list(numbers)
    # A call with names is a dictionary; arguments by place need known fields.
    fields = FIELDS.get(name, ())
    if len(given) > len(fields) or not given + list(named) or len(named) < len(keywords):
        raise UserError(f"call of {name}")
    return {**dict(zip(fields, given, strict=False)), **named}
