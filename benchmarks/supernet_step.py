"""How long one training step of a supernet takes, how long its compilation, and how much memory it needs.

    python -m benchmarks.supernet_step --space darts --channels 8 --cells 4 --batch 16 --mode bilevel

`--beside COMMAND` runs another program in turn with this one, `--pairs` times, and gives the median of the ratios; the
program's last line must be JSON with an entry `median_s`. On a shared machine only ratios of pairs mean something.
`--floor` adds the least time that the floating-point work and the memory traffic need on this device.

Every program is compiled anew unless `--cache` names a folder; with a folder that has it, `peak_rss_mb` is that of a
process that only steps.
"""

import argparse
import dataclasses
import json
import resource
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.floor import count, peaks
from jaxnas.base import Batch, SearchSpace, sparse_paths
from jaxnas.policies import categorical
from jaxnas.run._environment import compiler_options, enable_compilation_cache, environment
from jaxnas.searchers import classification_loss, darts, sgd_l2, snas
from jaxnas.spaces.registry import build, defaults

MODES = ("bilevel", "joint", "second_order", "finite_difference", "one_path")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: a space, by its settings, and the kind of a step."""

    space: str = "darts"
    mode: str = "bilevel"
    channels: int = 8
    cells: int = 4
    batch: int = 16
    size: int = 32
    dtype: str = "float32"
    lowering: str = "auto"

    def build(self) -> SearchSpace:
        """The space, with those of the settings that it has."""
        known = defaults(self.space)
        return build(self.space, **{name: value for name, value in dataclasses.asdict(self).items() if name in known})


def step_of(case: Case) -> tuple[Callable, Any, tuple]:
    """`(step, state, arguments)` of a case; `step(state, *arguments)` gives the new state and something to look at."""
    # One batch of noise serves as both halves of the data.
    space = case.build()
    key = jax.random.key(0)
    images = jax.random.normal(key, (case.batch, case.size, case.size, 3))
    labels = jax.random.randint(key, (case.batch,), 0, 10)
    data = Batch((images, labels), (images, labels))
    if case.mode == "one_path":
        return _one_path(space, key, data)
    if case.mode == "joint":
        searcher = snas(space)
    else:
        orders = {"bilevel": "first", "second_order": "second", "finite_difference": "finite_difference"}
        searcher = darts(space, order=orders[case.mode])
    state = jax.jit(searcher.init)(key, data)
    return lambda state, key, data: searcher.step(key, state, data), state, (key, data)


def _one_path(space, key, data):
    """Single-path one-shot training: a uniformly drawn architecture a step, only its operations run."""
    loss, tx = classification_loss(space), sgd_l2(0.025)
    params = jax.jit(space.init)(key, data.weights[0])
    policy, uniform = categorical(space.choices), jax.tree.map(lambda c: jnp.zeros(c.shape), space.choices)

    def step(state, key, data):
        params, opt = state
        paths = sparse_paths(policy.sample(key, uniform))
        grad = jax.value_and_grad(lambda params: loss(paths, params, data.weights, None), has_aux=True)
        (value, _), grads = grad(params)
        updates, opt = tx.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), value

    return step, (params, tx.init(params)), (key, data)


class Stepper:
    """A compiled step and its state, warm: one step has run.

    Args:
      case: what is measured.

    Attributes:
      tracing: seconds that tracing and lowering took.
      compilation: seconds that the compiler took.
      lines: number of lines of the program in StableHLO.
    """

    def __init__(self, case: Case):
        # Traced, compiled and run once, each by itself; the state is donated as in a search.
        step, self.state, self.arguments = step_of(case)
        start = time.perf_counter()
        lowered = jax.jit(step, donate_argnums=0).lower(self.state, *self.arguments)
        self.tracing = time.perf_counter() - start
        self.lines = lowered.as_text().count("\n")
        start = time.perf_counter()
        self.compiled = lowered.compile(compiler_options())
        self.compilation = time.perf_counter() - start
        self.run(1)

    def run(self, steps: int) -> float:
        """The median seconds of so many steps."""
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self.state, out = self.compiled(self.state, *self.arguments)
            jax.block_until_ready((self.state, out))
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def floor_of(case: Case) -> dict[str, Any]:
    """The work of a step in plain `lax` form, and the least time that this device needs for it."""
    step, state, arguments = step_of(dataclasses.replace(case, lowering="lax"))
    work, best = count(step, state, *arguments), peaks(case.dtype)
    times = {"flops": work.flops / best.flops, "bytes": work.bytes / best.bytes}
    return {
        "gflop": round(work.flops / 1e9, 2),
        "gigabyte": round(work.bytes / 1e9, 3),
        "floor_s": round(max(times.values()), 5),
        "binds": max(times, key=times.__getitem__),
    }


def measure(case: Case, steps: int, command: str | None, pairs: int) -> dict[str, Any]:
    """The figures of one case, and of another program that runs in turn with it.

    Args:
      case: what is measured.
      steps: number of timed steps in a row.
      command: a command line that prints JSON with `median_s` in its last line, or None.
      pairs: how often the two take turns.
    """
    stepper = Stepper(case)
    # The two programs take turns, so that a slow minute of the machine hits both.
    ours, theirs = [], []
    for _ in range(pairs if command else 1):
        ours.append(stepper.run(steps))
        if command:
            done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
            theirs.append(json.loads(done.stdout.strip().splitlines()[-1])["median_s"])
    found = {
        **dataclasses.asdict(case),
        "median_s": round(statistics.median(ours), 4),
        "compile_s": round(stepper.tracing + stepper.compilation, 1),
        "tracing_s": round(stepper.tracing, 1),
        "temporary_mb": round(stepper.compiled.memory_analysis().temp_size_in_bytes / 1e6, 1),
        "stablehlo_lines": stepper.lines,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if theirs:
        ratios = [round(mine / other, 3) for mine, other in zip(ours, theirs, strict=True)]
        found |= {"beside_s": theirs, "ratios": ratios, "ratio": statistics.median(ratios)}
    return found


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Case):
        choices = MODES if field.name == "mode" else None
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default, choices=choices)
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not")
    parser.add_argument("--cache", type=Path, help="folder of compiled programs")
    parser.add_argument("--beside", metavar="COMMAND", help="a program to run in turn with this one")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--floor", action="store_true", help="count the work and measure the device")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    args = vars(parser.parse_args(argv))
    case = Case(**{field.name: args[field.name] for field in dataclasses.fields(Case)})
    if args["steps"] < 1 or args["pairs"] < 1:
        parser.error("--steps and --pairs must be at least 1")
    if args["cache"]:
        enable_compilation_cache(args["cache"])
    try:
        found = measure(case, args["steps"], args["beside"], args["pairs"])
        found |= floor_of(case) if args["floor"] else {}
    except ValueError as error:
        parser.error(str(error))
    found |= {name: value for name, value in environment().items() if name in ("device", "jax", "commit")}
    print(json.dumps(found) if args["json"] else "\n".join(f"{name:16} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
