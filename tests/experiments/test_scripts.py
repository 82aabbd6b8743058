"""Every script runs small, resumes after being killed, and answers bad input in one line."""

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import common, random_search, snas
from jaxnas.run import Run, exit_code, script

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--smoke", "--network.cells", "1")
TIMES = {"wall_seconds", "compile_seconds", "commit"}  # what another run of the same may differ in


def command(system, workdir, *options):
    preset = [options[0]] if options and not options[0].startswith("-") else []
    return [sys.executable, "-m", f"experiments.{system}", *preset, "--workdir", str(workdir), *options[len(preset) :]]


def start(system, workdir, *options):
    return subprocess.Popen(
        command(system, workdir, *options),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def finish(system, workdir, *options):
    process = start(system, workdir, *options)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def essentials(workdir):
    """Everything that a run leaves behind apart from times, checkpoints and pictures."""
    result = json.loads((workdir / "result.json").read_text())
    return (
        {name: value for name, value in result.items() if name not in TIMES},
        (workdir / "metrics.jsonl").read_text(),
        (workdir / "network.safetensors").read_bytes(),
        (workdir / "architecture.json").read_text(),
    )


@pytest.mark.slow
@pytest.mark.parametrize(  # `darts` is in `test_leakage`, `snas` below, tables in `test_tables`
    ("system", "options"),
    [
        ("retrain", ()),
        ("proxyless", ("--network.widths", "4", "--network.blocks", "2", "--network.strides", "1")),
        ("random_search", ("--network.cells", "1", "--search.candidates", "2")),
    ],
)
def test_smoke(system, options, tmp_path):
    code, out, err = finish(system, tmp_path, "--smoke", *options)
    assert code == 0, err
    check_files(tmp_path, out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("child_gap", ("--network.cells", "1", "--epochs", "1", "--samples", "2")),
        ("latency_sweep", ("--network.widths", "4", "--network.blocks", "2", "--network.strides", "1")),
    ],
)
def test_smoke_of_a_study(system, options, tmp_path):
    code, out, err = finish(system, tmp_path, "digits", "--smoke", *options)
    assert code == 0, err
    assert out.startswith((tmp_path / "table.md").read_text())
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    assert [len(rows) for rows in results.values()] == [1, 1]


def check_files(workdir, out):
    """Everything that a finished run leaves behind."""
    result = json.loads((workdir / "result.json").read_text())
    assert result == json.loads(out)
    for name in ("system", "data", "seed", "steps", "wall_seconds", "compile_seconds", "device", "jax", "commit"):
        assert name in result
    assert set(result["child"]) >= {"val_accuracy_inherited", "test_accuracy_retrained", "parameters", "macs"}
    assert set(result["baseline"]) >= {"random_test_accuracy_mean", "random_test_accuracy_std", "random_children"}
    for name in ("config.yaml", "metrics.jsonl", "architecture.json", "architecture.png", "curves.png"):
        assert (workdir / name).stat().st_size > 0


def rows(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_killed_at_random_moments_ends_in_the_same_bits(tmp_path):
    """The search, the training of what it found and that of the baselines, which `snas` does one after the other."""
    options = (*TINY, "--checkpoint-seconds", "0", "--search.epochs", "4", "--retrain.epochs", "4")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, _, err = finish("snas", whole, *options)
    assert code == 0, err
    moments = random.Random(0)
    marks = sorted(moments.sample(range(1, rows(whole) - 4), 5))
    kinds = (("running", 0.1), ("saving", 0.03))
    deaths = [(mark, kind, moments.uniform(0.0, most)) for mark, (kind, most) in zip(marks, itertools.cycle(kinds))]
    deaths.append((rows(whole) - 4, "generation", 0.0))  # in the midst of the first child
    for mark, *moment in deaths:
        words = ["tests.experiments.dying", "snas", mark, *moment, "--workdir", killed, *options]
        process = subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, timeout=600)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert not (killed / "result.json").exists()
    code, _, err = finish("snas", killed, *options)
    assert code == 0, err
    assert essentials(killed) == essentials(whole)


def brief(**search):
    """A random search of two candidates in the smallest of networks, and how it is started in a directory."""
    config = common.smoke(random_search.PRESETS["digits"])
    network = dataclasses.replace(config.network, cells=1)
    search = dataclasses.replace(config.search, candidates=2, **search)
    config = dataclasses.replace(config, network=network, search=search)

    def start(path):
        with Run(path, config, writers=()) as run:
            if run.result is None:
                random_search.main(run, random_search.prepare(config))
            return run.result

    return start


@pytest.mark.slow
def test_bad_losses_are_shown_and_end_in_no_result(tmp_path, capsys):
    start = brief(learning_rate=1e38)  # far outside of the field's range
    assert exit_code(lambda: start(tmp_path)) == 2
    err = capsys.readouterr().err
    assert "losses were not finite" in err
    assert err.splitlines()[-1].startswith("error: every candidate gives logits that are not finite")
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_bad_checkpoints_are_refused(tmp_path, capsys):
    path, start = tmp_path / "run", brief()
    assert start(path)["bad_losses"] == 0
    (path / "result.json").unlink()
    phases, populations = tmp_path / "phases", tmp_path / "populations"
    for foreign, folder in ((phases, "checkpoints"), (populations, "children")):  # two of one run, exchanged
        shutil.copytree(path, foreign)
        for name, other in (("search", "retrain"), ("retrain", "search")):
            shutil.rmtree(foreign / folder / name)
            shutil.copytree(path / folder / other, foreign / folder / name)
    for array in (file for file in (path / "children").rglob("*") if file.is_file() and file.stat().st_size > 200):
        array.write_bytes(array.read_bytes()[:100])
    for workdir, word in ((path, "none of the"), (phases, "phase"), (populations, "population is [")):
        before = sorted(workdir.rglob("*"))
        capsys.readouterr()
        assert exit_code(lambda workdir=workdir: start(workdir)) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert word in lines[0]
        assert set(before) <= set(workdir.rglob("*"))


def test_bad_input_ends_a_process_with_one_line(tmp_path):
    code, out, err = finish("snas", tmp_path / "run", "--smoke", "--retrain.epochs", "0")
    assert (code, out) == (2, "")
    assert err == "error: --retrain.epochs is 0, expected a whole number in [1, 1_000_000]\n"
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir_and_other_configuration_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("!dataclass:Config\nseed: 7\n")
    for workdir, word in ((tmp_path / "file", "is a file"), (other, "seed is 7 there and 0 here")):
        with pytest.raises(SystemExit) as ended:
            script(
                snas.main,
                snas.PRESETS,
                system="snas",
                prepare=snas.prepare,
                smoke=common.smoke,
                args=["--smoke", "--workdir", str(workdir)],
            )
        err = capsys.readouterr().err
        assert (ended.value.code, err.count("\n"), err[:7]) == (2, 1, "error: "), err
        assert word in err
