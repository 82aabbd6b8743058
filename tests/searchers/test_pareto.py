"""Fronts, crowding and hypervolume against slow references that share no code with them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import decisions
from jaxnas.searchers import crowding_distance, hypervolume, nsga2, pareto_front, pareto_ranks, survivors


def beats(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def slow_ranks(points):
    """Peels fronts with the definition alone."""
    left, ranks, front = set(range(len(points))), [-1] * len(points), 0
    while left:
        free = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        for i in free:
            ranks[i] = front
        left, front = left - free, front + 1
    return ranks


def slow_crowding(points, ranks):
    """Front by front and objective by objective, as the paper writes it."""
    result = [0.0] * len(points)
    for front in set(ranks):
        members = [i for i in range(len(points)) if ranks[i] == front]
        for m in range(len(points[0])):
            key = lambda i, m=m: tuple(points[i][m:]) + tuple(points[i][:m]) + (i,)  # noqa: E731
            order = sorted(members, key=key)
            span = points[order[-1]][m] - points[order[0]][m]
            for place, i in enumerate(order):
                if place in (0, len(order) - 1):
                    result[i] = float("inf")
                elif span > 0:
                    result[i] += (points[order[place + 1]][m] - points[order[place - 1]][m]) / span
    return result


def slow_volume(points, reference):
    """Inclusion and exclusion over all subsets."""
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    total = 0.0
    for size in range(1, len(inside) + 1):
        for subset in itertools.combinations(inside, size):
            corner = np.max(subset, 0)
            total += (-1) ** (size + 1) * np.prod(np.asarray(reference) - corner)
    return total


def cases(objectives):
    rng = np.random.default_rng(objectives)
    smooth = rng.random((40, objectives))
    ties = rng.integers(0, 4, (40, objectives)).astype(float)
    constant = smooth.copy()
    constant[:, 0] = 0.5
    line = np.stack([np.linspace(0, 1, 12)] * objectives, 1)
    front = line.copy()
    front[:, 0] = front[::-1, 0]
    one, same = rng.random((1, objectives)), np.full((6, objectives), 0.3)
    extremes = np.concatenate([smooth[:10], [[1e30] * objectives, [-1e30] * objectives]])
    return {
        "random": smooth,
        "ties": ties,
        "constant": constant,
        "chain": line,
        "front": front,
        "one": one,
        "same": same,
        "extremes": extremes,
    }


CASES = [(m, name, points) for m in (1, 2, 3) for name, points in cases(m).items()]
EVERY = pytest.mark.parametrize(("m", "name", "points"), CASES, ids=[f"{name}-{m}" for m, name, _ in CASES])


@EVERY
def test_fronts_and_crowding_equal_the_definition(m, name, points):
    points = points.astype(np.float32)
    ranks = slow_ranks(points.tolist())
    np.testing.assert_array_equal(pareto_ranks(points), ranks)
    np.testing.assert_array_equal(pareto_front(points), np.array(ranks) == 0)
    found = np.asarray(crowding_distance(points, jnp.array(ranks)))
    assert not np.isnan(found).any()
    np.testing.assert_allclose(found, slow_crowding(points.tolist(), ranks), rtol=2e-5)


@EVERY
def test_survivors_go_by_front_and_then_by_crowding(m, name, points):
    points = points.astype(np.float32)
    ranks = np.array(slow_ranks(points.tolist()))
    crowding = np.array(slow_crowding(points.tolist(), ranks.tolist()))
    kept = np.asarray(survivors(points, min(7, len(points))))
    assert len(set(kept.tolist())) == len(kept)
    rest = np.setdiff1d(np.arange(len(points)), kept)
    for i, j in itertools.product(kept, rest):
        assert (ranks[i], -crowding[i]) <= (ranks[j], -crowding[j] + 1e-4)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_hypervolume_equals_inclusion_and_exclusion(objectives):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = rng.random((rng.integers(1, 9), objectives))
        points[rng.random(len(points)) < 0.2] += 0.7  # some lie beyond the reference
        points = np.concatenate([points, points[:1]])
        reference = np.full(objectives, 1.1)
        expected = slow_volume(points.tolist(), reference)
        filled = np.full((10, objectives), np.nan)
        filled[: len(points)] = points
        assert float(hypervolume(filled, reference)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_hypervolume_of_known_sets():
    assert float(hypervolume(jnp.array([[0.0, 0.5], [0.5, 0.0]]), jnp.ones(2))) == pytest.approx(0.75)
    assert float(hypervolume(jnp.zeros((1, 3)), jnp.array([1.0, 2.0, 3.0]))) == pytest.approx(6.0)
    assert float(hypervolume(jnp.ones((2, 2)), jnp.ones(2))) == 0.0, "on the reference"
    cube = jnp.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    assert float(hypervolume(cube, jnp.ones(3))) == pytest.approx(0.5), "3 / 4 - 3 / 8 + 1 / 8"
    with pytest.raises(ValueError, match="three objectives"):
        hypervolume(jnp.zeros((2, 4)), jnp.ones(4))
    with pytest.raises(ValueError, match="reference"):
        hypervolume(jnp.zeros((2, 2)), jnp.ones(3))


def test_what_is_not_finite_is_dominated_by_everything():
    points = jnp.array([[0.5, jnp.nan], [9.0, 9.0], [jnp.inf, 0.0], [0.1, -jnp.inf], [1.0, 1.0]])
    np.testing.assert_array_equal(pareto_front(points), [False, False, False, False, True])
    ranks = pareto_ranks(points)
    np.testing.assert_array_equal(ranks, [2, 1, 2, 2, 0])
    crowding = np.asarray(crowding_distance(points, ranks))
    assert not np.isnan(crowding).any()
    np.testing.assert_array_equal(crowding[[0, 2, 3]], 0)
    np.testing.assert_array_equal(np.sort(survivors(points, 2)), [1, 4])
    nothing = jnp.full((4, 2), jnp.nan)
    assert not bool(pareto_front(nothing).any())
    assert np.asarray(survivors(nothing, 2)).tolist() == [0, 1]


def test_permuting_the_rows_permutes_the_result():
    points = np.random.default_rng(5).random((50, 2)).astype(np.float32)
    order = np.random.default_rng(6).permutation(50)
    ranks = pareto_ranks(points)
    np.testing.assert_array_equal(pareto_ranks(points[order]), np.asarray(ranks)[order])
    permuted = crowding_distance(points[order], ranks[order])
    np.testing.assert_array_equal(permuted, np.asarray(crowding_distance(points, ranks))[order])


CHOICES = {"bits": jax.ShapeDtypeStruct((10, 3), jnp.float32)}


def two_sums(archs):
    """The front has one architecture's objectives for every number of zeros: eleven points on a line."""
    zeros = (archs["bits"] == 0).sum(-1).astype(jnp.float32)
    twos = (archs["bits"] == 2).sum(-1).astype(jnp.float32)
    return jnp.stack([10 - zeros, 10 - twos], -1)


@pytest.mark.parametrize("tournament", ["rank", "dominance"])
def test_nsga2_finds_the_front_and_never_loses_hypervolume_or_extremes(tournament):
    searcher = nsga2(CHOICES, population_size=24, tournament=tournament)

    def step(state, key):
        state, archs = searcher.ask(key, state)
        state, _ = searcher.tell(key, state, archs, two_sums(archs))
        return state, (hypervolume(state.fitness, jnp.full(2, 11.0)), state.fitness.min(0))

    keys = jax.random.split(jax.random.key(0), 60)
    state, (volumes, least) = jax.jit(lambda: jax.lax.scan(step, searcher.init(keys[0]), keys))()
    assert (np.diff(volumes) >= -1e-4).all()
    assert (np.diff(least, axis=0) <= 0).all()
    assert float(volumes[-1]) == pytest.approx(sum(range(1, 12))), "the whole staircase"
    np.testing.assert_array_equal(state.fitness, two_sums(decisions(CHOICES).split(state.rows)))


def test_children_that_are_there_already_are_replaced():
    """A mutation that hardly changes anything makes mostly copies; none of them is asked while there are others."""
    searcher = nsga2(CHOICES, population_size=12, crossover_rate=0.5, attempts=8)
    state, ask, tell = searcher.init(jax.random.key(0)), jax.jit(searcher.ask), jax.jit(searcher.tell)
    for i in range(4):
        key = jax.random.fold_in(jax.random.key(1), i)
        before = {tuple(row) for row in np.asarray(state.rows).tolist()} if i else set()
        state, archs = ask(key, state)
        asked = [tuple(row) for row in np.asarray(archs["bits"]).tolist()]
        assert len(set(asked)) == 12
        assert not before & set(asked)
        state, _ = tell(key, state, archs, two_sums(archs))


def test_of_equal_rows_the_two_ends_are_infinite_and_those_between_are_nothing():
    for count in (1, 2, 3, 5):
        rows = jnp.ones((count, 2))
        found = np.sort(crowding_distance(rows, pareto_ranks(rows)))
        np.testing.assert_array_equal(found, [0.0] * (count - 2) + [np.inf] * min(count, 2))
