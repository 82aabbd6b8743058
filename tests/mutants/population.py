"""Mistakes in `jaxnas/population`."""

from tests.mutants.mutant import Mutant

POPULATION = ("tests/population/test_population.py",)

MUTANTS = (
    Mutant(
        "one-order",
        "every epoch in the order of the first",
        "jaxnas/population/member.py",
        "jax.random.permutation(jax.random.fold_in(key_order, epoch), len(targets))",
        "jax.random.permutation(key_order, len(targets))",
        ("tests/population/test_population.py::test_a_member_is_what_a_plain_loop_trains",),
    ),
    Mutant(
        "loss-since-start",
        "the loss between judgements divided by all steps",
        "jaxnas/population/member.py",
        "judged, lambda state, *_: state, state, number, stop - start)",
        "judged, lambda state, *_: state, state, number, stop)",
        ("tests/test_first_training_steps.py",),
    ),
    Mutant(
        "reference-kept",
        "the reference examples counted among the judged ones",
        "jaxnas/judge.py",
        "leaf[len(reference) :]",
        "leaf[: len(leaf) - len(reference)]",
        ("tests/population/test_population.py::test_images_of_the_training_data_stand_before_those_that_are_judged",),
    ),
    Mutant(
        "seed-ignored",
        "all seeds of an architecture give one key",
        "jaxnas/population/program.py",
        "entry.name), entry.seed)",
        "entry.name), 0)",
        ("tests/population/test_population.py::test_keys_come_from_the_architecture_the_seed_and_the_population",),
    ),
    Mutant(
        "first-chunk",
        "every call trains the first members",
        "jaxnas/population/chunks.py",
        "members[places] = np.arange(work.done, work.done + count)",
        "members[places] = np.arange(count)",
        POPULATION,
    ),
    Mutant(
        "data-unchecked",
        "a checkpoint of a population does not know its data",
        "jaxnas/population/entries.py",
        "jax.tree.leaves((jax.random.key_data(key), entries, data))",
        "jax.tree.leaves((jax.random.key_data(key), entries))",
        ("tests/population/test_identity.py",),
    ),
    Mutant(
        "work-forgotten",
        "a stopped training of a member starts anew with the steps that were left",
        "jaxnas/population/chunks.py",
        "carry = self.carry if self.begin else None",
        "carry = jax.tree.map(np.zeros_like, self.carry) if self.begin else None",
        ("tests/population/test_population.py::test_a_stopped_population_goes_on_where_it_was",),
    ),
    Mutant(
        "total-forgotten",
        "the losses since the last judgement forgotten where a call ends",
        "jaxnas/population/member.py",
        "jnp.minimum(end, stop), step, state)",
        "jnp.minimum(end, stop), step, state._replace(total=0 * state.total))",
        ("tests/population/test_population.py::test_calls_are_cut_by_their_seconds_and_end_in_the_same_bits",),
    ),
    Mutant(
        "own-loss-ignored",
        "every family trained with the cross-entropy",
        "jaxnas/population/member.py",
        "return recipe.loss(family.apply",
        "return cross_entropy(family.apply",
        ("tests/population/test_recipes.py",),
    ),
    Mutant(
        "filled-mesh",
        "the copies that fill up a mesh returned in place of the architectures",
        "jaxnas/judge.py",
        "jax.tree.map(lambda leaf: leaf[:size], lift",
        "jax.tree.map(lambda leaf: leaf[-size:], lift",
        ("tests/test_judge.py::test_many_architectures_are_judged_as_one_at_a_time",),
    ),
)
