"""setup.py says what requirements.txt and jaxnas/__init__.py say, and the locks keep to it."""

import ast
import importlib.util
import itertools
import re
import runpy
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("lock-*.txt"))


def _all_lines(arguments: dict[str, Any]) -> list[str]:
    extras = itertools.chain.from_iterable(arguments["extras_require"].values())
    return [*arguments["install_requires"], *extras]


def _requirements(path: Path) -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    parsed = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@pytest.fixture
def arguments(monkeypatch) -> dict[str, Any]:
    """The keyword arguments that setup.py hands to `setuptools.setup`."""
    caught: dict[str, Any] = {}
    fake = types.ModuleType("setuptools")
    fake.setup = caught.update  # type: ignore[attr-defined]
    fake.find_packages = lambda include: include  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "setuptools", fake)
    runpy.run_path(str(ROOT / "setup.py"))
    return caught


def test_version_is_read(arguments):
    import jaxnas

    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxnas.__version__)
    assert arguments["version"] == jaxnas.__version__


def test_core_bounds_are_those_of_requirements(arguments):
    stated = {canonicalize_name(r.name): r for r in map(Requirement, arguments["install_requires"])}
    assert stated == _requirements(ROOT / "requirements.txt")


def test_every_requirement_has_both_bounds(arguments):
    for line in _all_lines(arguments):
        operators = sorted(specifier.operator for specifier in Requirement(line).specifier)
        assert operators == ["<", ">="], line


def test_development_brings_plots_and_export(arguments):
    extras = arguments["extras_require"]
    assert {"tf", "data", "log", "plot", "farm", "export", "dev", "docs"} == set(extras)
    assert set(extras["plot"] + extras["export"]) <= set(extras["dev"])


def test_there_is_a_lock_for_each_python():
    assert [lock.stem for lock in LOCKS] == ["lock-py311", "lock-py312"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_keeps_to_the_bounds(arguments, lock):
    locked = _requirements(lock)
    for line in _all_lines(arguments):
        requirement = Requirement(line)
        (pin,) = locked[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{line}, locked {pin.version}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_names_no_place(lock):
    assert not re.search(r"@|/|\\|--", lock.read_text(encoding="utf-8"))


# What may be missing: without it something is left out, or a message says what to install.
OPTIONAL = {"flatbuffers", "matplotlib", "tensorboardX", "tensorflow"}
BROUGHT_ALONG = {"jaxlib": "jax"}


def _imported(path: Path) -> set[str]:
    """The packages that a module imports, at its top or inside of functions."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    own = {"jaxnas", "experiments", *sys.stdlib_module_names}
    return {name.partition(".")[0] for name in names} - own


def test_everything_that_is_imported_is_declared_or_optional():
    declared = set(_requirements(ROOT / "requirements.txt"))
    distributions = metadata.packages_distributions()
    modules = [path for folder in ("jaxnas", "experiments") for path in (ROOT / folder).rglob("*.py")]
    for path in modules:
        for name in _imported(path) - OPTIONAL:
            found = {canonicalize_name(entry) for entry in distributions[BROUGHT_ALONG.get(name, name)]}
            assert found & declared, f"{path.relative_to(ROOT)} imports {name}, which requirements.txt does not declare"


def test_what_is_optional_is_in_an_extra(arguments):
    extras = {Requirement(line).name for lines in arguments["extras_require"].values() for line in lines}
    assert OPTIONAL - {"tensorflow"} <= extras
    assert "tensorflow-cpu" in extras
    assert all(importlib.util.find_spec(name) for name in OPTIONAL - {"tensorflow"}), "the tests need them"


def test_environment_keeps_to_the_bounds(arguments):
    for line in arguments["install_requires"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(metadata.version(requirement.name)), line
