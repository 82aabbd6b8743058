"""Mistakes in `jaxnas/population`."""

from tests.mutants.mutant import Mutant

POPULATION = ("tests/population/test_population.py",)

MUTANTS = (
    Mutant(
        "one-order",
        "every epoch in the order of the first",
        "jaxnas/population/member.py",
        "jax.random.permutation(jax.random.fold_in(key_order, epoch), len(labels))",
        "jax.random.permutation(key_order, len(labels))",
        POPULATION,
    ),
    Mutant(
        "loss-since-start",
        "the loss between judgements divided by all steps",
        "jaxnas/population/member.py",
        "state.total / (end - begin)",
        "state.total / end",
        ("tests/test_first_training_steps.py",),
    ),
    Mutant(
        "reference-kept",
        "the reference examples counted among the judged ones",
        "jaxnas/population/member.py",
        "return judge(state.params, arch, seen)[family.reference :]",
        "return judge(state.params, arch, seen)[: len(seen) - family.reference]",
        ("tests/population/test_population.py", "tests/spaces/test_nasbench201_small.py"),
    ),
    Mutant(
        "seed-ignored",
        "all seeds of an architecture give one key",
        "jaxnas/population/chunks.py",
        "entry.name), entry.seed)",
        "entry.name), 0)",
        POPULATION,
    ),
    Mutant(
        "first-chunk",
        "every chunk holds the first members",
        "jaxnas/population/chunks.py",
        "rows = np.arange(first, first + chunk)",
        "rows = np.arange(chunk)",
        POPULATION,
    ),
    Mutant(
        "data-unchecked",
        "a checkpoint of a population does not know its data",
        "jaxnas/population/chunks.py",
        "jax.tree.leaves((jax.random.key_data(key), entries, data))",
        "jax.tree.leaves((jax.random.key_data(key), entries))",
        POPULATION,
    ),
)
