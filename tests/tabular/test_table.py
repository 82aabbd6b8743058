"""Tables by hand: what is looked up, what is drawn, what is refused; and searches on a clock."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import decisions
from jaxnas.searchers import nsga2, random_search, regularized_evolution
from jaxnas.tabular import (
    best_at,
    floats,
    from_arrays,
    incumbents,
    load_table,
    lookup,
    missing,
    sample_run,
    save_table,
    simulate,
    table_task,
    with_metrics,
)
from jaxnas.tabular.__main__ import _described

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX

CHOICES = {"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((1, 2), jnp.float32)}
ARCHS = np.array(list(itertools.product(range(3), range(3), range(2))))
VALUES = np.arange(18.0) ** 2
RUNS = np.stack([VALUES, VALUES + 1, np.where(np.arange(18) % 2, np.nan, VALUES + 5)], 1)
TABLE = from_arrays(CHOICES, {"error": VALUES, "seconds": 1 + VALUES / 100, "error_runs": RUNS})


def arch(rows):
    rows = np.asarray(rows)
    return {"a": rows[..., :2], "b": rows[..., 2:]}


def test_decisions_join_split_and_count():
    flat = decisions(CHOICES)
    assert flat.size == 18
    chex.assert_trees_all_equal(flat.split(flat.join(arch(ARCHS))), arch(jnp.asarray(ARCHS)))
    np.testing.assert_array_equal(flat.number(ARCHS), np.arange(18))
    drawn = np.asarray(flat.random(jax.random.key(0), 9000))
    counts = np.bincount(np.asarray(flat.number(drawn)), minlength=18)
    assert np.abs((counts - 500) / np.sqrt(500 * 17 / 18)).max() < 4.5


def test_lookup_in_any_shape_and_under_jit_and_vmap():
    np.testing.assert_array_equal(lookup(TABLE, "error", arch(ARCHS)), VALUES)
    assert lookup(TABLE, "error", arch(ARCHS.reshape(3, 6, 3))).shape == (3, 6)
    np.testing.assert_array_equal(jax.jit(lambda a: lookup(TABLE, "error", a))(arch(ARCHS)), VALUES)
    np.testing.assert_array_equal(jax.vmap(lambda a: lookup(TABLE, "error", a))(arch(ARCHS)), VALUES)
    np.testing.assert_array_equal(lookup(TABLE, "error_runs", arch(ARCHS)), RUNS.astype(np.float32))
    outside = arch(np.array([[0, 0, 0], [0, 3, 0], [0, 0, -1]]))
    found = np.asarray(jax.jit(lambda a: lookup(TABLE, "error", a))(outside))
    np.testing.assert_array_equal(np.isnan(found), [False, True, True])
    with pytest.raises(ValueError, match=r"no architecture \[0, 3, 0\]"):
        lookup(TABLE, "error", outside)
    with pytest.raises(ValueError, match="no metric 'accuracy'; it has error"):
        lookup(TABLE, "accuracy", arch(ARCHS))


def test_rows_in_another_order_are_the_same_table():
    order = np.random.default_rng(0).permutation(18)
    other = from_arrays(CHOICES, {"error": VALUES[order]}, archs=arch(ARCHS[order]))
    np.testing.assert_array_equal(other.metrics["error"], VALUES)
    assert other.present is None


def test_single_runs_are_drawn_uniformly_from_those_that_there_are():
    draw = jax.vmap(lambda key: sample_run(key, TABLE, "error_runs", arch(ARCHS[2:4])))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 6000)))
    for column, values in ((0, (4.0, 5.0, 9.0)), (1, (9.0, 10.0))):
        counts = np.array([(found[:, column] == value).sum() for value in values])
        assert counts.sum() == 6000
        share = 1 / len(values)
        assert np.abs((counts - 6000 * share) / np.sqrt(6000 * share * (1 - share))).max() < 4.5
    with pytest.raises(ValueError, match="no single runs"):
        sample_run(jax.random.key(0), TABLE, "error", arch(ARCHS))


def test_holes_are_refused_or_nan():
    with pytest.raises(ValueError, match=r"2 of 18 architectures are missing, the first is \[0, 2, 1\]"):
        from_arrays(CHOICES, {"error": VALUES[:16]}, archs=arch(np.delete(ARCHS, [5, 17], 0)))
    with pytest.raises(ValueError, match="error is NaN for 1 architectures"):
        from_arrays(CHOICES, {"error": np.where(VALUES == 9, np.nan, VALUES)})
    holes = from_arrays(CHOICES, {"error": np.delete(VALUES, 5)}, archs=arch(np.delete(ARCHS, 5, 0)), holes=True)
    assert np.isnan(holes.metrics["error"][5])
    with pytest.raises(ValueError, match=r"no architecture \[0, 2, 1\]"):
        lookup(holes, "error", arch(ARCHS[5]))
    assert np.isnan(jax.jit(lambda a: lookup(holes, "error", a))(arch(ARCHS[5])))


COUNTS = 47_104_650 - np.arange(18)  # each of them would lose units as a float32


def test_integers_are_exact_through_lookup_file_and_search(tmp_path):
    table = from_arrays(CHOICES, {"macs": COUNTS, "error": VALUES})
    assert len(set(COUNTS.astype(np.float32).tolist())) < 18
    assert table.metrics["macs"].dtype == jnp.int32
    np.testing.assert_array_equal(lookup(table, "macs", arch(ARCHS)), COUNTS)
    np.testing.assert_array_equal(jax.jit(lambda a: lookup(table, "macs", a))(arch(ARCHS)), COUNTS)
    save_table(tmp_path / "table.npz", table)
    again = load_table(tmp_path / "table.npz")
    chex.assert_trees_all_equal(again.metrics, table.metrics)
    fitness, cost = table_task(table, "-macs", cost="macs").evaluate(jax.random.key(0), arch(ARCHS))
    np.testing.assert_array_equal(fitness[:, 0], -COUNTS.astype(np.float32))
    np.testing.assert_array_equal(cost, COUNTS.astype(np.float32))


def test_integers_that_are_not_there_are_nan_wherever_they_become_floats():
    holes = from_arrays(CHOICES, {"macs": np.delete(COUNTS, 5)}, archs=arch(np.delete(ARCHS, 5, 0)), holes=True)
    every = floats(np.asarray(holes.metrics["macs"]))
    np.testing.assert_array_equal(every, np.where(np.arange(18) == 5, np.nan, COUNTS))
    assert int(jax.jit(lambda a: lookup(holes, "macs", a))(arch(ARCHS[5]))) == missing(np.int32)
    with pytest.raises(ValueError, match=r"no architecture \[0, 2, 1\]"):
        lookup(holes, "macs", arch(ARCHS[5]))
    task = table_task(holes, "macs", cost="macs")
    assert (task.cheapest, task.most_expensive) == (float(np.float32(COUNTS.min())), float(np.float32(COUNTS.max())))
    fitness, cost = jax.jit(task.evaluate)(jax.random.key(0), arch(ARCHS[4:7]))
    assert np.isnan(fitness)[:, 0].tolist() == np.isnan(cost).tolist() == [False, True, False]
    again = with_metrics(TABLE, {"macs": np.asarray(holes.metrics["macs"])})
    np.testing.assert_array_equal(again.metrics["macs"], holes.metrics["macs"])
    assert "17 values, 47104633 to 47104650" in _described(holes)


def test_integers_beyond_32_bits_are_refused_or_need_64():
    large = COUNTS + 2**31
    message = r"table: macs holds integers from 2194588281 to 2194588298, which only 64-bit"
    with jax.enable_x64(False), pytest.raises(ValueError, match=message):
        from_arrays(CHOICES, {"macs": large})
    assert from_arrays(CHOICES, {"macs": large.astype(float)}).metrics["macs"].dtype == jnp.float32
    with jax.enable_x64(True):
        np.testing.assert_array_equal(lookup(from_arrays(CHOICES, {"macs": large}), "macs", arch(ARCHS)), large)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_arrays(CHOICES, {"error": VALUES[:17]}), r"error has shape \(17,\), expected \(18,\)"),
        (lambda: from_arrays(CHOICES, {"error": VALUES}, archs=arch(ARCHS - 1)), "entry 0 is"),
        (lambda: from_arrays(CHOICES, {"error": VALUES}, archs=arch(ARCHS // 2)), "more than once"),
        (lambda: from_arrays({"a": jax.ShapeDtypeStruct((30, 5), jnp.float32)}, {}), "too many for a table"),
        (lambda: with_metrics(TABLE, {"more": VALUES[:3]}), "more has shape"),
        (lambda: table_task(TABLE, "error_runs"), "holds single runs"),
        (lambda: table_task(TABLE, ()), "at least one"),
        (lambda: table_task(TABLE, "error", cost="error"), "must be positive"),
    ],
)
def test_bad_tables_and_tasks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_files_keep_everything_and_damage_is_found(tmp_path):
    path = tmp_path / "table.npz"
    holes = from_arrays(CHOICES, {"error": np.delete(VALUES, 5)}, archs=arch(np.delete(ARCHS, 5, 0)), holes=True)
    for table in (TABLE, holes):
        checksum = save_table(path, table)
        again = load_table(path, sha256=checksum)
        assert again.choices == CHOICES
        chex.assert_trees_all_equal((again.metrics, again.present), (table.metrics, table.present))
    whole = dict(np.load(path))
    np.savez(path, **(whole | {"present": np.ones(17, bool)}))
    with pytest.raises(ValueError, match=r"present is bool \(17,\), expected bool \(18,\)"):
        load_table(path)
    np.savez(path, **whole)
    with pytest.raises(ValueError, match=r"sha256 is .* expected 00"):
        load_table(path, sha256="00")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a readable"):
        load_table(path)
    np.savez(path, format="other", name="x", choices="{}")
    with pytest.raises(ValueError, match="format is 'other'"):
        load_table(path)
    np.savez(path, format="x")
    with pytest.raises(ValueError, match="has no array"):
        load_table(path)
    with pytest.raises(ValueError, match="there is no file"):
        load_table(tmp_path / "missing.npz")


def test_the_clock_adds_up_what_evaluations_cost_and_stops_at_the_budget():
    task = table_task(TABLE, "error", cost="seconds")
    assert (task.cheapest, task.most_expensive) == (1.0, pytest.approx(3.89))
    _, history = jax.jit(simulate(random_search(CHOICES), task, 20.0))(jax.random.key(0))
    rows = np.concatenate([history.archs["a"], history.archs["b"]], 1)
    cost = np.asarray(lookup(TABLE, "seconds", arch(rows)))
    clock = np.cumsum(cost)
    np.testing.assert_allclose(history.clock, clock, rtol=1e-5)
    np.testing.assert_array_equal(history.done, clock <= 20)
    assert 0 < history.done.sum() < len(clock) == 20
    fitness = np.where(clock <= 20, VALUES[np.asarray(decisions(CHOICES).number(rows))], np.nan)
    np.testing.assert_array_equal(history.fitness[:, 0], fitness.astype(np.float32))
    best = np.minimum.accumulate(np.nan_to_num(fitness, nan=np.inf))
    np.testing.assert_array_equal(history.fitness[jax.jit(incumbents)(history), 0], best.astype(np.float32))
    times = np.array([0.5, clock[0], clock[3] + 1e-4, 20.0, 99.0])
    places = np.asarray(jax.jit(best_at)(history, times))
    assert places[0] == -1
    assert places[1] == 0
    np.testing.assert_array_equal(history.fitness[places[2:], 0], [best[3], best[-1], best[-1]])


def test_a_whole_search_under_vmap_equals_one_by_one_and_sees_no_more_than_its_budget():
    task = table_task(TABLE, ("error",), cost="seconds")
    one = simulate(regularized_evolution(CHOICES, population_size=4, sample_size=2), task, 15.0)
    keys = jax.random.split(jax.random.key(1), 3)
    state, many = jax.jit(jax.vmap(one))(keys)
    for i, key in enumerate(keys):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, i=i: leaf[i], (state, many)), one(key), rtol=1e-6)
    best = jnp.nanmin(many.fitness[..., 0], 1)
    np.testing.assert_array_equal(state.best.fitness, best)


def test_batches_and_several_objectives():
    task = table_task(TABLE, ("error", "-seconds"))
    _, history = simulate(nsga2(CHOICES, population_size=4), task, 10)(jax.random.key(0))
    assert history.fitness.shape == (12, 2)
    assert int(history.done.sum()) == 10
    assert bool((history.fitness[:10, 1] < 0).all())
    noisy = table_task(TABLE, "error", single_runs=True)
    fitness, cost = noisy.evaluate(jax.random.key(0), arch(np.tile(ARCHS[3], (50, 1))))
    assert set(np.asarray(fitness)[:, 0].tolist()) == {9.0, 10.0}
    np.testing.assert_array_equal(cost, 1)


def test_a_budget_below_one_evaluation_is_refused():
    task = table_task(TABLE, "error", cost="seconds")
    with pytest.raises(ValueError, match=r"budget must cover one evaluation, which costs up to 3.89, got 3"):
        simulate(random_search(CHOICES), task, 3.0)
    with pytest.raises(ValueError, match="no metric 'hours'"):
        table_task(TABLE, "error", cost="hours")
