"""The benchmark of populations runs small, beside another program, and refuses what cannot be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]  # it makes its own devices
SMALL = ("--steps", "2", "--channels", "2", "--batch", "8")


def run(*options):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.population_throughput", *SMALL, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(FLAGS)},
        timeout=600,
    )


@pytest.mark.slow
def test_a_row_for_each_case_beside_another_program(tmp_path):
    other = tmp_path / "other.py"
    other.write_text("print('{\"children_per_hour\": 100}')")
    done = run("--strategies", "shard", "--sizes", "4", "--beside", f"{sys.executable} {other}")
    assert done.returncode == 0, done.stderr
    names, _, row, where = (line.strip("|").split("|") for line in done.stdout.strip().splitlines())
    found = dict(zip((name.strip() for name in names), (entry.strip() for entry in row), strict=True))
    assert (found["strategy"], found["children"], found["beside"]) == ("shard", "4", "100")
    assert int(found["warm"]) > int(found["total"]) > 0
    assert float(found["ratio"]) == round(int(found["total"]) / 100, 2)
    assert json.loads("|".join(where))["devices"] == len(os.sched_getaffinity(0))


def test_bad_sizes_are_one_line():
    done = run("--strategies", "map", "--sizes", "0")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("archs: there is no architecture to train")
