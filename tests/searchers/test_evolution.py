"""Regularised evolution by hand, its mutations, local search on a path, and the policy of REINFORCE."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.policies import categorical
from jaxnas.searchers import (
    local_search,
    point_mutation,
    policy_search,
    regularized_evolution,
    reset_mutation,
    two_point_crossover,
)

CHOICES = {"edges": jax.ShapeDtypeStruct((3, 4), jnp.float32)}
KEY = jax.random.key(3)


def rows(state):
    return np.asarray(state.rows).tolist()


def told(searcher, values, archs, state):
    for value, arch in zip(values, archs, strict=True):
        archs_now = {"edges": jnp.array([arch])}
        state, _ = searcher.tell(KEY, state, archs_now, jnp.array([[float(value)]]))
    return state


def test_the_oldest_dies_and_the_best_of_the_sample_is_the_parent():
    """Five cycles with P = 3, traced by hand: fitness 5, 1, 4, then children 9, 8, 7, 6, 5."""
    searcher = regularized_evolution(CHOICES, population_size=3, sample_size=64)
    archs = [[i, i, i] for i in range(3)] + [[3, 0, i % 4] for i in range(5)]
    values = [5, 1, 4, 9, 8, 7, 6, 5]
    parents = {3: [1, 1, 1], 4: [1, 1, 1], 5: [2, 2, 2], 6: [3, 0, 2], 7: [3, 0, 3], 8: [3, 0, 0]}
    state = searcher.init(KEY)
    for count, (value, arch) in enumerate(zip(values, archs, strict=True)):
        state = told(searcher, [value], [arch], state)
        last = archs[max(0, count - 2) : count + 1]
        assert sorted(rows(state)[: len(last)]) == sorted(last), "the population is the last three of the history"
        if count + 1 in parents:  # 64 draws out of three see every member but for one in 5e-12
            _, child = searcher.ask(jax.random.fold_in(KEY, count), state)
            different = np.sum(np.asarray(child["edges"][0]) != parents[count + 1])
            assert different == 1, (count, child, parents[count + 1])
    assert np.asarray(searcher.decode(state)["edges"]).tolist() == [1, 1, 1], "the best of the history is long dead"
    assert float(state.best.fitness) == 1


def test_a_single_draw_picks_any_member_alike():
    """With S = 1 there is no selection: parents are uniform over the population."""
    searcher = regularized_evolution(CHOICES, population_size=3, sample_size=1, mutation=lambda key, row: row)
    state = told(searcher, [5, 1, 4], [[i, i, i] for i in range(3)], searcher.init(KEY))
    keys = jax.random.split(KEY, 6000)
    first = np.asarray(jax.vmap(lambda key: searcher.ask(key, state)[1]["edges"][0, 0])(keys))
    counts = np.bincount(first, minlength=3)
    assert np.abs((counts - 2000) / np.sqrt(6000 * 2 / 9)).max() < 4.5


def test_the_sample_is_drawn_with_replacement():
    """P = 2, S = 2: the worse is the parent when drawn twice, a quarter of the time; without replacement, never."""
    searcher = regularized_evolution(CHOICES, population_size=2, sample_size=2, mutation=lambda key, row: row)
    state = told(searcher, [1, 2], [[0, 0, 0], [1, 1, 1]], searcher.init(KEY))
    first = jax.vmap(lambda key: searcher.ask(key, state)[1]["edges"][0, 0])(jax.random.split(KEY, 4000))
    z = (float(first.sum()) - 1000) / np.sqrt(4000 * 3 / 16)
    assert abs(z) < 4.5


def test_point_mutation_changes_one_decision_to_any_other_operation():
    weights = {"edges": np.array([1.0, 2.0, 3.0])}
    mutate = point_mutation(CHOICES, weights=weights)
    row = jnp.array([0, 1, 3])
    made = np.asarray(jax.vmap(mutate, (0, None))(jax.random.split(KEY, 12000), row))
    changed = made != np.asarray(row)
    assert (changed.sum(1) == 1).all()
    expected = 12000 * np.array([1, 2, 3]) / 6
    assert np.abs((changed.sum(0) - expected) / np.sqrt(expected)).max() < 4.5
    assert np.abs((changed.sum(0) - 4000) / np.sqrt(4000)).max() > 4.5, "equal weights would be seen"
    for place in range(3):
        values = made[changed[:, place], place]
        counts = np.bincount(values, minlength=4)
        assert counts[row[place]] == 0
        rest = np.delete(counts, int(row[place]))
        assert np.abs((rest - rest.mean()) / np.sqrt(rest.mean())).max() < 4.5
    half = point_mutation(CHOICES, identity=0.5)
    made = np.asarray(jax.vmap(half, (0, None))(jax.random.split(KEY, 4000), row))
    assert abs(((made != np.asarray(row)).any(1).sum() - 2000) / np.sqrt(1000)) < 4.5


def test_reset_mutation_changes_each_decision_by_itself():
    made = np.asarray(jax.vmap(reset_mutation(CHOICES), (0, None))(jax.random.split(KEY, 9000), jnp.array([0, 1, 3])))
    changed = made != np.array([0, 1, 3])
    assert np.abs((changed.sum(0) - 3000) / np.sqrt(9000 * 2 / 9)).max() < 4.5
    both = (changed[:, 0] & changed[:, 1]).sum()
    assert abs((both - 1000) / np.sqrt(9000 * 8 / 81)) < 4.5
    still = jax.vmap(reset_mutation(CHOICES, rate=0.0), (0, None))(jax.random.split(KEY, 9), jnp.array([0, 1, 3]))
    chex.assert_trees_all_equal(still, jnp.tile(jnp.array([0, 1, 3]), (9, 1)))


def test_crossover_takes_one_stretch():
    one, other = jnp.zeros(5, jnp.int32), jnp.ones(5, jnp.int32)
    made = np.asarray(jax.vmap(two_point_crossover, (0, None, None))(jax.random.split(KEY, 3000), one, other))
    stretches = np.abs(np.diff(made, axis=1, prepend=0, append=0)).sum(1)
    assert (stretches == 2).all()
    assert len({tuple(row) for row in made.tolist()}) == 15, "every pair of six cuts"


@pytest.mark.parametrize(
    "make",
    [
        lambda: point_mutation(CHOICES, weights={"edges": np.array([1.0, 2.0])}),
        lambda: point_mutation(CHOICES, weights={"edges": np.array([1.0, -2.0, 3.0])}),
        lambda: point_mutation(CHOICES, identity=2.0),
        lambda: reset_mutation(CHOICES, rate=-0.1),
    ],
)
def test_bad_mutations_are_refused(make):
    with pytest.raises(ValueError, match=r"need|must lie"):
        make()


def climb(rule, steps):
    """Local search on the sum of the decisions, which has one optimum; every architecture asked, in order."""
    searcher = local_search(CHOICES, rule=rule)
    state, asked = searcher.init(KEY), []
    for i in range(steps):
        key = jax.random.fold_in(KEY, i)
        state, archs = searcher.ask(key, state)
        asked.append(np.asarray(archs["edges"][0]))
        state, _ = searcher.tell(key, state, archs, archs["edges"].sum(-1, keepdims=True).astype(jnp.float32))
    return np.array(asked), state


def test_local_search_tries_every_neighbour_and_moves_to_the_best():
    asked, state = climb("best", 41)
    centre = asked[0]
    for round_ in range(4):
        block = asked[1 + 9 * round_ : 10 + 9 * round_]
        assert len({tuple(row) for row in block.tolist()}) == 9
        assert (np.sum(block != centre, axis=1) == 1).all(), "all neighbours of the centre"
        best = block[np.argmin(block.sum(1))]
        if best.sum() >= centre.sum():
            break
        centre = best
    assert centre.sum() == 0, "from anywhere the optimum is at most three moves away"
    assert float(state.best.fitness) == 0


def test_local_search_moves_to_the_first_that_is_better():
    asked, _ = climb("first", 30)
    centre, tried = asked[0], 0
    for row in asked[1:]:
        if tried == 9 or (tried == 0 and (row != centre).sum() != 1):
            break
        assert (row != centre).sum() == 1
        tried += 1
        if row.sum() < centre.sum():
            centre, tried = row, 0
    assert centre.sum() == 0


def test_reinforce_follows_the_gradient_of_the_log_probability():
    """One batch by hand: sgd, decay 0, so that the baseline is the mean of the batch."""
    policy = categorical(CHOICES)
    searcher = policy_search(policy, optax.sgd(0.5), batch_size=2, baseline_decay=0.0)
    state = searcher.init(KEY)
    archs = {"edges": jnp.array([[0, 1, 2], [3, 1, 0]])}
    after, _ = searcher.tell(KEY, state, archs, jnp.array([[4.0], [1.0]]))
    logits = state.policy_params["edges"]
    slope = jax.nn.one_hot(archs["edges"], 4) - jax.nn.softmax(logits)[None]
    expected = logits - 0.5 * jnp.mean(jnp.array([1.5, -1.5])[:, None, None] * slope, 0)
    chex.assert_trees_all_close(after.policy_params["edges"], expected, rtol=1e-5)
    nothing, info = searcher.tell(KEY, state, archs, jnp.array([[jnp.nan], [jnp.inf]]))
    chex.assert_trees_all_equal(nothing.policy_params, state.policy_params)
    assert int(info.bad) == 2


def test_the_baseline_is_a_corrected_moving_average_with_the_batch_in_it():
    """Decay 0.9: after 2 and 5 the average is (0.09 * 2 + 0.1 * 5) / 0.19."""
    searcher = policy_search(categorical(CHOICES), optax.sgd(0.1))
    arch = {"edges": jnp.array([[0, 1, 2]])}
    state = searcher.init(KEY)
    for value in (2.0, 5.0):
        state, _ = searcher.tell(KEY, state, arch, jnp.array([[value]]))
    assert float(state.total / state.weight) == pytest.approx((0.09 * 2 + 0.1 * 5) / 0.19, rel=1e-6)


def test_reinforce_finds_the_best_of_a_sum():
    searcher = policy_search(categorical(CHOICES), optax.adam(0.1), batch_size=4)

    def step(state, key):
        state, archs = searcher.ask(key, state)
        fitness = archs["edges"].sum(-1, keepdims=True).astype(jnp.float32)
        return searcher.tell(key, state, archs, fitness)

    def solve(key):
        state, _ = jax.lax.scan(step, searcher.init(key), jax.random.split(key, 200))
        return (jnp.argmax(state.policy_params["edges"], -1) == 0).all()

    assert int(jax.jit(jax.vmap(solve))(jax.random.split(KEY, 16)).sum()) >= 15
