"""Runs end in the same bits however they are cut, killed or stopped, and say plainly what went wrong."""

import dataclasses
import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.checkpoint import Checkpoints
from jaxnas.run import (
    Interrupted,
    Progress,
    Run,
    Saving,
    Ticker,
    Watch,
    compiled_steps,
    drive,
    enable_compilation_cache,
    environment,
    exit_code,
    parse,
    plain,
    python_steps,
    read_json,
    write_json,
)

ROOT = Path(__file__).resolve().parents[1]
TX = optax.adam(0.05)
NEVER = Saving(seconds=1e9)


def make_data() -> dict[str, jax.Array]:
    x = jax.random.normal(jax.random.key(7), (128, 8))
    return {"x": x, "y": jnp.sin(jnp.sum(x, -1))}


def init_fn(key: jax.Array, data: dict[str, jax.Array]) -> dict:
    params = {"w": 0.3 * jax.random.normal(key, (data["x"].shape[1], 16)), "v": jnp.zeros(16)}
    return {"params": params, "opt_state": TX.init(params), "empty": jnp.zeros((0, 2))}


def step_fn(key: jax.Array, state: dict, data: dict[str, jax.Array]) -> tuple[dict, dict]:
    batch = jax.random.randint(key, (32,), 0, 128)

    def loss_fn(params):
        out = jnp.tanh(data["x"][batch] @ params["w"]) @ params["v"]
        return jnp.mean((out - data["y"][batch]) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state["params"])
    updates, opt_state = TX.update(grads, state["opt_state"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    return state | {"params": params, "opt_state": opt_state}, {
        "loss": loss,
        "grads": {"norm": optax.tree.norm(grads)},
    }


def digest(tree) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()


def advance_of(state, **options):
    return compiled_steps(step_fn, jax.random.key(3), state, make_data(), **options)


# The driver.


def test_bits_do_not_depend_on_the_chunks():
    start = init_fn(jax.random.key(0), make_data())
    whole = advance_of(start, chunk=100)
    state, rows = whole.run(start, 0, 60)
    for options in ({"seconds": 1e-9}, {"stops": (7, None)}, {"stops": (7, 16)}, {"seconds": 1e9}):
        seen = []
        again = drive(whole, start, 60, on_chunk=lambda step, state, rows, seen=seen: seen.extend(rows), **options)
        assert digest(again) == digest(state), options
        assert seen == rows
    other = drive(advance_of(start, chunk=11), start, 60)  # another program: the buffer is shorter
    assert digest(other) == digest(state)
    half = drive(whole, start, 23)
    assert digest(drive(whole, half, 60, first=23)) == digest(state)


def test_each_step_has_its_own_key_and_chunks_end_where_asked():
    key, ends = jax.random.key(5), []

    def step(key, state):
        return state, jax.random.key_data(key)

    rows = []

    def on_chunk(done, state, new):
        ends.append(done)
        rows.extend(new)

    drive(compiled_steps(step, key, {}, chunk=4), {}, 10, stops=(3,), seconds=1e9, on_chunk=on_chunk)
    assert [row["value"] for row in rows] == [
        jax.random.key_data(jax.random.fold_in(key, i)).tolist() for i in range(10)
    ]
    assert {3, 6, 9, 10} <= set(ends)
    _, python = python_steps(lambda key, state: (state, jax.random.key_data(key)), key).run({}, 0, 10)
    assert python == rows


def test_a_phase_is_traced_once():
    start, data = init_fn(jax.random.key(0), make_data()), make_data()
    counted = chex.assert_max_traces(step_fn, n=1)
    advance = compiled_steps(counted, jax.random.key(0), start, data, chunk=8)
    drive(advance, start, 21, seconds=1e9)
    assert advance.compile_seconds > 0


def test_the_callers_arrays_survive_and_leaves_may_share_a_buffer():
    shared = jnp.ones(3)
    start = {"a": shared, "b": shared, "weak": jnp.asarray(1.0), "python": 2, "key": jax.random.key(0)}

    def step(key, state):
        return state | {"a": state["a"] + 1, "weak": state["weak"] * 2.0, "python": state["python"] + 1}, None

    end = drive(compiled_steps(step, jax.random.key(0), start), start, 3)
    assert end["a"].tolist() == [4, 4, 4]
    assert shared.tolist() == [1, 1, 1]
    assert (end["weak"], end["python"]) == (8.0, 5)


def test_sharded_state_stays_sharded():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    start = {"x": jax.device_put(jnp.arange(8.0), split), "mean": jax.device_put(jnp.zeros(()), everywhere)}

    def step(key, state):
        return {"x": state["x"] + 1, "mean": jnp.mean(state["x"])}, {"loss": state["mean"]}

    end = drive(compiled_steps(step, jax.random.key(0), start), start, 5)
    assert end["x"].sharding == split
    np.testing.assert_array_equal(end["x"], np.arange(8.0) + 5)


def test_a_state_of_another_shape_and_a_bug_in_the_step_are_raised():
    with pytest.raises(TypeError, match="carry"):
        compiled_steps(lambda key, x: (jnp.stack([x, x]), None), jax.random.key(0), jnp.zeros(2))
    with pytest.raises(ZeroDivisionError):
        compiled_steps(lambda key, x: (x, 1 // 0), jax.random.key(0), jnp.zeros(2))


# Phases.


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


# The work directory.


@dataclasses.dataclass(frozen=True)
class Search:
    """The search.

    Attributes:
      steps: number of steps.
    """

    steps: int = 10
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration."""

    search: Search = Search()
    seed: int = 0
    data: str = "digits"


PRESETS = {"digits": Config(), "cifar10": Config(Search(steps=1000), data="cifar10")}


def test_another_configuration_is_refused_by_field(tmp_path):
    with Run(tmp_path, PRESETS["digits"], writers=()):
        pass
    with Run(tmp_path, Config(), writers=()):
        pass
    with pytest.raises(ValueError, match=r"search\.steps is 10 there and 1000 here, data is 'digits' there"):
        Run(tmp_path, PRESETS["cifar10"])
    with pytest.raises(ValueError, match="not a configuration of Search"):
        Run(tmp_path, Search())


def test_places_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, expected a directory"):
        Run(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written to"):
        Run(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="cannot be written to"):
        Run("/proc/nowhere")


def test_json_files_are_whole_and_valid(tmp_path):
    value = {"a": jnp.asarray([1.0, jnp.nan]), 2: np.float32(np.inf), "c": Config(), "d": Watch(), "e": Path("x")}
    value["bf16"] = jnp.ones(2, jnp.bfloat16)
    write_json(tmp_path / "deep" / "x.json", value)
    read = json.loads((tmp_path / "deep" / "x.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["a"] == [1.0, "NaN"]
    assert read["2"] == "Infinity"
    assert read["c"]["search"] == {"steps": 10, "rate": 0.1}
    assert read["d"]["show"] == ["loss"]
    assert (read["e"], read["bf16"]) == ("x", [1.0, 1.0])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.json"]
    (tmp_path / "half.json").write_text('{"a": 1')
    assert read_json(tmp_path / "half.json") is read_json(tmp_path / "none.json") is None
    assert plain(True) is True


def test_a_half_written_line_is_cut_off(tmp_path):
    with Run(tmp_path, writers=()) as run:
        run.phase("a", lambda key: jnp.zeros(()), lambda key, x: (x + 1, {"loss": x}), 3)
    for name in ("metrics.jsonl", "timing.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"phase": "a", "st')
    with Run(tmp_path, writers=()) as run:
        run.phase("b", lambda key: jnp.zeros(()), lambda key, x: (x + 1, {"loss": x}), 2)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["phase"], record["step"]) for record in records] == [
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("b", 1),
        ("b", 2),
    ]


def test_tensorboard_is_written_when_installed_and_never_in_the_way(tmp_path, monkeypatch):
    with Run(tmp_path / "a") as run:
        run.phase("search", lambda key: jnp.zeros(()), lambda key, x: (x, {"loss": x}), 2)
    assert [*(tmp_path / "a" / "tensorboard" / "search").glob("events*")]
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with Run(tmp_path / "b") as run:
        run.phase("search", lambda key: jnp.zeros(()), lambda key, x: (x, {"loss": x}), 2)
    assert not (tmp_path / "b" / "tensorboard").exists()


def test_environment_and_cache(tmp_path, monkeypatch):
    found = environment()
    assert found["jax"] == jax.__version__
    assert found["device"] == "cpu"
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40
    former = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "env"))
    try:
        assert enable_compilation_cache() == tmp_path / "env"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "env")
        assert enable_compilation_cache(tmp_path / "given").is_dir()
        (tmp_path / "file").write_text("")
        assert enable_compilation_cache(tmp_path / "file" / "x") is None
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert enable_compilation_cache().parent == tmp_path / ".cache" / "jaxnas"
    finally:
        jax.config.update("jax_compilation_cache_dir", former)


# What a person sees.


def test_lines_instead_of_a_bar(capfd):
    with Progress("search", 10, done=4, every=0.0) as progress:
        progress.update(3, "loss 0.5")
        progress.update(3, "loss 0.4")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("search 7/10, ")
    assert lines[0].endswith(" left, loss 0.5")
    assert lines[-1].endswith("done")
    with Ticker("compiling search", every=0.02) as ticker:
        time.sleep(0.1)
    assert ticker.seconds >= 0.1
    assert "compiling search ... 0 s" in capfd.readouterr().err


def test_a_bar_on_a_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Ticker("compiling search"):
            time.sleep(1.1)
        with Progress("search", 10) as progress:
            progress.update(10, "loss 0.5")
        shown = ""
        while select.select([ours], [], [], 0.2)[0]:
            shown += os.read(ours, 10_000).decode()
    os.close(ours)
    assert "compiling search ... 1 s" in shown
    assert "compiling search: 1.1 s" in shown
    assert "10/10" in shown
    assert "loss 0.5" in shown


# Scripts.


def test_parse_reads_presets_options_and_smoke(capsys):
    assert parse(PRESETS, args=[]).config == Config()
    launch = parse(PRESETS, args=["cifar10", "--search.rate", "0.5", "--seed=4"], system="darts")
    assert launch.config == Config(Search(1000, 0.5), 4, "cifar10")
    assert launch.workdir == Path("runs/darts-cifar10-4")
    small = {"smoke": lambda config: dataclasses.replace(config, search=Search(steps=2))}
    launch = parse(PRESETS, args=["--smoke", "--workdir", "x", "--search.rate=1"], **small)
    assert (launch.config.search, launch.smoke, launch.workdir) == (Search(2, 1.0), True, Path("x"))
    assert parse(PRESETS, args=["--smoke"], system="darts", **small).workdir == Path("runs/darts-digits-0-smoke")
    with pytest.raises(ValueError, match="unknown preset 'digts'; did you mean digits"):
        parse(PRESETS, args=["digts"])
    for words in (["--search.step", "3"], ["--search.steps", "many"], ["--smoke"]):
        with pytest.raises(SystemExit) as stopped:
            parse(PRESETS, args=words)
        assert stopped.value.code == 2
    assert "--search.steps" in capsys.readouterr().err


def test_exit_codes(capsys):
    def interrupt():
        raise Interrupted(signal.SIGTERM)

    def user_error():
        raise ValueError("steps is 0,\n  expected more")

    def key_error():
        raise KeyError("no data set 'x'")

    def subscript_bug():
        return {}["x"]

    def library_bug():
        return np.zeros(2) + np.zeros(3)

    here = (__name__.partition(".")[0],)
    assert exit_code(interrupt) == 143
    assert "the same command goes on from here" in capsys.readouterr().err
    assert exit_code(user_error, packages=here) == 2
    assert capsys.readouterr().err == "error: steps is 0, expected more\n"
    assert exit_code(key_error, packages=here) == 2
    assert capsys.readouterr().err == "error: no data set 'x'\n"
    assert exit_code(lambda: Run("/proc/nowhere")) == 2
    capsys.readouterr()
    for bug in (subscript_bug, library_bug, user_error):
        assert exit_code(bug, packages=() if bug is user_error else here) == 1
        assert capsys.readouterr().err.startswith("Traceback")
    assert exit_code(lambda: None) == 0


SCRIPT = """
    import dataclasses, os, signal, sys, threading
    import jax, jax.numpy as jnp
    from jaxnas.checkpoint import Checkpoints
    from jaxnas.run import Watch, script

    @dataclasses.dataclass(frozen=True)
    class Search:
        steps: int = 200

    @dataclasses.dataclass(frozen=True)
    class Config:
        search: Search = Search()

    event, count, argument = "never", 0, 0.0
    save, saves, evaluations = Checkpoints.save, [], []

    def stopping_save(self, *args, **kwargs):
        saves.append(1)
        if event == "save" and len(saves) == count:
            threading.Timer(argument, os.kill, (os.getpid(), signal.SIGKILL)).start()
        save(self, *args, **kwargs)

    Checkpoints.save = stopping_save

    def evaluate(state):
        evaluations.append(1)
        if event == "evaluate" and len(evaluations) == count:
            os.kill(os.getpid(), argument)
        return {"v": jnp.sum(state)}

    def step(key, x):
        x = x - 0.1 * (x + jax.random.normal(key, x.shape))
        return x, {"loss": jnp.mean(jnp.sin(x) ** 2)}

    def guess(key, best):
        best = min(best, float(jax.random.uniform(key)))
        return best, {"best": best}

    def main(run, config):
        if config.search.steps < 1:
            raise ValueError(f"search.steps is {config.search.steps}, expected at least 1")
        watch = Watch(evaluate=evaluate, evaluate_every=25)
        x = run.phase("search", lambda key: jax.random.normal(key, (1000,)), step, config.search.steps, watch=watch)
        best = run.steps("evolution", lambda key: float("inf"), guess, 5)
        run.finish({"system": "toy", "bits": x.tobytes().hex(), "best": best})

    # One process that has imported everything forks each start of the script, before JAX has started its threads.
    for line in sys.stdin:
        log, *words = line.split()
        if os.fork() == 0:
            if words[0] == "--stop":
                event, count, argument, *words = words[1:]
                count, argument = int(count), (float if event == "save" else int)(argument)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1), os.dup2(output, 2)
            script(main, {"digits": Config()}, system="toy", args=["--checkpoint-seconds", "0", *words])
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    (folder / "toy.py").write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(folder / "toy.py")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def start(workdir: Path, *words: str) -> tuple[int, str]:
        server.stdin.write(" ".join([str(folder / "log"), *words, "--workdir", str(workdir)]) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), (folder / "log").read_text()

    yield start
    server.stdin.close()
    server.stdout.close()
    server.wait(10)


def test_kills_and_signals_end_in_the_same_bits(tmp_path, launch):
    code, output = launch(tmp_path / "whole")
    assert code == 0, output
    stops = [
        ("evaluate 2 9", -9),
        ("save 1 0.0", -9),
        ("save 2 0.03", -9),
        ("save 2 0.07", -9),
        ("evaluate 1 15", 143),
        ("evaluate 1 2", 130),
    ]
    for stop, expected in stops:
        code, output = launch(tmp_path / "cut", "--stop", stop)
        assert code == expected, (stop, output)
        assert "Traceback" not in output
    assert "goes on after step" in output
    code, output = launch(tmp_path / "cut")
    assert code == 0, output
    whole, cut = (read_json(tmp_path / name / "result.json") for name in ("whole", "cut"))
    assert (whole["bits"], whole["best"]) == (cut["bits"], cut["best"])
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_finished_script_prints_its_result_and_user_errors_are_one_line(tmp_path, launch):
    code, first = launch(tmp_path / "a", "--search.steps", "3")
    assert code == 0, first
    code, again = launch(tmp_path / "a", "--search.steps", "3")
    assert code == 0
    assert first.endswith(again)
    assert {"seed", "wall_seconds", "compile_seconds", "device", "jax", "commit"} <= set(json.loads(again))
    code, refused = launch(tmp_path / "a", "--search.steps", "4")
    assert (code, refused.count("\n")) == (2, 1)
    assert "search.steps is 3 there and 4 here" in refused
    code, wrong = launch(tmp_path / "b", "--search.steps", "0")
    assert (code, wrong) == (2, "error: search.steps is 0, expected at least 1\n")
