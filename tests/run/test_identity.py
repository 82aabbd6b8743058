"""A work directory belongs to one run: its owner, its seed, its configuration, its data, its conditions."""

import dataclasses
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.run import Run, Saving, exit_code
from jaxnas.run import identity as identity_module
from jaxnas.run import phases as phases_module
from tests.run.toy import Config, digest, init_fn, make_data, step_fn

STEPS = 6


class Crash(Exception):
    """The end of a process."""


class Crashing:
    def __init__(self, stop):
        self.stop = stop

    def write(self, step, metrics):
        if step == self.stop:
            raise Crash


def go(path, *, stop=None, config=None, seed=0, data=None, steps=STEPS):
    """One phase of `steps`, a checkpoint after every second one; stopped as by a crash."""
    with Run(path, config, seed=seed, saving=Saving(1e9, steps=2), writers=[Crashing(stop)], chunk=1) as run:
        if run.result is None:
            state = run.phase("search", init_fn, step_fn, steps, data=make_data() if data is None else data)
            run.finish({"digest": digest(state)})
        return run.result


@pytest.fixture
def stopped(tmp_path):
    """The directory of a run of seed 0, stopped after its first checkpoint."""
    with pytest.raises(Crash):
        go(tmp_path / "run", stop=3)
    return tmp_path / "run"


# One owner.


def test_a_second_run_is_refused_in_one_line(tmp_path, capsys):
    with Run(tmp_path, writers=()) as run:
        run.phase("search", init_fn, step_fn, 1, data=make_data())
        assert exit_code(lambda: Run(tmp_path)) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: workdir {tmp_path} is in use by another run")
        refused = []
        thread = threading.Thread(target=lambda: refused.append(exit_code(lambda: Run(tmp_path))))
        thread.start()
        thread.join()
        assert refused == [2]
        run.phase("search", init_fn, step_fn, 1, data=make_data())
    with Run(tmp_path, writers=()):
        pass


def test_a_run_that_failed_to_start_owns_nothing(tmp_path):
    with Run(tmp_path, Config(), writers=()):
        pass
    with pytest.raises(ValueError, match="another configuration"):
        Run(tmp_path, Config(seed=3))
    (tmp_path / "timing.jsonl").unlink()
    (tmp_path / "timing.jsonl").mkdir()
    with pytest.raises(OSError, match=r"timing\.jsonl cannot be written"), Run(tmp_path, Config()):
        pass
    (tmp_path / "timing.jsonl").rmdir()
    with Run(tmp_path, Config(), writers=()):
        pass


def test_a_finished_run_is_read_by_many_and_written_by_one(tmp_path):
    result = go(tmp_path)
    with Run(tmp_path, writers=()) as first, Run(tmp_path, writers=()) as second:
        assert first.result == second.result == result == Run(tmp_path, seed=np.int64(0)).result
        first.once("value", lambda: 1)
        with pytest.raises(ValueError, match="in use by another run"):
            second.once("value", lambda: 2)
    with Run(tmp_path) as third:
        assert third.result == result


# One seed, configuration and data.


def test_another_seed_is_refused(stopped):
    with pytest.raises(ValueError, match="belongs to another run: seed is 0 there and 7 here"):
        go(stopped, seed=7)
    (stopped / "run.json").unlink()
    with pytest.raises(ValueError, match=r"run\.seed is 0, expected 7"):
        go(stopped, seed=7)
    (stopped / "run.json").unlink()
    assert go(stopped)["seed"] == 0
    for lost in ((), ("run.json",)):
        for name in lost:
            (stopped / name).unlink()
        with pytest.raises(ValueError, match="seed is 0 there and 7 here"):
            go(stopped, seed=7)


def test_another_configuration_is_refused_without_config_yaml(tmp_path):
    one, other = Config(), dataclasses.replace(Config(), data="cifar10")
    with pytest.raises(Crash):
        go(tmp_path, stop=3, config=one)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ValueError, match="another configuration: data is 'digits' there and 'cifar10' here"):
        go(tmp_path, config=other)
    assert not (tmp_path / "config.yaml").exists()
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=r"run\.config is \d+, expected \d+"):
        go(tmp_path, config=other)
    for name in ("run.json", "config.yaml"):
        (tmp_path / name).unlink()
    go(tmp_path, config=one)
    assert (tmp_path / "config.yaml").read_text() == text


def test_other_data_are_refused(stopped):
    data = make_data()
    for changed in ({**data, "y": data["y"].at[5].add(1e-6)}, {name: leaf[::-1] for name, leaf in data.items()}):
        with pytest.raises(ValueError, match=r"run\.data is \d+, expected \d+"):
            go(stopped, data=changed)
    assert go(stopped)["seed"] == 0


def test_another_version_of_the_state_is_refused(stopped, monkeypatch):
    monkeypatch.setattr(identity_module, "STATE", 2)
    with pytest.raises(ValueError, match="state is 1 there and 2 here"):
        go(stopped)


# Conditions.


def test_other_conditions_cost_one_line_and_are_recorded(stopped, monkeypatch, capfd):
    here = phases_module.conditions()
    assert {"device", "devices", "processor", "cores", "jax", "jaxlib", "xla_flags", "x64", "prng"} <= set(here)
    moved = {**here, "cores": here["cores"] + 1, "jax": "0.0.1"}
    monkeypatch.setattr(phases_module, "conditions", lambda: moved)
    capfd.readouterr()
    with pytest.raises(Crash):
        go(stopped, stop=5)
    told = [line for line in capfd.readouterr().err.splitlines() if "the bits may differ" in line]
    change = f"search: cores was {here['cores']} and is {here['cores'] + 1}, jax was {here['jax']!r} and is '0.0.1'"
    assert [line.partition(";")[0] for line in told] == [change]
    result = go(stopped)  # the same conditions as before; the move stays on record
    assert "the bits may differ" not in capfd.readouterr().err
    assert result["moves"] == [change]


def test_a_result_says_under_which_conditions_it_was_computed(tmp_path):
    result = go(tmp_path)
    assert {name: result[name] for name in phases_module.conditions()} == phases_module.conditions()
    assert "moves" not in result
    assert "incomplete_metrics" not in result


# Phases that a kept value has gone through.


def study(path, *, stop=None, log=None):
    """Two searches, each inside of a kept value, one loss of each not finite."""

    def step(key, x):
        return x + 1, {"loss": jnp.where(x[0] == 1, jnp.nan, x[0])}

    def one(run, name):
        (log if log is not None else []).append(name)
        return run.phase(name, lambda key: jnp.zeros(2), step, 3).tolist()

    with Run(path, saving=Saving(1e9, steps=1), writers=[Crashing(stop)]) as run:
        values = [run.once(f"found/{name}", lambda name=name: one(run, name)) for name in ("a", "b")]
        state = run.phase("c", lambda key: jnp.zeros(2), step, 5)
        return run.finish({"values": values, "state": state.tolist()})


def test_kept_values_answer_for_the_phases_inside(tmp_path, capfd):
    whole = study(tmp_path / "whole")
    rows = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert whole["bad_losses"] == 3
    for name in ("resumed", "damaged"):
        with pytest.raises(Crash):
            study(tmp_path / name, stop=4)
    log = []
    again = study(tmp_path / "resumed", log=log)
    assert log == []
    assert (again["values"], again["state"], again["bad_losses"]) == (whole["values"], whole["state"], 3)
    assert (tmp_path / "resumed" / "metrics.jsonl").read_bytes() == rows
    lines = rows.splitlines(keepends=True)
    (tmp_path / "damaged" / "metrics.jsonl").write_bytes(
        b"".join(lines[:2] + lines[3:10])
    )  # the last row of `a` is lost
    again = study(tmp_path / "damaged", log=log)
    assert log == ["a"]
    assert (again["values"], again["state"], again["bad_losses"]) == (whole["values"], whole["state"], 3)
    assert (tmp_path / "damaged" / "metrics.jsonl").read_bytes() == rows
    assert "those after step 2 are made again" in capfd.readouterr().err


def test_of_several_processes_the_first_one_owns_and_writes(tmp_path, monkeypatch):
    from jaxnas import checkpoint
    from jaxnas.checkpoint import owner
    from jaxnas.run import runner

    with Run(tmp_path, Config(), writers=()) as first:
        first.once("value", lambda: 1)
        with monkeypatch.context() as patch:
            for module in (checkpoint, owner, runner):
                patch.setattr(module, "is_writer", lambda: False)
            before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            with Run(tmp_path, Config(), writers=()) as other:
                assert (other.once("value", lambda: 2), other.once("more", lambda: 3)) == (1, 3)
                other.save_json("x.json", {})
                assert other.finish({"a": 1})["a"] == 1
            assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
