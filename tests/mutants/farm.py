"""Mistakes in the farm of `jaxnas/population`."""

from tests.mutants.mutant import Mutant

FARM = "jaxnas/population/farm.py"
DISPATCH = "jaxnas/population/dispatch.py"
TESTS = "tests/population/test_farm.py"

MUTANTS = (
    Mutant(
        "order-of-completion",
        "a farm tells results in the order in which they came",
        FARM,
        "return [self.records[child.id] for child in children]",
        "return list(self.records.values())",
        (f"{TESTS}::test_order_of_completion_changes_nothing",),
    ),
    Mutant(
        "blamed-together",
        "a child that was lost before has its last attempt beside others",
        DISPATCH,
        "losses[child.id] < self._retries",
        "losses[child.id] <= self._retries",
        (f"{TESTS}::test_only_the_child_that_kills_its_workers_fails",),
    ),
    Mutant(
        "new-pool-dropped",
        "the last word of a broken pool ends the one that was made after it",
        DISPATCH,
        "isinstance(error, BrokenExecutor) and executor is self._executor",
        "isinstance(error, BrokenExecutor)",
        (f"{TESTS}::test_only_the_child_that_kills_its_workers_fails",),
    ),
    Mutant(
        "broken-pool-kept",
        "a pool that broke is given more children",
        DISPATCH,
        "isinstance(error, BrokenExecutor) and executor is self._executor",
        "isinstance(error, OSError)",
        (f"{TESTS}::test_only_the_child_that_kills_its_workers_fails",),
    ),
    Mutant(
        "done-forgotten",
        "a farm that is stopped drops what has ended meanwhile",
        DISPATCH,
        "for future in running if not future.cancel() and future.done()",
        "for future in running if future.cancel() and future.done()",
        (f"{TESTS}::test_a_stop_cancels_what_waits_and_records_what_is_done",),
    ),
    Mutant(
        "one-seed",
        "all children of a farm have one seed",
        FARM,
        "np.random.SeedSequence((self._seed, child_id))",
        "np.random.SeedSequence((self._seed, 0))",
        (f"{TESTS}::test_seeds_differ_from_child_to_child_and_from_farm_to_farm",),
    ),
    Mutant(
        "config-unrecorded",
        "a record does not know the config that it was made with",
        "jaxnas/population/records.py",
        'plain({**child._asdict(), "config": self._config})',
        "plain(child._asdict())",
        (f"{TESTS}::test_a_record_of_another_config_or_seed_is_refused",),
    ),
)
