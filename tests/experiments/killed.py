"""What tests of searches that train whole generations share: a kill in the second one, and what a run leaves behind."""

import json
import signal
import subprocess
import sys

import jax
import numpy as np

from jaxnas.checkpoint import Checkpoints
from jaxnas.run import read_history
from tests.experiments.test_scripts import ROOT, TIMES

CLOCKS = {"seconds", "children_per_hour"}  # what another run of the same search may differ in


def killed_in_second_generation(system, workdir, method, *options):
    """Starts a script that dies when a part of the second generation of four is saved; the steps that were saved."""
    words = ["tests.experiments.dying", system, 1, "generation", 0, "--workdir", workdir, *options]
    process = subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, timeout=600)
    assert process.returncode == -signal.SIGKILL, process.stderr
    return Checkpoints(workdir / "children" / method / "4").steps()


def essentials(workdir):
    """Everything that a run leaves behind apart from times, checkpoints and pictures."""
    result = json.loads((workdir / "result.json").read_text())
    methods = result["search"]["methods"]
    for row in (result, *methods.values()):
        for name in {*TIMES, *CLOCKS} & set(row):
            del row[name]
    histories = [read_history(workdir / "history" / f"{name}.jsonl")._replace(seconds=None) for name in methods]
    files = [(workdir / name).read_bytes() for name in ("metrics.jsonl", "network.safetensors", "architecture.json")]
    return json.dumps(result), jax.tree.map(np.ndarray.tolist, histories), files
