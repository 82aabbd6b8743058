"""Mistakes in `jaxnas/tabular`."""

from tests.mutants.mutant import Mutant

TABLE = ("tests/tabular/test_table.py",)
WRITTEN = ("tests/tabular/test_written_files.py",)

MUTANTS = (
    Mutant(
        "budget-edge",
        "an evaluation that ends with the budget does not count",
        "jaxnas/tabular/_simulate.py",
        "done = ends <= budget",
        "done = ends < budget",
        ("tests/tabular/test_table.py::test_batches_and_several_objectives",),
    ),
    Mutant(
        "future-incumbent",
        "an evaluation known before it has ended",
        "jaxnas/tabular/_simulate.py",
        "incumbents(history)[jnp.maximum(count, 1) - 1]",
        "incumbents(history)[jnp.minimum(count, len(history.clock) - 1)]",
        ("tests/tabular/test_table.py::test_the_clock_adds_up_what_evaluations_cost_and_stops_at_the_budget",),
    ),
    Mutant(
        "batch-clock",
        "evaluations of a batch at the same time",
        "jaxnas/tabular/_simulate.py",
        "ends = clock + jnp.cumsum(cost, dtype=clock.dtype)",
        "ends = clock + cost",
        ("tests/tabular/test_table.py::test_batches_and_several_objectives",),
    ),
    Mutant(
        "fitness-sign",
        "metrics to be maximised are minimised",
        "jaxnas/tabular/task.py",
        '-1.0 if name.startswith("-") else 1.0',
        "1.0",
        ("tests/tabular/test_table.py::test_batches_and_several_objectives",),
    ),
    Mutant(
        "missing-runs",
        "runs that are not there are drawn",
        "jaxnas/tabular/table.py",
        "jnp.where(jnp.isnan(runs), jnp.float32(-jnp.inf), jnp.float32(0))",
        "jnp.zeros_like(runs)",
        ("tests/tabular/test_table.py::test_single_runs_are_drawn_uniformly_from_those_that_there_are",),
    ),
    Mutant(
        "holes-averaged",
        "missing runs counted as zeros in a mean",
        "jaxnas/tabular/table.py",
        "np.where(there, runs, 0).sum(1) / np.maximum(number, 1)",
        "np.where(there, runs, 0).sum(1) / runs.shape[1]",
        WRITTEN,
    ),
    Mutant(
        "validation-time",
        "the seconds of a validation left out of an evaluation's cost",
        "jaxnas/tabular/benchmarks.py",
        'cost = 12 * trained * arrays["train_s_epoch"] + validated * arrays["valid_s_pass_est"]',
        'cost = 12 * trained * arrays["train_s_epoch"]',
        WRITTEN,
    ),
)
