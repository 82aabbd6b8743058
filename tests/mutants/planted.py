"""All planted mistakes, by folder, and whether their texts still stand where they are to be planted."""

from pathlib import Path

from tests.mutants import (
    canvas,
    cell_search,
    cells,
    controller,
    costs,
    data,
    estimators,
    experiments,
    farm,
    layers,
    nas_rl,
    nas_rl_images,
    ops,
    population,
    recurrent,
    running,
    searchers,
    spaces,
    tabular,
)
from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS", "Mutant", "stale"]

MUTANTS: tuple[Mutant, ...] = (
    *searchers.MUTANTS,
    *experiments.MUTANTS,
    *estimators.MUTANTS,
    *controller.MUTANTS,
    *nas_rl_images.MUTANTS,
    *ops.MUTANTS,
    *spaces.MUTANTS,
    *costs.MUTANTS,
    *farm.MUTANTS,
    *nas_rl.MUTANTS,
    *population.MUTANTS,
    *tabular.MUTANTS,
    *data.MUTANTS,
    *recurrent.MUTANTS,
    *cells.MUTANTS,
    *cell_search.MUTANTS,
    *layers.MUTANTS,
    *canvas.MUTANTS,
    *running.MUTANTS,
)


def stale(root: Path) -> list[str]:
    """One line for each mistake that cannot be planted in the tree at `root`, or whose tests are not there."""
    problems, names = [], [mutant.name for mutant in MUTANTS]
    for mutant in MUTANTS:
        path = root / mutant.file
        count = path.read_text().count(mutant.old) if path.is_file() else 0
        if count != 1:
            problems.append(
                f"{mutant.name}: the text to be changed stands {count} times in {mutant.file}, expected once"
            )
        missing = [test for test in mutant.tests if not (root / test.partition("::")[0]).exists()]
        if missing or not mutant.tests:
            problems.append(f"{mutant.name}: no tests {', '.join(missing)}")
        if mutant.old == mutant.new or names.count(mutant.name) > 1:
            problems.append(f"{mutant.name}: changes nothing, or its name is taken")
    return problems
