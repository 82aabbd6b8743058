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
        ("tests/population/test_population.py::test_a_member_is_what_a_plain_loop_trains",),
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
        ("tests/population/test_population.py::test_images_of_the_training_data_stand_before_those_that_are_judged",),
    ),
    Mutant(
        "seed-ignored",
        "all seeds of an architecture give one key",
        "jaxnas/population/chunks.py",
        "entry.name), entry.seed)",
        "entry.name), 0)",
        ("tests/population/test_population.py::test_keys_come_from_the_architecture_the_seed_and_the_population",),
    ),
    Mutant(
        "first-chunk",
        "every call trains the first members",
        "jaxnas/population/chunks.py",
        "members[places] = np.arange(done, done + count)",
        "members[places] = np.arange(count)",
        POPULATION,
    ),
    Mutant(
        "data-unchecked",
        "a checkpoint of a population does not know its data",
        "jaxnas/population/chunks.py",
        "jax.tree.leaves((jax.random.key_data(key), entries, data))",
        "jax.tree.leaves((jax.random.key_data(key), entries))",
        ("tests/population/test_identity.py",),
    ),
)
