"""A search with several asks out at a time: what it is told, in which order, and how it goes on after a kill."""

import concurrent.futures
import json
import os
import signal
import threading
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.errors import UserError
from jaxnas.policies import categorical, controller
from jaxnas.run import Interrupted, Run, Saving, _in_flight, read_history, search
from jaxnas.searchers import local_search, nas_rl, nsga2, policy_search, random_search, regularized_evolution
from tests.run.toy import NEVER, digest

CHOICES = {"layer": jax.ShapeDtypeStruct((4, 3), jnp.float32), "head": jax.ShapeDtypeStruct((1, 2), jnp.float32)}
EVOLUTION = regularized_evolution(CHOICES, population_size=4, sample_size=2, batch_size=2)
RANDOM = random_search(CHOICES, batch_size=2)
ASKS = 12
SEARCHES = {
    "random": (RANDOM, 1),
    "evolution": (EVOLUTION, 1),
    "policy": (policy_search(categorical(CHOICES), optax.adam(0.3), batch_size=2), 1),
    "nsga2": (nsga2(CHOICES, population_size=4), 2),
    "local": (local_search(CHOICES), 1),  # the only one whose `tell` uses its key
    "nas-rl": (
        nas_rl(controller(CHOICES, num_units=4), optax.adam(0.3), batch_size=2, reward=jnp.exp, replicas=ASKS),
        1,
    ),
}


def total(ids, archs, origins):
    del ids, origins
    return (archs["layer"].sum(1) + archs["head"].sum(1))[:, None]


def both(ids, archs, origins):
    """Two objectives, of which the second one is the first layer."""
    return np.concatenate([total(ids, archs, origins), -archs["layer"][:, :1]], 1)


def run_all(path, evaluate=total, *, box=EVOLUTION, asks=ASKS, in_flight=3, order="proposal", saving=NEVER):
    with Run(path, seed=1, saving=saving, writers=()) as run:
        return search(run, "search", box, evaluate, asks, in_flight=in_flight, order=order)


def bits(found):
    """All that a search must repeat: everything but the seconds."""
    state, history = found
    return digest((state, history._replace(seconds=None)))


def lines(path):
    rows = [json.loads(line) for line in (path / "history" / "search.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def pipeline(key, box, evaluate, in_flight):
    """The search by hand: ask `n` is made after tell `n - in_flight`."""
    key_init, key_steps = jax.random.split(key)
    keys = [jax.random.split(jax.random.fold_in(key_steps, number), 3) for number in range(ASKS)]
    state, waiting, proposed, found = jax.jit(box.init)(key_init), [], [], []
    ask, tell = jax.jit(box.ask), jax.jit(box.tell)
    for number in range(ASKS + in_flight):
        if number >= in_flight:
            archs = waiting.pop(0)
            found.append(evaluate(None, archs, None))
            state, _ = tell(keys[number - in_flight][2], state, archs, jnp.float32(found[-1]))
        if number < ASKS:
            state, archs = ask(keys[number][0], state)
            waiting.append(jax.device_get(archs))
            proposed.append(waiting[-1])
    return state, jax.tree.map(lambda *rows: np.concatenate(rows), *proposed), np.concatenate(found)


@pytest.mark.parametrize("in_flight", [1, 2, 5, ASKS + 3])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_is_the_pipeline_written_by_hand(tmp_path, name, in_flight):
    box, objectives = SEARCHES[name]
    evaluate = total if objectives == 1 else both
    with Run(tmp_path, writers=()) as run:
        key = run.key("search")
        state, history = search(run, "search", box, evaluate, ASKS, in_flight=in_flight)
    expected, archs, fitness = pipeline(key, box, evaluate, in_flight)
    chex.assert_trees_all_equal((history.archs, history.fitness), (archs, fitness))
    chex.assert_trees_all_close(state, expected, rtol=1e-6)
    assert history.ids.tolist() == history.told.tolist() == list(range(len(archs["head"])))
    if name != "random" and in_flight < ASKS:  # one ask more in flight is another search
        other = pipeline(key, box, evaluate, in_flight + 1)[1]
        assert any((one != two).any() for one, two in zip(jax.tree.leaves(other), jax.tree.leaves(archs), strict=True))


class Reversed:
    """Evaluates in threads; of every three asks in a row each one ends after the one that follows it."""

    def __init__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(ASKS)
        self.ended = [threading.Event() for _ in range(ASKS)]
        self.order = []

    def __call__(self, ids, archs, origins):
        return self.pool.submit(self.work, ids[0] // 2, ids, archs, origins)

    def work(self, ask, *children):
        if ask % 3 != 2:
            assert self.ended[ask + 1].wait(60)
        self.order.append(ask)
        self.ended[ask].set()
        return total(*children)


def test_the_order_in_which_children_are_ready_changes_nothing(tmp_path):
    evaluate = Reversed()
    with evaluate.pool:
        found = run_all(tmp_path / "reversed", evaluate)
    assert evaluate.order == [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]
    assert bits(found) == bits(run_all(tmp_path / "calm"))
    assert lines(tmp_path / "reversed") == lines(tmp_path / "calm")


class Stack:
    """Has the newest ask ready as soon as three are out, and all of them after the last one."""

    def __init__(self, size=3):
        self.waiting, self.size, self.most = [], size, 0

    def __call__(self, ids, archs, origins):
        self.waiting.append((concurrent.futures.Future(), total(ids, archs, origins)))
        self.most = max(self.most, len(self.waiting))
        future = self.waiting[-1][0]
        while self.waiting and (len(self.waiting) == self.size or ids[-1] == 2 * ASKS - 1):
            ready, fitness = self.waiting.pop()
            ready.set_result(fitness)
        return future


@pytest.fixture
def never_waits(monkeypatch):
    """At every moment some ask is ready."""
    monkeypatch.setattr(_in_flight, "wait", lambda *_: pytest.fail("waits for an ask beside one that is ready"))


def test_arrival_tells_what_is_ready_and_the_history_says_so(tmp_path, never_waits):
    evaluate = Stack()
    state, history = run_all(tmp_path / "arrival", evaluate, box=RANDOM, order="arrival")
    calm, expected = run_all(tmp_path / "proposal", box=RANDOM)
    assert evaluate.most == 3
    # Random search proposes the same whatever it is told, so that only the order of telling differs.
    chex.assert_trees_all_equal(history._replace(seconds=0, told=0), expected._replace(seconds=0, told=0))
    asks = [*range(2, ASKS - 1), 0, 1, ASKS - 1]  # the last three are ready at one time, and the oldest comes first
    order = [2 * ask + child for ask in asks for child in (0, 1)]
    assert history.told.tolist() == np.argsort(order).tolist()
    assert expected.told.tolist() == expected.ids.tolist()
    assert [row["id"] for row in lines(tmp_path / "arrival")] == order
    jax.tree.map(
        np.testing.assert_array_equal, read_history(tmp_path / "arrival" / "history" / "search.jsonl"), history
    )
    assert float(RANDOM.decode(state)["layer"].sum()) == float(RANDOM.decode(calm)["layer"].sum())


def test_in_order_of_proposal_a_search_waits_for_the_oldest_ask(tmp_path):
    """With the stack, which keeps the first ask to the last, it would never go on."""

    class Late(Stack):
        def __call__(self, ids, archs, origins):
            future = super().__call__(ids, archs, origins)
            if ids[0] == 4:
                os.kill(os.getpid(), signal.SIGTERM)  # the third ask: all that may be out is out
            return future

    evaluate = Late()
    with pytest.raises(Interrupted):
        run_all(tmp_path, evaluate)
    assert len(evaluate.waiting) == 2
    assert all(future.cancelled() for future, _ in evaluate.waiting)
    assert bits(run_all(tmp_path)) == bits(run_all(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("name", "saving", "dies_at"),
    [
        ("evolution", NEVER, 0),
        ("evolution", NEVER, 7),
        ("evolution", Saving(1e9, steps=1), 7),
        ("evolution", Saving(1e9, steps=5), 23),
        ("nas-rl", Saving(1e9, steps=1), 13),
    ],
)
def test_killed_with_asks_out_and_resumed_ends_in_the_same_bits(tmp_path, name, saving, dies_at):
    box, _ = SEARCHES[name]

    def dying(ids, archs, origins):
        if dies_at in ids:
            raise RuntimeError("killed")
        return total(ids, archs, origins)

    whole = run_all(tmp_path / "whole", box=box)
    with pytest.raises(RuntimeError, match="killed"):
        run_all(tmp_path / "killed", dying, box=box, saving=saving)
    assert bits(run_all(tmp_path / "killed", box=box, saving=saving)) == bits(whole)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    first, second = (tmp_path / name / "metrics.jsonl" for name in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()


def test_what_was_out_is_submitted_again_and_what_was_told_is_not(tmp_path):
    seen = []

    def counting(ids, archs, origins):
        seen.append(int(ids[0]) // 2)
        future = concurrent.futures.Future()
        if seen[-1] == 6 and seen.count(6) == 1:
            future.set_exception(RuntimeError("killed"))
        else:
            future.set_result(total(ids, archs, origins))
        return future

    with pytest.raises(RuntimeError, match="killed"):
        run_all(tmp_path, counting, saving=Saving(1e9, steps=1))
    assert seen == list(range(9))  # asks 0 to 5 were told, 6 to 8 were out
    run_all(tmp_path, counting, saving=Saving(1e9, steps=1))
    assert seen == [*range(9), *range(6, ASKS)]


def test_a_search_by_arrival_proposes_under_each_id_what_it_did_before_the_kill(tmp_path, never_waits):
    """Records of children name their architectures; those of the children that were out must still fit."""
    proposed = {}

    class Noting(Stack):
        def __call__(self, ids, archs, origins):
            if len(proposed) == 16:
                raise RuntimeError("killed")
            return self.note(ids, archs) and super().__call__(ids, archs, origins)

        def note(self, ids, archs):
            rows = np.concatenate([archs["layer"], archs["head"]], 1).tolist()
            for number, row in zip(ids.tolist(), rows, strict=True):
                assert proposed.setdefault(number, row) == row
            return True

    with pytest.raises(RuntimeError, match="killed"):
        run_all(tmp_path, Noting(), order="arrival")
    again = Noting()

    def in_order(ids, archs, origins):
        again.note(ids, archs)
        return total(ids, archs, origins)

    _, history = run_all(tmp_path, in_order, order="arrival")
    assert len(proposed) == len(history.ids) == 2 * ASKS
    assert history.told.tolist() != history.ids.tolist()
    np.testing.assert_array_equal(history.fitness, total(None, history.archs, None))
    assert sorted(history.told.tolist()) == list(range(2 * ASKS))


def test_seconds_end_when_the_fitness_is_there(tmp_path, monkeypatch):
    """Not when it is told: ask 1 is ready at 3 and waits for ask 0, which is ready at 10."""
    now, futures = [1.0], [concurrent.futures.Future() for _ in range(2)]
    monkeypatch.setattr(_in_flight, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def wait(*_):
        for now[0], future in ((3.0, futures[1]), (10.0, futures[0])):
            future.set_result(np.zeros((2, 1)))

    monkeypatch.setattr(_in_flight, "wait", wait)
    _, history = run_all(tmp_path, lambda ids, archs, origins: futures[ids[0] // 2], asks=2, in_flight=2)
    assert history.seconds.tolist() == [4.5, 4.5, 1.0, 1.0]


@pytest.mark.parametrize("changes", [{"in_flight": 2}, {"order": "arrival"}])
def test_another_way_to_ask_is_another_search(tmp_path, changes):
    run_all(tmp_path)
    (field,) = changes
    with pytest.raises(UserError, match=field):
        run_all(tmp_path, **changes)


@pytest.mark.parametrize("changes", [{"in_flight": 0}, {"order": "random"}])
def test_settings_out_of_range_are_refused(tmp_path, changes):
    with pytest.raises(UserError, match="in_flight must be at least 1 and order 'proposal' or 'arrival', got "):
        run_all(tmp_path, **changes)


def test_an_ask_without_children_is_refused(tmp_path):
    def ask(key, state):
        state, archs = RANDOM.ask(key, state)
        return state, jax.tree.map(lambda leaf: leaf[:0], archs)

    with pytest.raises(UserError, match="at least one architecture"):
        run_all(tmp_path, box=RANDOM._replace(ask=ask))
