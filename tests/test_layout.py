"""Imports point one way: the tree under jaxnas/ is read with `ast`, and an arrow that runs back fails.

The table of folders in CONTRIBUTING.md says the same to people, and is held against the tree and against the order.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each part of the library and the parts right below it. A part may import these, what they may import, and itself.
BELOW = {
    "errors": (),
    "files": ("errors",),
    "standard_error": (),
    "command": ("standard_error", "errors"),
    "dtypes": ("errors",),
    "base": ("dtypes",),
    "architectures": ("base",),
    "guard": ("base",),
    "ops": ("base",),
    "relaxations": ("base",),
    "policies": ("base",),
    "spaces": ("architectures", "ops", "relaxations"),
    "estimators": ("architectures", "policies", "relaxations", "guard"),
    "architecture_files": ("spaces",),
    "costs": ("spaces",),
    "tabular": ("costs",),
    "derive": ("costs", "policies"),
    "describe": ("derive", "architecture_files", "command"),
    "train": ("derive", "guard"),
    "devices": (),
    "strategies": ("base",),
    "judge": ("train", "strategies"),
    "morphisms": ("judge",),
    "population": ("morphisms", "devices", "files", "standard_error"),
    "searchers": ("estimators", "morphisms", "tabular"),
    "run": ("searchers", "describe", "devices", "files"),
    "checkpoint": ("base", "files", "standard_error"),
    "data": ("base", "standard_error"),
    "export": ("describe", "files", "train"),
    "plot": ("describe", "searchers"),
    "": ("run", "population"),  # jaxnas/__init__.py
}
# Parts that only the named ones import. Scripts (experiments, benchmarks and __main__ modules) import what they like.
RESERVED = {"data": (), "export": (), "plot": (), "checkpoint": ("run", "population")}
SCRIPT_FOLDERS = ("experiments", "benchmarks", "tests")
GUIDE = ROOT / "CONTRIBUTING.md"
LAZY = ("tensorflow", "tensorflow_datasets", "orbax")


class Import(NamedTuple):
    """One import of one file: the dotted name asked for, its line, and whether it runs when the file is imported."""

    name: str
    line: int
    at_import: bool


def imports(path: Path, package: str) -> Iterator[Import]:
    """Yield what the file imports; `package` is the dotted name that relative imports start from."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, at_import)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_import and not inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def allowed(
    part: str, below: Mapping[str, Iterable[str]] = BELOW, reserved: Mapping[str, Iterable[str]] = RESERVED
) -> set[str]:
    """Return the parts that `part` may import: everything below it, without what is reserved for others."""
    reachable, front = {part}, [part]
    while front:
        for lower in below.get(front.pop(), ()):
            if lower not in reachable:
                reachable.add(lower)
                front.append(lower)
    free = {lower for lower in reachable if lower not in reserved or lower == part}
    return free | {lower for lower, importers in reserved.items() if part in importers}


def parts_of(library: Path) -> set[str]:
    """Return the names of the folders and modules right under `library`."""
    found = {path.stem for path in library.iterdir() if path.suffix == ".py" or path.is_dir()}
    return {name for name in found if not name.startswith("_")}


def violations(root: Path) -> list[str]:
    """Return one line for each wrong import under `root`/jaxnas."""
    library = root / "jaxnas"
    parts = parts_of(library)
    found = []
    for path in sorted(library.rglob("*.py")):
        where = path.relative_to(library)
        part = where.parts[0].removesuffix(".py").removesuffix("__init__")
        label = f"jaxnas/{where.as_posix()}"
        if path.stem == "__main__":
            continue
        if part not in BELOW:
            found.append(f"{label}: {part} has no place in the order; give it one in tests/test_layout.py")
            continue
        package = ".".join(("jaxnas", *where.parts[:-1]))
        for name, line, at_import in imports(path, package):
            top, *rest = name.split(".")
            if top in SCRIPT_FOLDERS:
                found.append(f"{label}:{line}: the library imports the script {name}")
            elif top in LAZY and at_import:
                found.append(f"{label}:{line}: {top} is imported with the file; import it inside a function")
            elif top == "jaxnas":
                target = rest[0] if rest and rest[0] in parts else ""
                if target not in allowed(part):
                    found.append(f"{label}:{line}: {part or 'the root'} imports {target or 'the root'}")
    return found


def test_imports_point_one_way():
    assert violations(ROOT) == []


def test_order_has_no_cycle():
    for part, lowers in BELOW.items():
        assert not any(part in allowed(lower) for lower in lowers), part


@pytest.mark.parametrize(
    ("file", "statement", "message"),
    [
        ("base.py", "from jaxnas.ops import conv", "jaxnas/base.py:1: base imports ops"),
        ("ops/conv.py", "from ..spaces.toy import toy", "jaxnas/ops/conv.py:1: ops imports spaces"),
        ("ops/conv.py", "from jaxnas import relaxations", "jaxnas/ops/conv.py:1: ops imports relaxations"),
        ("ops/conv.py", "from jaxnas import __version__", "jaxnas/ops/conv.py:1: ops imports the root"),
        ("spaces/toy.py", "def f():\n    import jaxnas.train", "jaxnas/spaces/toy.py:2: spaces imports train"),
        ("spaces/toy.py", "import jaxnas.data", "jaxnas/spaces/toy.py:1: spaces imports data"),
        ("searchers/darts.py", "import jaxnas.checkpoint", "jaxnas/searchers/darts.py:1: searchers imports checkpoint"),
        ("__init__.py", "from . import plot", "jaxnas/__init__.py:1: the root imports plot"),
        ("run.py", "import experiments.snas", "jaxnas/run.py:1: the library imports the script experiments.snas"),
        ("data.py", "try:\n    import tensorflow\nexcept ImportError: pass", "tensorflow is imported with the file"),
        ("checkpoint.py", "from orbax import checkpoint", "orbax is imported with the file"),
        ("helpers.py", "import jax", "helpers has no place in the order"),
    ],
)
def test_checker_catches_a_planted_import(tmp_path, file, statement, message):
    _plant(tmp_path, {file: statement})
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert message in found[0]


def test_checker_passes_a_right_tree(tmp_path):
    right = {
        "base.py": "import jax",
        "ops/conv.py": "from jaxnas.base import Op\nfrom jaxnas.ops import other",
        "spaces/toy.py": "from ..ops.conv import conv\nfrom . import choice",
        "run.py": "from jaxnas import checkpoint, searchers",
        "checkpoint.py": "def save():\n    import orbax.checkpoint",
        "spaces/__main__.py": "from jaxnas import data, plot",
    }
    _plant(tmp_path, right)
    assert violations(tmp_path) == []


def table_problems(text: str, root: Path) -> list[str]:
    """Return one line for each thing in which the table of parts in a guide differs from the tree under `root`."""
    section = text.partition("## The tree")[2].partition("\n## ")[0]
    lines = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
    rows = [[re.findall(r"`(\w+)`", cell) for cell in cells] for cells in lines]
    named = Counter(part for parts, *_ in rows for part in parts)
    library = parts_of(root / "jaxnas")
    expected = {*library, "jaxnas", *SCRIPT_FOLDERS}
    found = [f"{part} is named {count} times" for part, count in sorted(named.items()) if count > 1]
    found += [f"{part} is not named" for part in sorted(expected - set(named))]
    found += [f"{part} is named and does not exist" for part in sorted(set(named) - expected)]
    below = {part.replace("jaxnas", ""): set(lowers) for parts, _, lowers in rows for part in parts}
    reserved = {part: [upper for upper, lowers in below.items() if part in lowers] for part in RESERVED}
    free = {part: lowers - set(RESERVED) for part, lowers in below.items()}
    for part in sorted({"", *library} & set(below)):
        told, true = allowed(part, free, reserved), allowed(part) & {part, *library}
        if told != true:
            found.append(f"{part or 'jaxnas'} may import {sorted(true - told)} more and {sorted(told - true)} less")
    return found


def test_the_guide_names_every_part_once_and_what_it_may_import():
    assert table_problems(GUIDE.read_text(encoding="utf-8"), ROOT) == []


def test_the_guide_names_files_that_exist():
    roots = "|".join((*SCRIPT_FOLDERS, "jaxnas", "docs", "requirements"))
    paths = re.findall(rf"`((?:{roots})/[\w./-]*)`", GUIDE.read_text(encoding="utf-8"))
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


TABLE = """
## The tree

| part | holds | may import |
|---|---|---|
| `errors`, `dtypes` | | nothing but `errors` |
| `base` | | `dtypes` |
| `guard`, `ops` | `other` names | `base` |
| `jaxnas` | | `guard`, `ops` |
| `experiments`, `benchmarks`, `tests` | | all |
"""


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("`guard`, `ops`", "`ops`", "guard is not named"),
        ("`guard`, `ops`", "`guard`, `ops`, `shield`", "shield is named and does not exist"),
        ("`guard`, `ops`", "`guard`, `ops`, `base`", "base is named 2 times"),
        ("`dtypes` |\n", "`errors` |\n", "base may import ['dtypes'] more and [] less"),
        ("`base` |\n", "`ops` |\n", "guard may import ['base', 'dtypes', 'errors'] more and ['ops'] less"),
    ],
)
def test_a_wrong_table_is_noticed(tmp_path, right, wrong, message):
    for name in ("errors", "dtypes", "base", "guard", "ops"):
        (tmp_path / "jaxnas" / name).mkdir(parents=True)
    assert table_problems(TABLE, tmp_path) == []
    assert message in table_problems(TABLE.replace(right, wrong, 1), tmp_path)


def _plant(root: Path, files: dict[str, str]) -> None:
    names = ("base.py", "checkpoint.py", "data.py", "plot.py", "run.py", "train.py")
    names += tuple(f"{folder}/__init__.py" for folder in ("ops", "relaxations", "spaces", "estimators", "searchers"))
    for name in ("__init__.py", *names, *files):
        path = root / "jaxnas" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(name, ""), encoding="utf-8")


def _loaded(program: str, *names: str) -> set[str]:
    """Return which of `names` a fresh process has imported after `program`."""
    program += f"\nimport sys; print('loaded:', *({set(names)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_import_is_light():
    assert _loaded("import jaxnas", *LAZY, "matplotlib", "sklearn", "distributed", "wandb", "tensorboardX") == set()


def test_no_module_takes_the_heavy_ones():
    program = """
import importlib, pkgutil, jaxnas
for module in pkgutil.walk_packages(jaxnas.__path__, "jaxnas."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    assert _loaded(program, *LAZY) == set()


def test_loaded_sees_a_heavy_import():
    assert _loaded("import orbax.checkpoint", *LAZY) == {"orbax"}


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines of a function that hold code, without docstrings, comments and blank lines."""
    documented = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    strings = {id(node.body[0]) for node in documented if ast.get_docstring(node) is not None}
    lines: set[int] = set()

    def visit(node: ast.AST) -> None:
        if id(node) not in strings:
            lines.update(getattr(node, name) for name in ("lineno", "end_lineno") if hasattr(node, name))
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(function)
    return len(lines)


def too_long(root: Path) -> list[str]:
    """Return one line for each file above 300 lines and each function above 50 lines of code."""
    found = []
    for path in sorted(path for folder in ("jaxnas", "experiments") for path in (root / folder).rglob("*.py")):
        text, label = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        if text.count("\n") > 300:
            found.append(f"{label} has {text.count(chr(10))} lines")
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        found += [f"{label}: {one.name} has {_code_lines(one)} lines" for one in functions if _code_lines(one) > 50]
    return found


def test_files_and_functions_are_short():
    assert too_long(ROOT) == []


def test_a_long_function_and_a_long_file_are_seen(tmp_path):
    body = "".join(f"    x{i} = {i}\n\n    # why\n" for i in range(60))
    _plant(tmp_path, {"guard.py": f'def f():\n    """Says.\n\n    More.\n    """\n{body}', "train.py": "\n" * 301})
    assert too_long(tmp_path) == ["jaxnas/guard.py: f has 61 lines", "jaxnas/train.py has 301 lines"]
