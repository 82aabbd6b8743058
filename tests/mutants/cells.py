"""Mistakes in the table of recurrent cells: classes of equal cells, the study that trains them, and the loader."""

from tests.mutants.mutant import Mutant

SYMMETRY = ("tests/spaces/test_nas_rl_symmetry.py",)
STUDY = ("tests/experiments/test_exhaustive_cells.py",)
LOADER = ("tests/tabular/test_cells.py",)

MUTANTS = (
    Mutant(
        "memory-unmarked",
        "cells with memories of different nodes are taken for one",
        "jaxnas/spaces/nas_rl/symmetry.py",
        "p = p if facts.no_memory else (TO_MEMORY, (p,))",
        "p = p if facts.no_memory or n < base else (TO_MEMORY, (p,))",
        SYMMETRY,
    ),
    Mutant(
        "leaves-in-order",
        "cells whose leaves change places are kept apart",
        "jaxnas/spaces/nas_rl/symmetry.py",
        "return name, tuple(sorted(operands))",
        "return name, tuple(operands)",
        SYMMETRY,
    ),
    Mutant(
        "tanh-never-negative",
        "a rectifier after a hyperbolic tangent is dropped",
        "jaxnas/spaces/nas_rl/symmetry.py",
        'NEVER_NEGATIVE = {"sigmoid", "relu"}',
        'NEVER_NEGATIVE = {"sigmoid", "relu", "tanh"}',
        SYMMETRY,
    ),
    Mutant(
        "sigmoid-keeps-zero",
        "a sigmoid of zero counts as zero",
        "jaxnas/spaces/nas_rl/symmetry.py",
        'KEEP_ZERO = {"identity", "tanh", "relu", "sin"}',
        'KEEP_ZERO = {"identity", "tanh", "relu", "sin", "sigmoid"}',
        SYMMETRY,
    ),
    Mutant(
        "memory-always-positive",
        "a memory counts as never negative whatever its node computes",
        "jaxnas/spaces/nas_rl/symmetry.py",
        "facts.positive_memory and _positive(to_memory, facts),",
        "facts.positive_memory,",
        SYMMETRY,
    ),
    Mutant(
        "zero-plus",
        "the sum of a memory that is always zero and a value is zero",
        "jaxnas/spaces/nas_rl/symmetry.py",
        '{"add": other, "elem_mult": ZERO}.get(name)',
        '{"add": ZERO, "elem_mult": ZERO}.get(name)',
        SYMMETRY,
    ),
    Mutant(
        "class-for-cell",
        "the study trains the cell with the number of a class",
        "experiments/exhaustive_cells.py",
        "leaf[plan.first[plan.member_class]]",
        "leaf[plan.member_class]",
        STUDY,
    ),
    Mutant(
        "cells-judged-once",
        "the study judges a cell after the last step alone",
        "experiments/exhaustive_cells.py",
        "judge_at=tuple(sorted({*config.judge_steps, *recipe.judge_at}))",
        "judge_at=recipe.judge_at",
        STUDY,
    ),
    Mutant(
        "nats-cut-off",
        "nats are cut off in place of rounded",
        "experiments/exhaustive_cells.py",
        "scaled = np.rint(nats.astype(np.float64) / UNIT)",
        "scaled = np.floor(nats.astype(np.float64) / UNIT)",
        STUDY,
    ),
    Mutant(
        "test-windows",
        "the number of test windows is that of the validation",
        "experiments/exhaustive_cells.py",
        "test_windows=config.test_windows,",
        "test_windows=config.text.validation_windows,",
        STUDY,
    ),
    Mutant(
        "seconds-disturbed",
        "what other work on the machine adds counts as training time",
        "experiments/exhaustive_cells.py",
        "np.min(found.seconds)",
        "np.median(found.seconds)",
        STUDY,
    ),
    Mutant(
        "missing-diverged",
        "runs that were never made count as diverged",
        "jaxnas/tabular/cell_table.py",
        "mean_of_runs(np.where(last == MISSING, np.nan, last == DIVERGED))",
        "mean_of_runs((last < 0).astype(float))",
        LOADER,
    ),
    Mutant(
        "parts-of-cells",
        "test nats stand under the name of validation nats",
        "jaxnas/tabular/cell_table.py",
        '(("validation", "valid"), ("test", "test"))',
        '(("test", "valid"), ("test", "test"))',
        LOADER,
    ),
    Mutant(
        "runs-of-one-part",
        "a table of cells with runs in one part alone is read",
        "jaxnas/tabular/cell_table.py",
        '((trained == MISSING) != (arrays["test_nats"] == MISSING))',
        "((trained == MISSING) != (trained == MISSING))",
        LOADER,
    ),
)
