"""The kinds of values that fields of configurations hold, each with its range."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate, doc

from jaxnas.run import ranged


def _is_share(value: float) -> bool:
    """Whether a value is a fraction up to 1 or a whole count."""
    return 0 < value <= 1 or (1 <= value <= 10**9 and value == int(value))


def _differ(values: tuple) -> bool:
    """Whether no value comes twice."""
    return 0 < len(values) == len(set(values))


Text = ranged(str, MinLen(1))
Seed = ranged(int, Ge(0), Lt(2**32))
Share = ranged(float, Predicate(_is_share), doc("a fraction up to 1, or a whole count"))
Seconds = ranged(float, Ge(0), Le(1e9))

Count = ranged(int, Ge(1), Le(1_000_000))  # epochs, examples, evaluations
Whole = ranged(int, Ge(0), Le(1_000_000))
Few = ranged(int, Ge(1), Le(1_000))  # networks, or images at a time
FewOrNone = ranged(int, Ge(0), Le(1_000))
Depth = ranged(int, Ge(1), Le(100))  # cells or blocks of a network; strides and sides of kernels
Nodes = ranged(int, Ge(1), Le(20))  # inside of a cell
Width = ranged(int, Ge(1), Le(10_000))  # channels of a layer, or the side of an image
Pixels = ranged(int, Ge(0), Le(10_000))

Rate = ranged(float, Gt(0), Le(1_000))  # a learning rate or a temperature
LastRate = ranged(float, Ge(0), Le(1_000))  # where a schedule ends
Decay = ranged(float, Ge(0), Le(1))  # the L2 coefficient of weight decay
Factor = ranged(float, Ge(0), Le(1_000_000))  # the weight of a term in a loss
Positive = ranged(float, Gt(0), Le(1_000_000_000))
Fraction = ranged(float, Gt(0), Le(1))
Probability = ranged(float, Ge(0), Lt(1))

Widths = Annotated[tuple[Width, ...], MinLen(1)]
Depths = Annotated[tuple[Depth, ...], MinLen(1)]
Sides = Annotated[tuple[Depth, ...], Predicate(_differ), doc("at least one whole number, none of them twice")]
Factors = Annotated[tuple[Factor, ...], Predicate(_differ), doc("at least one number, none of them twice")]
Rates = Annotated[tuple[Rate, ...], Predicate(_differ), doc("at least one number, none of them twice")]
Decays = Annotated[tuple[Decay, ...], Predicate(_differ), doc("at least one number, none of them twice")]
Fractions = Annotated[tuple[Fraction, ...], Predicate(_differ), doc("at least one number, none of them twice")]
Names = Annotated[tuple[Text, ...], Predicate(_differ), doc("at least one name, none of them twice")]
Seeds = Annotated[tuple[Seed, ...], Predicate(_differ), doc("at least one seed, none of them twice")]
