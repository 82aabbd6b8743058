"""Mistakes in the farm of `jaxnas/population`."""

from tests.mutants.mutant import Mutant

FARM = "jaxnas/population/farm.py"
DISPATCH = "jaxnas/population/dispatch.py"
TESTS = "tests/population/test_farm.py"
WORKERS = "jaxnas/population/workers.py"
PROCESSES = "tests/population/test_farm_processes.py"
SUBMIT = "tests/population/test_submit.py"

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
        "self._losses[child.id] >= self._retries",
        "self._losses[child.id] > self._retries",
        (f"{TESTS}::test_only_the_child_that_kills_its_workers_fails",),
    ),
    Mutant(
        "beside-the-last-attempt",
        "a child that is submitted starts beside the last attempt of another one",
        DISPATCH,
        "if any(self._is_last_attempt(child) for child, _ in self._running.values()):",
        "if not self._waiting:",
        (f"{SUBMIT}::test_nothing_starts_beside_a_last_attempt",),
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
        "blamed-before-the-stop",
        "a child is recorded as failed by the signal that ends its worker and the script",
        DISPATCH,
        "if any(_error(future) is not None for future in ended):",
        "if not ended:",
        (f"{TESTS}::test_a_stop_comes_before_a_child_is_blamed_for_its_worker",),
    ),
    Mutant(
        "error-before-the-stop",
        "a signal that keeps an executor from starting is told as its error",
        DISPATCH,
        "                on_loss()\n                raise",
        "                raise",
        (f"{TESTS}::test_a_stop_comes_before_the_error_of_an_executor_that_cannot_be_made",),
    ),
    Mutant(
        "ended-with-the-group",
        "a signal to a whole group of processes ends a child at work",
        WORKERS,
        "        signal.signal(signum, lambda *_: None)",
        "        signal.signal(signum, signal.SIG_DFL)",
        (f"{PROCESSES}::test_signals_that_a_whole_group_gets_leave_a_child_alone",),
    ),
    Mutant(
        "ended-while-starting",
        "a signal to a whole group of processes ends a process that starts",
        WORKERS,
        "signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, ())",
        (f"{PROCESSES}::test_signals_that_a_whole_group_gets_leave_a_process_alone_that_starts",),
    ),
    Mutant(
        "deaf-to-its-pool",
        "a pool that broke waits for ever for a process that does not listen to SIGTERM",
        WORKERS,
        "        self.kill()",
        "        super().terminate()",
        (f"{PROCESSES}::test_a_pool_that_broke_ends_the_processes_that_are_left",),
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
    Mutant(
        "trained-twice",
        "a child that is at work is started again for another ask",
        DISPATCH,
        "for child in missing if child.id not in known}",
        "for child in missing}",
        (f"{SUBMIT}::test_a_child_that_is_submitted_twice_is_trained_once",),
    ),
    Mutant(
        "two-dispatchers",
        "evaluate trains its children beside the thread that trains what was submitted",
        FARM,
        "if self._submissions.active:",
        "if not self._submissions:",
        (f"{SUBMIT}::test_evaluate_joins_what_was_submitted",),
    ),
    Mutant(
        "answered-by-completion",
        "a future has its children in the order in which they ended",
        DISPATCH,
        "answer_fn([known[child.id] for child in children])",
        "answer_fn([known[number] for number in known if number in {child.id for child in children}])",
        (f"{SUBMIT}::test_an_ask_has_its_children_in_their_order",),
    ),
    Mutant(
        "one-refusal-for-all",
        "a record of another child fails every ask that is out",
        DISPATCH,
        "            except UserError as error:\n                del unanswered[answer]",
        "            except OSError as error:\n                del unanswered[answer]",
        (f"{SUBMIT}::test_a_record_of_another_child_fails_its_own_ask_alone",),
    ),
    Mutant(
        "left-at-work",
        "leaving a farm lets what was submitted go on",
        FARM,
        "        self._submissions.stop()\n",
        "",
        (f"{SUBMIT}::test_leaving_the_farm_ends_what_was_submitted",),
    ),
)
