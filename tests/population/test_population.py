"""A member is the same whoever is trained beside it, and nothing of a broken one reaches the others."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import sparse_paths
from jaxnas.checkpoint import Checkpoints
from jaxnas.errors import UserError
from jaxnas.population import (
    Population,
    PopulationData,
    Recipe,
    family_of,
    member_mesh,
    program,
    resolve,
    train_population,
)
from jaxnas.population.entries import make_entries
from jaxnas.searchers import sgd_l2
from jaxnas.spaces import nasbench201_small_space
from jaxnas.train import cross_entropy
from tests.population.families import ARCHS, DATA, FAMILY, KEY, RATES, RECIPE, SPACE, rows, trained

FOUR = rows(ARCHS, range(4))


def without_times(population):
    return population._replace(seconds=None)


@pytest.fixture(scope="module", params=["map", "vmap", "shard"])
def whole(request):
    """The name of a strategy and the population that it trains, in chunks of four."""
    return request.param, trained(strategy=request.param, chunk=4)


def test_members_learn_and_are_judged_when_asked(whole):
    _, found = whole
    assert isinstance(found, Population)
    assert {name: part.shape for name, part in found.score.items()} == {"validation": (7, 3), "test": (7, 3)}
    assert found.loss.shape == (7, 3)
    assert found.good.all()
    assert (found.seconds > 0).all()
    assert (found.loss[:, 2] < found.loss[:, 0]).all()
    assert found.score["test"][:, 2].mean() > 0.8
    np.testing.assert_allclose(found.score["test"] * 37, np.round(found.score["test"] * 37), atol=1e-4)


def test_other_slots_and_chunks_give_the_same_bits(whole):
    strategy, found = whole
    order = np.array([5, 2, 6, 0, 3, 1, 4])
    mixed = trained(rows(ARCHS, order), strategy=strategy, chunk=4, rates=RATES[order])
    chex.assert_trees_all_equal(without_times(mixed), rows(without_times(found), order))


def test_a_member_on_its_own_gives_the_same_bits(whole):
    strategy, found = whole
    for i in (0, 4):
        alone = trained(rows(ARCHS, [i]), strategy=strategy, chunk=4, rates=RATES[[i]])
        chex.assert_trees_all_equal(without_times(alone), rows(without_times(found), [i]))


def test_strategies_agree_to_rounding(whole):
    _, found = whole
    plain = trained(strategy="map", chunk=7)
    chex.assert_trees_all_close(found.params, plain.params, rtol=1e-5, atol=1e-6)
    apart = np.abs(found.score["test"] - plain.score["test"])
    assert apart.mean() < np.sqrt(0.25 / 37)


@pytest.mark.leaks
@pytest.mark.x64
def test_a_member_is_what_a_plain_loop_trains():
    found = trained(strategy="map", chunk=4)
    i, (images, labels) = 3, DATA.train
    entry = rows(make_entries(ARCHS, RATES, None, None), i)
    key = jax.random.fold_in(jax.random.fold_in(KEY, entry.name), 0)
    key_init, key_order, _ = jax.random.split(key, 3)
    params = SPACE.init(key_init, images[:16])
    tx = optax.sgd(RATES[i], momentum=0.9)
    opt, paths = tx.init(params), sparse_paths(jax.tree.map(jnp.asarray, entry.arch))

    @jax.jit
    def step(params, opt, x, y):
        grads = jax.grad(lambda p: cross_entropy(SPACE.apply(p, paths, x), y))(params)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt

    seen = []
    for number in range(100):
        if number % 6 == 0:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(key_order, number // 6), 100))
        batch = order[number % 6 * 16 : (number % 6 + 1) * 16]
        seen.append(batch)
        params, opt = step(params, opt, images[batch], labels[batch])
    assert len(set(np.concatenate(seen[:6]))) == 96
    chex.assert_trees_all_close(params, jax.tree.map(lambda leaf: leaf[i], found.params), rtol=1e-5, atol=1e-6)
    logits = SPACE.apply(params, paths, DATA.parts["test"][0])
    right = np.mean(np.argmax(logits, -1) == DATA.parts["test"][1])
    np.testing.assert_allclose(found.score["test"][i, 2], right, rtol=1e-6)


def test_what_a_member_does_not_have_moves_by_weight_decay_alone():
    recipe = Recipe(sgd_l2(0.1, momentum=0.9, weight_decay=0.2, clip=None), steps=3, batch_size=100)
    still = RECIPE._replace(steps=1, judge_at=())
    first = trained(recipe=still, rates=np.zeros(7), strategy="map", chunk=7).params
    last = trained(recipe=recipe, rates=None, strategy="map", chunk=7).params
    decayed, buffer = 1.0, 0.0  # the path of a weight without gradient, relative to its start
    for _ in range(3):
        buffer = 0.9 * buffer + 0.2 * decayed
        decayed -= 0.1 * buffer
    for i in range(7):
        before, after = rows(first, i), rows(last, i)
        used = SPACE.used(before, sparse_paths({"chain": jnp.asarray(ARCHS["chain"][i])}))
        for old, new, mask in zip(*map(jax.tree.leaves, (before, after, used)), strict=True):
            mask = np.broadcast_to(mask, old.shape)
            np.testing.assert_allclose(new[~mask], decayed * old[~mask], rtol=1e-5)
            assert (np.abs(new[mask] - decayed * old[mask]) > 1e-6).all()


def test_members_of_a_benchmark_space_do_not_see_each_other():
    """Beside a network that lets nothing through, a network is what it is beside a copy of itself."""
    family = family_of(nasbench201_small_space(2, 3))
    archs = {"cell": np.array([[2, 1, 2, 2, 0, 1], [0, 0, 0, 1, 0, 0]])}
    images = jax.random.normal(KEY, (8, 4, 4, 1)), jax.random.randint(KEY, (8,), 0, 3)
    recipe, data = Recipe(optax.sgd(0.1), steps=2, batch_size=8), PopulationData(images, {})
    settings = {"strategy": "map", "keep_params": True, "chunk": 2}
    both = train_population(KEY, family, archs, data, recipe, **settings)
    assert both.good.all()
    for i in range(2):
        twins = train_population(KEY, family, rows(archs, [i, i]), data, recipe, **settings)
        chex.assert_trees_all_equal(without_times(twins), rows(without_times(both), [i, i]))


def test_keys_come_from_the_architecture_the_seed_and_the_population():
    same = {"chain": np.array([[0, 1], [0, 1], [0, 2]])}
    settings = {"rates": np.zeros(3), "strategy": "map"}  # members keep the weights they start from
    found = trained(same, seeds=np.array([0, 1, 0]), **settings).params["blocks"]["dense"]["kernel"]
    again = trained(same, seeds=np.array([0, 0, 0]), **settings).params["blocks"]["dense"]["kernel"]
    np.testing.assert_array_equal(again[0], again[1])
    np.testing.assert_array_equal(found[0], again[0])
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_a_loss_that_is_not_finite_marks_its_member_alone(strategy):
    rates = RATES.copy()
    rates[2] = 1e38
    found, plain = (trained(strategy=strategy, chunk=4, rates=r) for r in (rates, RATES))
    np.testing.assert_array_equal(found.good, np.arange(7) != 2)
    assert np.isnan(found.score["test"][2, 2])
    others = [0, 1, 3, 4, 5, 6]
    chex.assert_trees_all_equal(rows(without_times(found), others), rows(without_times(plain), others))
    chex.assert_tree_all_finite(found.params)


def test_calls_are_cut_by_their_seconds_and_end_in_the_same_bits(whole):
    """Down to single steps, and up to as many members as a call can have."""
    strategy, found = whole
    cuts = {}
    for name, seconds in (("short", 0.0), ("long", 1e9)):
        calls = cuts[name] = []
        again = trained(strategy=strategy, chunk=4, seconds=seconds, on_chunk=lambda done, _, c=calls: c.append(done))
        chex.assert_trees_all_equal(without_times(again), without_times(found))
    at_a_time = {"map": [1] * 7, "vmap": [4, 3], "shard": [2, 2, 2, 1]}[strategy]
    before = np.cumsum([0, *at_a_time[:-1]])
    steps = [done + count * np.arange(1, 101) / 100 for done, count in zip(before, at_a_time, strict=True)]
    np.testing.assert_allclose(cuts["short"], np.concatenate(steps))
    first = at_a_time[0] * np.cumsum([1, 4, 16, 64, 15]) / 100  # four times as many steps as ever before
    np.testing.assert_allclose(cuts["long"], [*first, *{"map": [3, 7], "vmap": [7], "shard": [6, 7]}[strategy]])


def test_weights_that_come_out_infinite_mark_their_member_and_it_stands_still():
    """One step whose loss and gradient are finite; the next one would have been the first to notice."""
    rates = np.where(np.arange(7) == 2, 1e30, RATES)
    squared = lambda rate: optax.chain(optax.scale(rate), optax.sgd(rate))  # noqa: E731
    recipe = RECIPE._replace(tx=squared, steps=1, judge_at=())
    found = trained(recipe=recipe, strategy="map", chunk=4, rates=rates)
    np.testing.assert_array_equal(found.good, np.arange(7) != 2)
    np.testing.assert_array_equal(np.isnan(found.score["test"][:, 0]), np.arange(7) == 2)
    np.testing.assert_array_equal(np.isnan(found.loss[:, 0]), np.arange(7) == 2)
    chex.assert_tree_all_finite(found.params)


def test_a_member_that_has_gone_bad_never_shows_a_plausible_number_again():
    """Its first batch is spoiled; all others would train it well."""
    recipe = RECIPE._replace(steps=30, judge_at=(2,))
    images, labels = DATA.train
    data = DATA._replace(train=(images, labels.at[:50].set(3)))  # no class: in every batch but few
    found = train_population(KEY, FAMILY, ARCHS, data, recipe, rates=RATES, strategy="map", chunk=7, keep_params=True)
    assert not found.good.any()
    assert np.isnan(found.loss).all()
    assert all(np.isnan(part).all() for part in found.score.values())


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_a_member_stands_still_although_later_batches_are_good(strategy):
    def prepare(key, images):
        return images if key is None else jnp.where(jax.random.uniform(key) < 0.3, jnp.nan, images)

    short, long = (
        trained(recipe=RECIPE._replace(prepare=prepare, steps=steps, judge_at=()), strategy=strategy, chunk=7)
        for steps in (20, 40)
    )
    for found in (short, long):
        assert not found.good.any()
        assert np.isnan(found.loss).all()
    chex.assert_trees_all_close(long.params, short.params, rtol=1e-6)


def test_a_member_whose_logits_are_not_finite_has_no_accuracy():
    spoiled = FAMILY._replace(judge=lambda params, arch, x: FAMILY.apply(params, arch, x) * jnp.inf)
    found = train_population(KEY, spoiled, ARCHS, DATA, RECIPE._replace(steps=2, judge_at=()), rates=RATES, chunk=4)
    assert found.good.all()
    assert np.isnan(found.score["test"]).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (jnp.zeros((100, 1), jnp.int32), "labels must be integers of shape"),
        (jnp.zeros(100), "labels must be integers of shape"),
        (jnp.zeros(50, jnp.int32), "targets must be one for each of the 100 training inputs, got 50"),
    ],
)
def test_labels_that_do_not_fit_are_refused_when_traced(labels, message):
    data = DATA._replace(train=(DATA.train[0], labels))
    with pytest.raises(ValueError, match=message):
        train_population(KEY, FAMILY, ARCHS, data, RECIPE, rates=RATES, strategy="map", chunk=4)


class Stop(Exception):
    pass


def stopped(calls, at, **settings):
    """A population that is stopped when so many members are done."""

    def stop(done, seconds):
        assert seconds > 0
        calls.append(done)
        if done == at:
            raise Stop

    with pytest.raises(Stop):
        trained(seconds=0.0, on_chunk=stop, **settings)


@pytest.mark.parametrize(("strategy", "moment"), [("map", 4), ("map", 4.25), ("vmap", 2.08), ("shard", 5.5)])
def test_a_stopped_population_goes_on_where_it_was(strategy, moment, tmp_path):
    """Between two members, or in the midst of some."""
    calls, settings = [], {"strategy": strategy, "chunk": 4}
    whole = trained(**settings)
    stopped(calls, moment, directory=tmp_path, **settings)
    settings = {**settings, "directory": tmp_path, "on_chunk": lambda done, _: calls.append(done)}
    resumed = trained(**settings)
    assert calls[-1] == 7
    assert (np.diff(calls) > 0).all()
    chex.assert_trees_all_equal(without_times(resumed), without_times(whole))
    # Done is done: nothing is compiled or trained again.
    before = len(calls)
    again = trained(**settings)
    assert len(calls) == before
    chex.assert_trees_all_equal(again, resumed)


def test_the_next_generation_traces_nothing_again():
    """Neither first weights nor steps: a search trains many populations of one family and recipe."""
    traced, counts = [], []
    family = FAMILY._replace(init=lambda *arguments: traced.append("init") or FAMILY.init(*arguments))
    for first in (0, 2):
        archs = rows(ARCHS, range(first, first + 2))
        train_population(KEY, family, archs, DATA, RECIPE, rates=RATES[:2], strategy="map")
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_checkpoints_are_as_far_apart_as_wanted(save_seconds, tmp_path, monkeypatch):
    saved, calls = [], []
    monkeypatch.setattr(Checkpoints, "save", lambda self, number, *rest: saved.append(number))
    settings = {"strategy": "map", "on_chunk": lambda *call: calls.append(call)}
    trained(save_seconds=save_seconds, directory=tmp_path, **settings)
    assert len(calls) > 1
    assert len(saved) == (1 if save_seconds else len(calls))


def test_members_in_work_start_anew_on_another_number_of_devices(tmp_path):
    stopped([], 2.5, directory=tmp_path, strategy="shard", chunk=4)
    calls = []
    found = trained(
        strategy="map", chunk=4, directory=tmp_path, seconds=0.0, on_chunk=lambda done, _: calls.append(done)
    )
    assert calls[0] == 2.01
    plain = trained(strategy="map", chunk=4)
    chex.assert_trees_all_close((found.loss, found.params), (plain.loss, plain.params), rtol=1e-4, atol=1e-5)


def test_auto_spreads_over_devices_and_a_mesh_is_for_shard_only():
    assert resolve("auto") == "shard"
    assert resolve("auto", member_mesh()) == "shard"
    with pytest.raises(ValueError, match="a mesh needs strategy 'shard' or 'auto', got 'map'"):
        resolve("map", member_mesh())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"archs": {"chain": np.zeros((0, 2), int)}, "rates": None}, "archs: there is no architecture to train"),
        ({"strategy": "pmap"}, "strategy must be 'auto', 'vmap', 'map' or 'shard', got 'pmap'"),
        ({"archs": {"chain": np.array([[0, 3]])}, "rates": None}, r"operations must lie in 0\.\.2, got \[0, 3\]"),
        ({"strategy": "shard", "chunk": 5}, "chunk must be a multiple of 2, the number of devices, got 5"),
        ({"chunk": 0}, "chunk must be a multiple of 2, the number of devices, got 0"),
        ({"rates": np.zeros(3)}, r"rates must have leaves with a leading axis of 7, got shape \(3,\)"),
        ({"seeds": np.zeros(2)}, r"seeds must be whole numbers with a leading axis of 7, got float64 \(2,\)"),
        ({"rates": None}, "rates are for a recipe.tx that is a function of them"),
        ({"recipe": RECIPE._replace(tx=optax.sgd(0.1))}, "rates are for a recipe.tx that is a function of them"),
        ({"recipe": RECIPE._replace(steps=0)}, "steps and batch_size must be at least 1, got 0 and 16"),
        ({"recipe": RECIPE._replace(judge_at=(101,))}, r"judge_at must lie in 1\.\.100, got 101"),
        ({"recipe": RECIPE._replace(batch_size=101)}, "batch_size is 101, more than the 100 training examples"),
    ],
)
def test_bad_input_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        trained(**settings)


def test_more_memory_than_there_is_is_refused_before_the_start(monkeypatch):
    monkeypatch.setattr(program, "free_memory", lambda: 2**14)
    with pytest.raises(
        ValueError, match=r"chunk=6: needs 0\.\d\d GiB on each device, which has 0\.00; chunk=\d would fit"
    ):
        trained(strategy="vmap", chunk=6)
    monkeypatch.setattr(program, "free_memory", lambda: 10)
    with pytest.raises(ValueError, match="not even one member fits"):
        trained(strategy="vmap", chunk=6)


def test_images_of_the_training_data_stand_before_those_that_are_judged():
    seen = []

    def judge(params, arch, x):
        seen.append(x.shape)
        return FAMILY.apply(params, arch, x)

    family = FAMILY._replace(judge=judge, reference=10)
    found = train_population(KEY, family, ARCHS, DATA, RECIPE, rates=RATES, strategy="map", chunk=4)
    assert set(seen) == {(60, 4), (47, 4)}
    plain = trained(strategy="map", chunk=4)
    apart = np.abs(found.score["test"] - plain.score["test"])  # of two programs: a rounding may turn one over
    assert apart.mean() < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": np.array([0, 1, -1, 2])}, "seeds must be 4 whole numbers from 0 to 4294967295"),
        ({"seeds": np.array([0, 1, 2, 2**32])}, "seeds must be 4 whole numbers from 0 to 4294967295"),
        (
            {"seeds": np.array([0.0, 1.0, 0.7, 2.0])},
            "seeds must be whole numbers with a leading axis of 4, got",
        ),
        ({"seeds": np.arange(3)}, "seeds must be whole numbers with a leading axis of 4"),
    ],
)
def test_seeds_that_would_be_changed_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        train_population(KEY, FAMILY, FOUR, DATA, RECIPE, rates=np.zeros(4), **settings)


def test_architectures_that_do_not_fit_together_are_refused():
    for wrong in (0.9, [0, 1, 2]):
        archs = jax.tree.map(lambda leaf, wrong=wrong: np.asarray(wrong) * np.ones((3, 1)), FOUR)
        with pytest.raises(UserError, match="archs must be whole numbers with a leading axis of"):
            train_population(KEY, FAMILY, archs, DATA, RECIPE, rates=np.zeros(4))


def test_reference_examples_need_a_space_and_enough_training_examples():
    with pytest.raises(UserError, match="reference is 4, which needs a judge"):
        family_of(nasbench201_small_space(4, 10), reference=4)
    family = FAMILY._replace(reference=len(DATA.train[1]) + 1)
    with pytest.raises(UserError, match="reference is 101, more than the 100 training examples"):
        train_population(KEY, family, FOUR, DATA, RECIPE, rates=np.zeros(4))
