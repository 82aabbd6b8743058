"""Scripts: command lines, exit codes, and starts that are killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jaxnas.errors import UserError
from jaxnas.run import (
    Interrupted,
    Run,
    exit_code,
    parse,
    read_json,
)
from tests.run.toy import PRESETS, Config, Search

ROOT = Path(__file__).resolve().parents[2]


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
    with pytest.raises(ValueError, match=r"options: cifar10.*a preset is the first word: darts cifar10 \.\.\."):
        parse(PRESETS, args=["--seed", "4", "cifar10"], system="darts")
    for words in (["--search.step", "3"], ["--search.steps", "many"], ["--smoke"]):
        with pytest.raises(ValueError, match=words[0]):
            parse(PRESETS, args=words)
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as stopped:
        parse(PRESETS, args=["--help"])
    assert stopped.value.code == 0


def test_exit_codes(capsys):
    def interrupt():
        raise Interrupted(signal.SIGTERM)

    def user_error():
        raise UserError("steps is 0,\n  expected more")

    def plain_error():
        raise ValueError("steps is 0")

    def subscript_bug():
        return {}["x"]

    def library_bug():
        return np.zeros(2) + np.zeros(3)

    assert exit_code(interrupt) == 143
    assert "the same command goes on from here" in capsys.readouterr().err
    assert exit_code(user_error) == 2
    assert capsys.readouterr().err == "error: steps is 0, expected more\n"
    assert exit_code(lambda: Run("/proc/nowhere")) == 2
    capsys.readouterr()
    for bug in (subscript_bug, library_bug, plain_error):
        assert exit_code(bug) == 1
        assert capsys.readouterr().err.startswith("Traceback")
    assert exit_code(lambda: None) == 0


SCRIPT = """
    import dataclasses, os, signal, sys, threading, time
    import jax, jax.numpy as jnp
    from jaxnas.errors import UserError
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
        if event == "save" and len(saves) == count:
            time.sleep(600)  # until the kill, which comes within the save or right after it

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
            raise UserError(f"search.steps is {config.search.steps}, expected at least 1")
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


@pytest.mark.slow
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
