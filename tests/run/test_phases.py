"""Phases end in the same bits however they are cut or stopped, and say plainly what went wrong."""

import json
import os
import signal
import time

import jax
import jax.numpy as jnp
import pytest

from jaxnas.checkpoint import Checkpoints
from jaxnas.run import (
    Interrupted,
    Run,
    Saving,
    Watch,
)
from tests.run.toy import NEVER, digest, init_fn, make_data, step_fn


def run_all(path, *, stop_at=None, saving=NEVER, writers=(), chunk=256, steps=80):
    """Two phases; `stop_at` raises after that record of the first one, as a crash would."""

    class Crash:
        def write(self, step, metrics):
            if metrics["phase"] == "search" and step == stop_at:
                raise RuntimeError("crash")

    watch = Watch(evaluate=lambda state: {"size": jnp.sum(state["params"]["w"] ** 2)}, evaluate_every=25)
    with Run(path, seed=1, saving=saving, writers=[Crash(), *writers], chunk=chunk) as run:
        state = run.phase("search", init_fn, step_fn, steps, data=make_data(), watch=watch)
        other = run.phase("retrain/0", lambda key, data: state | init_fn(key, data), step_fn, 30, data=make_data())
        best = run.steps("evolution", lambda key: (0, float("inf")), python_step, 12, watch=Watch(show=("best",)))
        score = run.once("retrain/0/score", lambda: float(jnp.sum(other["params"]["v"])))
        return run.finish({"digest": digest((state, other, best)), "score": score})


def python_step(key, state):
    count, best = state
    best = min(best, float(jax.random.uniform(key)))
    return (count + 1, best), {"best": best}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference")
    return run_all(path), (path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("stops", "saving", "chunk"),
    [
        ([], Saving(seconds=0.0), 256),
        ([1, 10], Saving(1e9, steps=7), 256),
        ([79, 80, 61], Saving(1e9, steps=30, keep=1), 9),
    ],
)
def test_crashes_and_other_intervals_end_in_the_same_bits(tmp_path, reference, stops, saving, chunk):
    for stop_at in stops:
        with pytest.raises(RuntimeError, match="crash"):
            run_all(tmp_path, stop_at=stop_at, saving=saving, chunk=chunk)
    result = run_all(tmp_path, saving=saving, chunk=chunk)
    assert result["digest"] == reference[0]["digest"]
    assert result["score"] == reference[0]["score"]
    assert (tmp_path / "metrics.jsonl").read_bytes() == reference[1]
    assert not [*tmp_path.rglob("*.tmp")]


def test_a_broken_newest_checkpoint_costs_steps_not_bits(tmp_path, reference, capfd):
    with pytest.raises(RuntimeError, match="crash"):
        run_all(tmp_path, stop_at=70, saving=Saving(1e9, steps=20))
    (tmp_path / "checkpoints" / "search" / "step_60" / "state" / "manifest.ocdbt").write_bytes(b"")
    assert run_all(tmp_path)["digest"] == reference[0]["digest"]
    assert (tmp_path / "metrics.jsonl").read_bytes() == reference[1]
    lines = capfd.readouterr().err.splitlines()
    assert sum("skipped checkpoint" in line for line in lines) == 1
    assert "search goes on after step 40 of 80" in lines


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_raises(tmp_path, reference, signum, code):
    class Stop:
        def write(self, step, metrics):
            if step == 33:
                os.kill(os.getpid(), signum)

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        run_all(tmp_path, writers=[Stop()], chunk=1)
    assert stopped.value.exit_code == code
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert Checkpoints(tmp_path / "checkpoints" / "search").steps() == [33]
    assert run_all(tmp_path)["digest"] == reference[0]["digest"]
    assert (tmp_path / "metrics.jsonl").read_bytes() == reference[1]


def test_a_second_ctrl_c_quits_at_once(tmp_path):
    class Stop:
        def write(self, step, metrics):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, writers=[Stop()])
    assert not (tmp_path / "checkpoints" / "search").exists()


def test_a_signal_during_the_compilation_leaves(tmp_path):
    def slow(key, x):
        os.kill(os.getpid(), signal.SIGTERM)  # while tracing: seen before the compiler starts
        return x + 1, None

    with Run(tmp_path, writers=()) as run, pytest.raises(Interrupted):
        run.phase("slow", lambda key: jnp.zeros(2), slow, 3)
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_phase_is_not_traced_again(tmp_path):
    def refuse(*_):
        raise AssertionError("called again")

    with Run(tmp_path, writers=()) as run:
        state = run.phase("search", init_fn, step_fn, 5, data=make_data())
        run.once("value", lambda: [1, (2, float("nan"))])
    with Run(tmp_path, writers=()) as run:
        assert digest(run.phase("search", init_fn, refuse, 5, data=make_data())) == digest(state)
        assert run.once("value", refuse) == [1, [2, "NaN"]]
        assert run.result is None


def test_metrics_are_rows_of_the_last_evaluation_and_every_so_many_steps(tmp_path):
    watch = Watch(log_every=4, evaluate=lambda x: {"size": x[0]}, evaluate_every=5)
    with Run(tmp_path, writers=()) as run:
        run.phase("a/b", lambda key: jnp.zeros(2), lambda key, x: (x + 1, {"loss": x, "n": x[0] > 1}), 11, watch=watch)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [4, 5, 8, 10, 11]
    assert records[1] == {"phase": "a/b", "step": 5, "loss": [4.0, 4.0], "n": True, "size": 5.0}
    assert [record.get("size") for record in records] == [None, 5.0, None, 10.0, 11.0]
    times = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert times[0]["phase"] == "a/b"
    assert times[0]["seconds"] > times[0]["compile_seconds"] > 0


def test_losses_that_are_not_finite_are_counted_shown_and_spoil_nothing(tmp_path, capfd):
    def step(key, x):
        return x + 1, {"loss": jnp.where(x[0] < 4, x[0], jnp.nan), "bound": jnp.inf}

    saving = Saving(1e9, steps=2)
    with Run(tmp_path, writers=(), saving=saving) as run:
        run.phase("search", lambda key: jnp.zeros(2), step, 10)
        assert run.bad_losses == 6
        run.finish({})
    assert "search: 6 of 10 losses were not finite" in capfd.readouterr().err
    assert Checkpoints(tmp_path / "checkpoints" / "search").steps() == [4, 8, 10]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["loss"] for record in records] == [0.0, 1.0, 2.0, 3.0] + 6 * ["NaN"]
    with Run(tmp_path, writers=()) as run:
        run.phase("search", lambda key: jnp.zeros(2), step, 10)
        assert run.bad_losses == run.result["bad_losses"] == 6


def test_python_steps_may_change_the_shapes_of_the_state(tmp_path):
    def grow(key, state):
        if len(state) == stop:
            raise RuntimeError("crash")
        return [*state, jax.random.normal(key, (len(state) + 1,))], {"size": len(state)}

    def grown(path):
        with Run(path, writers=(), saving=Saving(0.0)) as run:
            options = {"describe": len, "target": lambda size: [jnp.zeros(i + 1) for i in range(size)]}
            return run.steps("population", lambda key: [], grow, 6, **options)

    stop = 4
    with pytest.raises(RuntimeError, match="crash"):
        grown(tmp_path / "a")
    stop = None
    assert digest(grown(tmp_path / "a")) == digest(grown(tmp_path / "b"))
    assert digest(grown(tmp_path / "a")) == digest(grown(tmp_path / "b"))


def test_bad_phases_are_refused(tmp_path):
    init, step = lambda key: jnp.zeros(2), lambda key, x: (x, None)
    with Run(tmp_path, writers=()) as run:
        run.phase("search", init, step, 3, meta={"space": "darts"})
        with pytest.raises(ValueError, match="num_steps is 3, expected 4"):
            run.phase("search", init, step, 4, meta={"space": "darts"})
        with pytest.raises(ValueError, match="space is 'darts', expected 'toy'"):
            run.phase("search", init, step, 3, meta={"space": "toy"})
        with pytest.raises(ValueError, match=r"float32\[2\], expected float32\[3\]"):
            run.phase("search", lambda key: jnp.zeros(3), step, 3)
        with pytest.raises(ValueError, match=r"name is '\.\./x'"):
            run.phase("../x", init, step, 3)
        with pytest.raises(ValueError, match="num_steps is -1"):
            run.phase("other", init, step, -1)
        with pytest.raises(ValueError, match="log_every is 0"):
            run.phase("other", init, step, 1, watch=Watch(log_every=0))
        with pytest.raises(ValueError, match="come together"):
            run.steps("other", init, step, 1, describe=len)
        assert run.phase("nothing", init, step, 0).tolist() == [0, 0]


def test_phases_have_keys_of_their_own(tmp_path):
    with Run(tmp_path, seed=3, writers=()) as run:
        keys = [run.phase(name, lambda key: key, lambda key, x: (x, None), 0) for name in ("a", "b")]
        again = run.key("a")
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == 2
    assert keys[0] == jax.random.split(again)[0]
