"""The planted mistakes of `tests/mutants` can still be planted; that each of them is caught is shown on demand."""

from pathlib import Path

from tests.mutants.planted import MUTANTS, stale

ROOT = Path(__file__).resolve().parents[1]


def test_every_text_that_a_planted_mistake_changes_stands_in_its_file_once():
    assert stale(ROOT) == []


def test_there_are_eighty_mistakes_and_all_folders_have_some():
    assert len(MUTANTS) >= 80
    folders = {"/".join(Path(mutant.file).parts[:2]) for mutant in MUTANTS}
    names = ("ops", "relaxations", "policies", "spaces", "estimators", "searchers", "costs", "population", "tabular")
    assert folders >= {f"jaxnas/{name}" for name in (*names, "data", "run", "checkpoint", "export", "plot")}
    assert folders >= {"jaxnas/train.py", "jaxnas/derive.py", "experiments/batches.py"}
