"""Mistakes in `jaxnas/run`, in `jaxnas/checkpoint` and around the guard of steps."""

from tests.mutants.mutant import Mutant

DRIVER = ("tests/run/test_driver.py",)
PHASES = ("tests/run/test_phases.py",)
CHECKPOINT = ("tests/test_checkpoint.py",)

GRADIENT = "tests/searchers/test_gradient.py::"

MUTANTS = (
    Mutant(
        "ids-restart",
        "children of every ask are counted from zero",
        "jaxnas/run/_search.py",
        "ids = np.arange(num_known, num_known + num_new)",
        "ids = np.arange(num_new)",
        ("tests/run/test_search.py::test_history_is_what_was_proposed_and_found_in_order",),
    ),
    Mutant(
        "failed-child-wins",
        "a fitness that is not finite counts as the best of a search",
        "jaxnas/run/_search.py",
        "np.min(joined.fitness[:, 0], where=joined.good, initial=np.inf)",
        "np.min(joined.fitness[:, 0], initial=np.inf)",
        ("tests/run/test_search.py::test_children_that_fail_never_win_and_are_counted",),
    ),
    Mutant(
        "torn-history",
        "the file of a search's history goes on behind what a kill has torn",
        "jaxnas/run/_search.py",
        "        file.begin(state.history)\n        while",
        "        while",
        ("tests/run/test_search.py::test_only_what_came_after_the_last_checkpoint_is_evaluated_again",),
    ),
    Mutant(
        "one-seed-for-all",
        "an architecture that is proposed twice is trained twice alike",
        "experiments/evolution.py",
        'train(name, archs, ids, {"validation"',
        'train(name, archs, np.zeros_like(ids), {"validation"',
        ("tests/experiments/test_evolution.py::test_children_get_their_objectives_by_name_and_failed_ones_no_fitness",),
    ),
    Mutant(
        "estimator-kept",
        "the estimator's state of a rejected step goes on",
        "jaxnas/searchers/gradient.py",
        "new = new._replace(step=state.step + 1, bad=",
        "new = new._replace(estimator=moved[0].estimator, step=state.step + 1, bad=",
        (GRADIENT + "test_a_bad_batch_changes_nothing_but_two_counts",),
    ),
    Mutant(
        "bad-uncounted",
        "rejected steps are not counted",
        "jaxnas/searchers/gradient.py",
        "bad=state.bad + (~good).astype(jnp.int32)",
        "bad=state.bad",
        (GRADIENT + "test_a_bad_batch_changes_nothing_but_two_counts",),
    ),
    Mutant(
        "outcome-unseen",
        "the guard looks at losses and gradients alone, not at what comes out",
        "jaxnas/guard.py",
        "good = jnp.all(sound & good)",
        "good = jnp.all(good)",
        (GRADIENT + "test_what_comes_out_of_a_step_is_checked_too",),
    ),
    Mutant(
        "oldest-kept",
        "the oldest checkpoints stay instead of the newest",
        "jaxnas/checkpoint/__init__.py",
        "for step in steps[: -self._keep]:",
        "for step in steps[self._keep :]:",
        ("tests/test_checkpoint.py::test_keep_and_the_last_good_step",),
    ),
    Mutant(
        "checksum-unread",
        "the checksum of a leaf not looked at",
        "jaxnas/checkpoint/__init__.py",
        'if is_stored(record) and checksum(arrays[record["path"]]) != record["crc32"]:',
        'if is_stored(record) and arrays.get(record["path"]) is None:',
        ("tests/test_checkpoint_seal.py",),
    ),
    Mutant(
        "oldest-first",
        "the oldest checkpoint restored",
        "jaxnas/checkpoint/__init__.py",
        "for step in reversed(steps):\n            try:",
        "for step in steps:\n            try:",
        (
            "tests/test_checkpoint.py::test_saving_again_replaces_the_step_and_what_came_later",
            "tests/test_checkpoint.py::test_keep_and_the_last_good_step",
        ),
    ),
    Mutant(
        "good-lost",
        "the last good checkpoint pushed out by bad ones",
        "jaxnas/checkpoint/__init__.py",
        "                if step != good:\n",
        "                if step != -1:\n",
        ("tests/test_checkpoint.py::test_keep_and_the_last_good_step",),
    ),
    Mutant(
        "form-unchecked",
        "a state of another dtype restored",
        "jaxnas/checkpoint/leaves.py",
        "return f\"{leaf.dtype}[{','.join(map(str, leaf.shape))}]\"",
        "return f\"array[{','.join(map(str, leaf.shape))}]\"",
        ("tests/test_checkpoint.py::test_another_form_is_refused_in_one_line",),
    ),
    Mutant(
        "chunk-keys",
        "the keys of steps counted from the start of a chunk",
        "jaxnas/run/loop.py",
        "jax.random.fold_in(key, first + i)",
        "jax.random.fold_in(key, i)",
        DRIVER,
    ),
    Mutant(
        "stop-missed",
        "chunks run over the steps at which they should stop",
        "jaxnas/run/loop.py",
        "*(stop - step % stop for stop in every)",
        "*(stop for stop in every)",
        DRIVER,
    ),
    Mutant(
        "shared-buffer",
        "the caller's arrays overwritten by the first chunk",
        "jaxnas/run/loop.py",
        "return jnp.array(leaf, dtype=jnp.asarray(leaf).dtype, copy=True)",
        "return jnp.asarray(leaf, dtype=jnp.asarray(leaf).dtype)",
        DRIVER,
    ),
    Mutant(
        "logged-steps",
        "records one step off",
        "jaxnas/run/phases.py",
        "for number, row in enumerate(rows, start=step - len(rows) + 1):",
        "for number, row in enumerate(rows, start=step - len(rows)):",
        PHASES,
    ),
)
