"""A space that is written in fewer than sixty lines passes every check of the spaces that come with the library."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxnas.errors import UserError
from jaxnas.spaces import registry
from jaxnas.spaces.parts import skeleton
from jaxnas.spaces.parts.pieces import Decisions
from tests.spaces import mobile, test_agreement, test_conformance

SETTINGS = {
    "width": 4,
    "stages": 2,
    "depth": 2,
    "expansions": (2, 1),
    "num_classes": 3,
    "lowering": "lax",
    "dtype": "bfloat16",
    "reference": 2,
}
# One stage: the offset of a last normalisation has no gradient once the next stage normalises without a shortcut.
SMALL = {"width": 4, "stages": 1, "depth": 3, "expansions": (1, 2), "num_classes": 3}


def checks(module, argument):
    """The tests of a module that take every row of its table, by name."""
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    return {name: test for name, test in tests.items() if argument in inspect.signature(test).parameters}


CONFORMANCE = checks(test_conformance, "name")
# A chain of blocks has no picture, and so no edges in what it says of itself.
AGREEMENT = checks(test_agreement, "case")
AGREEMENT.pop("test_space_describes_itself")


def test_the_space_has_fewer_than_sixty_lines():
    assert len(Path(mobile.__file__).read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize("check", CONFORMANCE)
def test_rows_of_the_conformance_table_hold(check, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.SPACES, "mobile", mobile.mobile_space)
    monkeypatch.setitem(test_conformance.ROWS, "mobile", test_conformance.Row(SETTINGS))
    wanted = inspect.signature(CONFORMANCE[check]).parameters
    CONFORMANCE[check](**{"name": "mobile", "tmp_path": tmp_path} if "tmp_path" in wanted else {"name": "mobile"})


@pytest.fixture(scope="module")
def case():
    def build(**settings):
        return mobile.mobile_space(**{**SMALL, **settings})

    space = build()
    row = test_agreement.Row(build, {"halve": [1], "same": [0, 2]}, {})
    params = jax.jit(space.init)(jax.random.key(0), test_agreement.images())
    arch = jax.tree.map(jnp.asarray, row.arch, is_leaf=lambda leaf: isinstance(leaf, list))
    return test_agreement.Case(row, space, params, arch, test_agreement.graded(space.apply))


@pytest.mark.parametrize("check", AGREEMENT)
def test_its_three_forms_agree(check, case):
    AGREEMENT[check](case)


def test_a_block_that_is_left_out_leaves_its_input(case):
    _, space, params, _, _ = case
    arch = {"halve": [0], "same": [2, 2]}
    network = space.about.network(arch)
    assert set(network.inherit(params)["params"]) == {"stem", "block0_e1", "head"}


def test_pieces_of_one_kind_have_the_same_operations():
    decisions = [Decisions("block", 2, ("a", "b", "c")), Decisions("block", 3, ("p", "q"))]
    with pytest.raises(UserError, match="'block' must have the same operations"):
        skeleton._operations(decisions)
