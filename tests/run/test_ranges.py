"""Ranges of fields, and configurations as text."""

import dataclasses
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate, doc

from jaxnas.run import check_ranges, options_of, parse, ranged
from jaxnas.run.settings import read_settings, settings_of, settings_text

Rate = ranged(float, Gt(0), Le(10))
Count = ranged(int, Ge(1), Lt(100))
Even = ranged(int, Predicate(lambda value: value % 2 == 0), doc("an even number"))


@dataclasses.dataclass(frozen=True)
class Part:
    """A part."""

    rate: Rate = 0.5
    """First rate."""
    sides: Annotated[tuple[Count, ...], MinLen(1)] = (1, 2)
    """Of something."""
    pad_to: Count | None = None
    """If given."""
    mode: Literal["a", "b"] = "a"
    """Which."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration."""

    part: Part = Part()
    even: Even = 2
    """Of something."""
    free: float = 1.0
    """Any finite number."""
    name: ranged(str, MinLen(1)) = "x"
    """Of something."""


def test_every_field_has_its_option():
    names = "--part.rate --part.sides --part.pad-to --part.mode --even --free --name"
    assert [option.name for option in options_of(Config())] == names.split()
    check_ranges(Config())
    check_ranges(Config(Part(rate=10, sides=(99,), pad_to=1), even=0, free=-1e300))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(Part(rate=0.0)), "--part.rate is 0.0, expected a number in (0, 10]"),
        (Config(Part(rate=float("nan"))), "--part.rate is nan, expected a number in (0, 10]"),
        (Config(Part(rate=10.5)), "--part.rate is 10.5, expected a number in (0, 10]"),
        (Config(Part(sides=(3, 100))), "--part.sides has 100, expected a whole number in [1, 100)"),
        (Config(Part(sides=())), "--part.sides is (), expected at least one value"),
        (Config(Part(pad_to=0)), "--part.pad-to is 0, expected a whole number in [1, 100)"),
        (Config(Part(mode="c")), "--part.mode is c, expected one of a, b"),
        (Config(even=3), "--even is 3, expected an even number"),
        (Config(free=float("inf")), "--free is inf, expected a finite number"),
        (Config(name=""), "--name is '', expected text that is not empty"),
    ],
)
def test_a_value_outside_of_its_range_is_named(config, said):
    with pytest.raises(ValueError, match="expected") as refused:
        check_ranges(config)
    assert str(refused.value) == said


def test_the_command_line_reads_and_shows_ranged_fields(capsys):
    words = ["--part.rate", "2", "--part.sides", "3", "4", "--part.pad-to", "None", "--name", "y"]
    assert parse({"digits": Config()}, args=words).config == Config(Part(rate=2.0, sides=(3, 4)), name="y")
    with pytest.raises(SystemExit):
        parse({"digits": Config()}, args=["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--part.rate FLOAT in (0, 10]" in text
    assert "First rate. (default: 0.5)" in text


def test_a_configuration_is_written_and_read_as_yaml():
    config = Config(Part(rate=1e-5, pad_to=7), free=3e20)
    assert read_settings(settings_text(config), Config()) == settings_of(config)
    assert read_settings("even: 4\npart: {mode: b}\n", config) == settings_of(Config(Part(mode="b"), even=4))
    tagged = "!dataclass:Config\npart: !dataclass:Part\n  sides: !!python/tuple\n  - 5\n  rate: 1.0e-05\n"
    assert read_settings(tagged, config) == settings_of(Config(Part(rate=1e-5, sides=(5,))))


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1, 2]", "it holds list, expected fields"), ("odd: 3", "there is no field odd"), ("a: [", "expected the node")],
)
def test_text_that_is_no_configuration_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_settings(text, Config())
