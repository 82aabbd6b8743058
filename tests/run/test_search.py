"""A search on the host is told what it asked for, in order; stopped anywhere, it ends in the same bits and history."""

import json
import os
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import BlackBox
from jaxnas.checkpoint import Checkpoints
from jaxnas.errors import UserError
from jaxnas.run import Interrupted, Run, Saving, read_history, search
from jaxnas.searchers import nsga2, random_search, regularized_evolution
from tests.run.toy import NEVER, digest

CHOICES = {"layer": jax.ShapeDtypeStruct((4, 3), jnp.float32), "head": jax.ShapeDtypeStruct((1, 2), jnp.float32)}
EVOLUTION = regularized_evolution(CHOICES, population_size=4, sample_size=2, batch_size=3)


def total(ids, archs, origins):
    del ids, origins
    return (archs["layer"].sum(1) + archs["head"].sum(1))[:, None]


class Ancestors(NamedTuple):
    """All architectures told so far; its shapes grow with every ask, as those of a graph search may."""

    rows: np.ndarray
    parents: np.ndarray
    told: int


def growing_search(batch=2):
    """A black box in plain Python. Each child is the next number after that of a parent, drawn from all of them."""

    def init(key):
        del key
        return Ancestors(np.zeros((0, 1), np.int32), np.zeros(0, np.int64), 0)

    def ask(key, state):
        parents = np.asarray(jax.random.randint(key, (batch,), 0, max(state.told, 1))) if state.told else [-1] * batch
        parents = np.asarray(parents, np.int64)
        children = np.where(parents[:, None] < 0, 0, state.rows[parents] + 1 if state.told else 0)
        return state._replace(parents=parents), {"depth": children.astype(np.int32)}

    def tell(key, state, archs, fitness):
        del key, fitness
        rows = np.concatenate([state.rows, archs["depth"]])
        return Ancestors(rows, state.parents, len(rows)), None

    def origins(state):
        return {"parent": state.parents, "operator": np.ones((len(state.parents), 2), np.int64)}

    return BlackBox(init, ask, tell, lambda state: {"depth": state.rows[-1]}, origins)


class Inheriting:
    """An evaluator that keeps its weights under the child's id: a child has one more than its parent."""

    def __init__(self):
        self.weights = {-1: 0.0}

    def __call__(self, ids, archs, origins):
        for child, parent in zip(ids.tolist(), origins["parent"].tolist(), strict=True):
            self.weights[child] = self.weights[parent] + 1.0
        del archs
        return np.array([[-self.weights[child]] for child in ids.tolist()])


def run_all(path, evaluate=total, *, black_box=EVOLUTION, asks=6, saving=NEVER, traced=True):
    with Run(path, seed=1, saving=saving, writers=()) as run:
        return search(run, "search", black_box, evaluate, asks, traced=traced)


def bits(found):
    """All that a search must repeat: everything but the seconds."""
    state, history = found
    return digest((state, history._replace(seconds=None)))


def lines(path, drop=("seconds",)):
    rows = [json.loads(line) for line in (path / "history" / "search.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in drop} for row in rows]


def test_history_is_what_was_proposed_and_found_in_order(tmp_path):
    seen = []

    def evaluate(ids, archs, origins):
        assert origins is None
        seen.append((ids, archs["layer"]))
        return total(ids, archs, origins)

    state, history = run_all(tmp_path, evaluate)
    assert history.ids.tolist() == list(range(18))
    for found, asked in zip((history.ids, history.archs["layer"]), zip(*seen, strict=True), strict=True):
        np.testing.assert_array_equal(found, np.concatenate(asked))
    assert history.archs["head"].shape == (18, 1)
    np.testing.assert_array_equal(history.fitness, total(None, history.archs, None))
    assert (history.seconds > 0).all()
    assert total(None, jax.tree.map(lambda leaf: leaf[None], EVOLUTION.decode(state)), None) == history.fitness.min()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["evaluations"] for row in rows] == [3, 6, 9, 12, 15, 18]
    assert rows[-1]["best"] == history.fitness.min()


def test_the_file_reads_back_as_the_history(tmp_path):
    _, history = run_all(tmp_path)
    read = read_history(tmp_path / "history" / "search.jsonl")
    jax.tree.map(np.testing.assert_array_equal, read, history)
    (tmp_path / "torn.jsonl").write_text('{"id": 0, "arch": {"lay')
    for path in (tmp_path / "none.jsonl", tmp_path / "torn.jsonl"):
        with pytest.raises(UserError, match=r"history .* cannot be read"):
            read_history(path)


@pytest.mark.parametrize("saving", [NEVER, Saving(1e9, steps=1), Saving(1e9, steps=4)])
@pytest.mark.parametrize("dies_at", [0, 5, 11, 17])
def test_killed_in_an_evaluation_and_resumed_ends_in_the_same_bits(tmp_path, saving, dies_at):
    def dying(ids, archs, origins):
        if dies_at in ids:
            raise RuntimeError("killed")
        return total(ids, archs, origins)

    whole = run_all(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run_all(tmp_path / "killed", dying, saving=saving)
    assert bits(run_all(tmp_path / "killed", saving=saving)) == bits(whole)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    first, second = (tmp_path / name / "metrics.jsonl" for name in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()


def test_only_what_came_after_the_last_checkpoint_is_evaluated_again(tmp_path):
    seen = []

    def counting(ids, archs, origins):
        seen.extend(ids.tolist())
        if len(seen) == 15:
            raise RuntimeError("killed")
        return total(ids, archs, origins)

    with pytest.raises(RuntimeError, match="killed"):
        run_all(tmp_path, counting, saving=Saving(1e9, steps=2))
    (tmp_path / "history" / "search.jsonl").write_bytes(b'{"id": 0, "ar')  # torn by the kill
    run_all(tmp_path, counting, saving=Saving(1e9, steps=2))
    assert seen == [*range(15), *range(12, 18)]
    assert [row["id"] for row in lines(tmp_path)] == list(range(18))
    run_all(tmp_path, counting)  # it is finished: nothing is evaluated
    assert len(seen) == 21


def test_a_signal_in_an_evaluation_is_left_to_it_or_taken_after_it(tmp_path):
    def slow(ids, archs, origins):
        if 7 in ids:
            os.kill(os.getpid(), signal.SIGTERM)
        return total(ids, archs, origins)

    with pytest.raises(Interrupted):
        run_all(tmp_path / "stopped", slow)
    assert Checkpoints(tmp_path / "stopped" / "checkpoints" / "search").steps() == [3]
    assert bits(run_all(tmp_path / "stopped")) == bits(run_all(tmp_path / "whole"))


def test_a_state_that_grows_and_weights_kept_by_id(tmp_path):
    """The origins of children reach the evaluator; those of a resumed run are the same, and so are the shapes."""
    evaluator = Inheriting()
    options = {"black_box": growing_search(), "traced": False, "asks": 5}
    whole = run_all(tmp_path / "whole", evaluator, **options)
    state, history = whole
    assert state.rows.shape == (10, 1)
    np.testing.assert_array_equal(-history.fitness[:, 0], history.archs["depth"][:, 0] + 1)
    parents = history.origins["parent"]
    assert parents[:2].tolist() == [-1, -1]
    assert (parents < history.ids // 2 * 2).all()
    assert len(set(history.archs["depth"][:, 0].tolist())) > 2
    assert [row["origin"]["parent"] for row in lines(tmp_path / "whole")] == parents.tolist()

    class Killed(Inheriting):
        def __call__(self, ids, archs, origins):
            if 6 in ids:
                raise RuntimeError("killed")
            return super().__call__(ids, archs, origins)

    killed = Killed()
    with pytest.raises(RuntimeError, match="killed"):
        run_all(tmp_path / "killed", killed, saving=Saving(1e9, steps=1), **options)
    evaluator = Inheriting()
    evaluator.weights = killed.weights  # what an evaluator would have on disk
    assert bits(run_all(tmp_path / "killed", evaluator, saving=Saving(1e9, steps=1), **options)) == bits(whole)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_children_that_fail_never_win_and_are_counted(tmp_path, bad):
    def failing(ids, archs, origins):
        return np.where(ids[:, None] % 2 == 0, bad, total(ids, archs, origins))

    _, history = run_all(tmp_path, failing)
    assert history.good.tolist() == [False, True] * 9
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["bad"] for row in rows] == [2, 1] * 3
    assert rows[-1]["best"] == history.fitness[1::2].min()
    read = read_history(tmp_path / "history" / "search.jsonl")
    np.testing.assert_array_equal(read.fitness, history.fitness)


def test_two_objectives_keep_the_evaluators_numbers(tmp_path):
    def exact(ids, archs, origins):
        return np.concatenate([total(ids, archs, origins), 2**25 + 1.0 + ids[:, None]], 1)

    _, history = run_all(tmp_path, exact, black_box=nsga2(CHOICES, population_size=4), asks=3)
    assert history.fitness[:, 1].tolist() == [2**25 + 1.0 + number for number in range(12)]


@pytest.mark.parametrize("shape", [(3,), (2, 1), (3, 0), ()])
def test_fitness_of_another_shape_is_refused(tmp_path, shape):
    with pytest.raises(UserError, match=r"fitness of shape \(3, objectives\), got"):
        run_all(tmp_path, lambda ids, archs, origins: np.zeros(shape))


def test_another_search_is_refused(tmp_path):
    run_all(tmp_path)
    with pytest.raises(UserError, match="leaf state"):
        run_all(tmp_path, black_box=random_search(CHOICES, batch_size=3))


def test_what_a_search_tells_of_itself_is_recorded(tmp_path):
    """Whatever container it comes in, and beside what the driver counts."""
    made = random_search(CHOICES, batch_size=3)

    def told(key, state, archs, fitness):
        state, info = made.tell(key, state, archs, fitness)
        return state, {"rejected": jnp.float32(7), "bad": info.bad + 1}

    run_all(tmp_path, black_box=made._replace(tell=told))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["rejected"], row["bad"], row["failed"]) for row in rows] == [(7, 1, 0)] * len(rows)
