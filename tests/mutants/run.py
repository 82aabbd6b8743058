"""Plants one mistake at a time in a copy of the tree and shows that a test falls.

  python -m tests.mutants.run [NAME ...] [--list] [--check] [--out TABLE.md] [--results RESULTS.json] [--again]

Without names all mistakes are planted. Results are kept in a JSON file after each of them, so that a run that was
stopped goes on; a mistake is planted again where its text, its file or its tests have changed, and with `--again`. The
exit code is 1 if a mistake survives or a text is stale.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutants.planted import MUTANTS, Mutant, stale  # noqa: E402

COPIED = ("benchmarks", "experiments", "jaxnas", "tests", "docs")
LIMIT = 300  # seconds for the tests of one mistake; a mistake that hangs them is caught
NOT_A_MISTAKE = ("SyntaxError", "IndentationError", "NameError", "UnboundLocalError", "ImportError")


def copy_tree(target: Path) -> None:
    """Copies what tests need from the tree to a folder."""
    skipped = shutil.ignore_patterns("__pycache__", "_build", "_api")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=skipped)
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in (".toml", ".txt", ".py", ".md", ".in"):
            shutil.copy2(path, target / path.name)
    if (ROOT / "requirements").is_dir():
        shutil.copytree(ROOT / "requirements", target / "requirements")


def run_tests(tree: Path, tests: tuple[str, ...]) -> dict[str, Any]:
    """Runs tests of a tree up to the first that fails.

    Returns:
      `caught`, the test that failed, None if all passed; `why`, how it failed; `seconds`.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    environment.pop("JAXNAS_DATA", None)  # a mistake has to be caught without real data
    options = ("-x", "-q", "-p", "no:cacheprovider", "-n", "0", "-m", "not slow")
    begin = time.monotonic()
    try:
        command = [sys.executable, "-m", "pytest", *options, *tests]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"caught": f"no end after {LIMIT} s", "why": "", "seconds": LIMIT}
    found = {"caught": None, "why": "", "seconds": round(time.monotonic() - begin, 1)}
    if done.returncode == 0:
        return found
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode != 1 or not lines:
        raise SystemExit(f"pytest ended with {done.returncode} for {' '.join(tests)}:\n{done.stdout}{done.stderr}")
    test, _, why = lines[0].partition(" ")[2].partition(" - ")
    return {**found, "caught": test, "why": why}


def plant(mutant: Mutant, tree: Path) -> dict[str, Any]:
    """Plants a mistake in a copy, runs its tests, takes it out again.

    Raises:
      SystemExit: a text that Python does not even run.
    """
    path = tree / mutant.file
    right = path.read_text()
    path.write_text(right.replace(mutant.old, mutant.new))
    try:
        found = run_tests(tree, mutant.tests)
    finally:
        path.write_text(right)
    if found["why"].startswith(NOT_A_MISTAKE):
        raise SystemExit(f"{mutant.name} is no mistake that runs: {found['why']}")
    return found


def digest(mutant: Mutant, tree: Path) -> str:
    """Of the mistake, the file it is planted in, and the files of its tests."""
    files = sorted({mutant.file, *(test.split("::")[0] for test in mutant.tests)})
    parts = [repr(mutant), *((tree / name).read_text() for name in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def table(results: dict[str, dict[str, Any]]) -> str:
    """All results as Markdown."""
    lines = ["| mistake | file | what it is | caught by | s |", "|---|---|---|---|---|"]
    for mutant in MUTANTS:
        found = results.get(mutant.name)
        if found:
            caught = f"`{found['caught'].removeprefix('tests/')}`" if found["caught"] else "**survives**"
            seconds = f"{found['seconds']:.0f}"
            lines.append(f"| {mutant.name} | `{mutant.file}` | {mutant.what} | {caught} | {seconds} |")
    return "\n".join(lines) + "\n"


def selected(names: list[str]) -> list[Mutant]:
    """The mistakes of these names, or all; a name may be that of a file or a folder, too."""
    chosen = [m for m in MUTANTS if not names or m.name in names or any(m.file.startswith(name) for name in names)]
    unknown = [n for n in names if not any(n == m.name or m.file.startswith(n) for m in MUTANTS)]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; --list shows all names")
    return chosen


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="mistakes, files or folders")
    parser.add_argument("--list", action="store_true", help="show all names")
    parser.add_argument("--check", action="store_true", help="only check that each text to be changed is there once")
    parser.add_argument("--again", action="store_true", help="plant mistakes again that have a result")
    parser.add_argument("--out", type=Path, help="write the table here")
    default = Path(tempfile.gettempdir()) / "jaxnas-mutants.json"
    parser.add_argument("--results", type=Path, default=default, help=f"JSON file of results, {default}")
    return parser.parse_args()


def run(chosen: list[Mutant], results: dict[str, dict[str, Any]], path: Path, *, again: bool) -> None:
    """Plants all mistakes that have no result yet, after their tests have passed without any."""
    with tempfile.TemporaryDirectory(prefix="jaxnas-mutants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        digests = {mutant.name: digest(mutant, tree) for mutant in chosen}
        left = [m for m in chosen if again or results.get(m.name, {}).get("digest") != digests[m.name]]
        passed: set[tuple[str, ...]] = set()
        for number, mutant in enumerate(left, start=1):
            if mutant.tests not in passed:
                fallen = run_tests(tree, mutant.tests)["caught"]
                if fallen:
                    print(f"{number}/{len(left)} {mutant.name}: {fallen} fails without any mistake", flush=True)
                    results.pop(mutant.name, None)
                    continue
                passed.add(mutant.tests)
            results[mutant.name] = {**plant(mutant, tree), "digest": digests[mutant.name]}
            path.write_text(json.dumps(results, indent=1))
            found = results[mutant.name]
            shown = f"{found['caught']} ({found['why'][:60]})" if found["caught"] else "SURVIVES"
            print(f"{number}/{len(left)} {mutant.name}: {shown}, {found['seconds']} s", flush=True)


def main() -> int:
    """Runs the command line; the exit code."""
    options = parse()
    if options.list:
        print("\n".join(f"{m.name}: {m.what} ({m.file})" for m in MUTANTS))
        return 0
    problems = stale(ROOT)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    if options.check:
        return 0
    chosen = selected(options.names)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    run(chosen, results, options.results, again=options.again)
    if options.out:
        options.out.write_text(table(results))
    left = [mutant.name for mutant in chosen if not results.get(mutant.name, {}).get("caught")]
    print(f"{len(chosen) - len(left)} of {len(chosen)} caught" + (f"; not caught: {', '.join(left)}" if left else ""))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
