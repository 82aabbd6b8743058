"""Every example in a docstring of the library can be pasted, and prints what it says.

An example may use `jax`, `jnp`, `np`, the library as `jn` and by its public names, and the names of its own module; all
else it imports.
"""

import doctest
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnas as jn

ROOT = Path(__file__).resolve().parents[1]
PASTED_INTO = {name: getattr(jn, name) for name in jn.__all__} | {"jax": jax, "jnp": jnp, "np": np, "jn": jn}


def modules_with_examples() -> list[str]:
    """The dotted names of the modules whose text has an example in it."""
    files = [path for path in sorted((ROOT / "jaxnas").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    found = doctest.testmod(module, globs=PASTED_INTO | vars(module))
    assert found.attempted, f"{name} has an example in a place where it is not found"
    assert not found.failed


def test_an_example_that_prints_something_else_fails(capsys):
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner().run(wrong).failed == 1
    assert "Expected:" in capsys.readouterr().out
