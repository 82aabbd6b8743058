"""Bias, variance and cost of gradient estimators, against the exact gradient of the expected loss.

    python -m benchmarks.estimator_variance --problem golden --draws 200000
    python -m benchmarks.estimator_variance --problem supernet
    python -m benchmarks.estimator_variance --problem mine:loss --shape 3x4 --estimators exact,gumbel_rao:samples=100

Problems: `golden`, one decision between four options; `three_edge`, three decisions between three; both have a form
with `_binary` for estimators of decisions between two options. `supernet`, NAS-Bench-201 on digits at four moments of
a search; `proxyless`, a chain of inverted bottlenecks on digits at three. `module:function`, a loss of your own:
`function(gates[E, K]) -> scalar`, with JAX.

Columns, of single estimates: `bias` is the norm of mean minus exact gradient, `error` that of its standard errors: what
the noise of the draws alone would show as bias. `max z` is the largest coordinate of the bias in standard errors, above
4.5 no accident, unless few draws have missed an option altogether. `variance` is the trace of the covariance, `mse` the
mean squared distance to the exact gradient, `cosine` the mean cosine to it (0 for an estimate of zero), `cosine of
mean` that of the mean. `evaluations` counts the loss, at architectures and between; `bytes` are the temporaries of one
compiled estimate of the policy's gradient, `µs` the time of one among many. Draws that are not finite are counted and
left out. Control variates keep the parameters they start with, a moving average those it has after 100 estimates.

`--out` receives `table.md`, `estimates.csv`, `variance_temperature.png` and `error_evaluations.png`.
"""

import argparse
import ast
import functools
import importlib
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import estimator_plots as outputs
from benchmarks.estimator_plots import Result, Tally
from benchmarks.problems import PROBLEMS, Problem, find_problem, obstacle
from benchmarks.truth import Case
from jaxnas.base import Estimator, Policy, Tree
from jaxnas.errors import UserError
from jaxnas.estimators import ESTIMATORS, build
from jaxnas.policies import categorical
from jaxnas.run._environment import compiler_options, enable_compilation_cache

CHUNK = {True: 20_000, False: 50}  # draws of one compiled call, vmapped or one after the other
WARM_UP = 100  # estimates before a moving average is frozen
TEMPERATURES = "0.1,0.2,0.5,1,2"


class Spec(NamedTuple):
    """An estimator as the command line names it, `name:setting=value:...`."""

    label: str
    name: str
    settings: dict[str, Any]

    @property
    def unbiased(self) -> bool:
        """For the expected loss."""
        included = self.settings.get("baseline") == "inclusive_average"
        return ESTIMATORS[self.name].unbiased == "expected loss" and not included

    def build(self, policy: Policy, **changes: Any) -> Estimator:
        return build(self.name, policy, **{**self.settings, **changes})


class Sampler:
    """Draws of one estimator, compiled once for all cases of a problem.

    The estimator keeps the state that it has after `warm_up` estimates.
    """

    def __init__(self, estimator: Estimator, case: Case, draws: int, warm_up: int = 0):
        self.chunk = min(draws, CHUNK[case.parallel])

        def one(key, state, logits, params):
            found = estimator.estimate(key, state, logits, case.loss_fn, params)[1].policy_grads
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found)])

        def many(key, state, logits, params):
            keys = jax.random.split(key, self.chunk)
            over = jax.vmap if case.parallel else lambda f: functools.partial(jax.lax.map, f)
            return over(lambda draw: one(draw[0], state, draw[1], params))((keys, logits))

        def start(key, logits, params):
            key_init, key_warm = jax.random.split(key)
            state = estimator.init(key_init, logits)
            if not warm_up:
                return state

            def body(state, key):
                return estimator.estimate(key, state, logits, case.loss_fn, params)[0], None

            return jax.lax.scan(body, state, jax.random.split(key_warm, warm_up))[0]

        self._start = jax.jit(start)
        key = jax.random.key(0)
        state = self._start(key, case.logits, case.params)
        options = None if case.parallel else compiler_options()
        self._one = lambda: jax.jit(one).lower(key, state, case.logits, case.params).compile(options)
        self._many = jax.jit(many).lower(key, state, self._copies(case.logits), case.params).compile(options)

    def _copies(self, logits: Tree) -> Tree:
        """One for each draw, so that the compiler cannot share between draws what a single one has to compute."""
        return jax.tree.map(lambda leaf: jnp.tile(leaf, (self.chunk, 1, 1)), logits)

    def temporaries(self) -> int | None:
        """Bytes of one estimate besides its arguments and its result."""
        found = self._one().memory_analysis()
        return None if found is None else int(found.temp_size_in_bytes)

    def draw(self, case: Case, draws: int, seed: int) -> tuple[Tally, float]:
        """`(tally, microseconds of a draw)`."""
        key_start, key_draws = jax.random.split(jax.random.key(seed))
        rest = (self._start(key_start, case.logits, case.params), self._copies(case.logits), case.params)
        tally, times, turns = Tally(case.truth), [], math.ceil(draws / self.chunk)
        for turn in range(max(turns, 3 if case.parallel else 1)):
            begin = time.perf_counter()
            found = jax.block_until_ready(self._many(jax.random.fold_in(key_draws, turn), *rest))
            times.append(time.perf_counter() - begin)
            if turn < turns:
                tally.add(np.asarray(found)[: draws - turn * self.chunk])
        return tally, statistics.median(times) / self.chunk * 1e6


def evaluations(estimator: Estimator, logits: Tree) -> int:
    """How often one estimate evaluates the loss, counted while it runs on a sum of path weights."""
    seen = []

    def loss_fn(paths, params):
        jax.debug.callback(lambda: seen.append(1))
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(paths.weight)), {}

    key = jax.random.key(0)
    run = jax.jit(lambda logits: estimator.estimate(key, estimator.init(key, logits), logits, loss_fn, {})[1].value)
    jax.block_until_ready(run(logits))
    jax.effects_barrier()
    return len(seen)


def measure(specs: list[Spec], cases: list[Case], draws: int, seed: int = 0) -> Iterator[Result]:
    """Every estimator at every case of a problem; all are compiled first, on all cores, and then timed in turn."""

    policy = categorical(cases[0].logits)

    def prepare(spec):
        estimator = spec.build(policy)
        sampler = Sampler(estimator, cases[0], draws, WARM_UP if "_average" in spec.label else 0)
        return sampler, {"evaluations": evaluations(estimator, cases[0].logits), "bytes": sampler.temporaries()}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        prepared = list(pool.map(prepare, specs))
    for spec, (sampler, cost) in zip(specs, prepared):
        for case in cases:
            tally, microseconds = sampler.draw(case, draws, seed)
            figures = {**cost, **tally.figures(), "microseconds": microseconds, "nonfinite": tally.nonfinite}
            yield Result(case.name, spec.label, tally.count, exact_gradient=case.truth, **figures)


def sweep(specs: list[Spec], cases: list[Case], temperatures: list[float], draws: int, seed: int = 0):
    """`{case: {estimator: [(temperature, variance), ...]}}` of those that have a temperature and a variance."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {case.name: {} for case in cases}
    levels = [(spec, level) for spec in specs for level in temperatures]
    policy = categorical(cases[0].logits)

    def prepare(spec, level):
        if level < 1 and spec.name == "reinmax":
            return None  # which is defined from 1 on
        try:
            return Sampler(spec.build(policy, temperature=level), cases[0], draws)
        except ValueError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        samplers = list(pool.map(prepare, *zip(*levels))) if levels else []
    for (spec, level), sampler in zip(levels, samplers):
        for case in cases if sampler else ():
            variance = sampler.draw(case, draws, seed)[0].figures()["variance"]
            if variance > 0:
                found[case.name].setdefault(spec.label, []).append((level, variance))
    return {case: curves for case, curves in found.items() if curves}


def parse_spec(text: str) -> Spec:
    """Reads `name:setting=value:...`; values that are not Python literals stay text.

    Raises:
      UserError: an unknown estimator or setting, or a form other than this.
    """
    name, *parts = text.split(":")
    settings: dict[str, Any] = {}
    for part in parts:
        setting, equals, value = part.partition("=")
        if not equals or not setting:
            raise UserError(f"estimator {text!r}: {part!r} is not of the form setting=value")
        try:
            settings[setting] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[setting] = value
    spec = Spec(text, name, settings)
    spec.build(categorical({}))
    return spec


def chosen(texts: str | None, name: str, problem: Problem) -> list[Spec]:
    """The estimators asked for, or all that fit the problem."""
    specs = [parse_spec(text) for text in (texts.split(",") if texts else ESTIMATORS)]
    reasons = [obstacle(spec.name, name, problem) for spec in specs]
    if texts and any(reasons):
        raise UserError(next(filter(None, reasons)))
    for reason in filter(None, reasons):
        print(f"left out: {reason}", file=sys.stderr)
    return [spec for spec, reason in zip(specs, reasons) if reason is None]


def run(problem: Problem, specs: list[Spec], draws: int, seed: int, temperatures: list[float], folder: Path) -> None:
    """Measures, prints the tables and writes everything into the folder."""
    binary = [spec for spec in specs if ESTIMATORS[spec.name].binary]
    others = [spec for spec in specs if spec not in binary]
    pairs = ((others, problem.cases), (binary, problem.binary))
    groups = [(group, make(folder)) for group, make in pairs if group and make]
    results: list[Result] = []
    for group, cases in groups:
        print(f"compiling {len(group)} estimators", file=sys.stderr)
        for result in measure(group, cases, draws, seed):
            print(f"{result.case}: {result.estimator} {result.microseconds:.3g} µs a draw", file=sys.stderr)
            results.append(result)
    asked = [spec.label for spec in specs]
    results.sort(key=lambda result: asked.index(result.estimator))
    text = outputs.report(results, {case.name: case for _, cases in groups for case in cases}.values())
    print(text)
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    (folder / "estimates.csv").write_text(outputs.rows(results), encoding="utf-8")
    unbiased = [spec.label for spec in specs if spec.unbiased]
    outputs.error_evaluations(folder / "error_evaluations.png", results, unbiased)
    curves = sweep(others, groups[0][1], temperatures, draws, seed) if others else {}
    if curves:
        outputs.variance_temperature(folder / "variance_temperature.png", curves, unbiased)
    print(f"written to {folder}", file=sys.stderr)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="golden", help=f"{', '.join(PROBLEMS)} or MODULE:FUNCTION")
    parser.add_argument("--shape", help="of your own loss's gates: DECISIONSxOPTIONS")
    parser.add_argument("--logits-seed", type=int, help="random logits for your own loss instead of zeros")
    parser.add_argument("--estimators", help="names with settings, commas between; all that fit by default")
    parser.add_argument("--draws", type=int, help="100,000 by default, on the supernet 100")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweep", help=f"temperatures of the first picture; {TEMPERATURES}, on the supernet none")
    parser.add_argument("--out", type=Path, help="runs/estimator_variance/PROBLEM by default")
    args = parser.parse_args(argv)
    try:
        problem = find_problem(args.problem, args.shape, args.logits_seed)
        draws = problem.draws if args.draws is None else args.draws
        specs = chosen(args.estimators, args.problem, problem)
        if draws < 2:
            raise UserError(f"--draws must be at least 2, got {draws}")
        levels = args.sweep if args.sweep is not None else "" if problem.supernet else TEMPERATURES
        temperatures = sorted(float(level) for level in levels.split(",") if level)
        if not all(level > 0 for level in temperatures):
            raise UserError(f"--sweep: temperatures must be above 0, got {levels}")
        folder = args.out or Path("runs/estimator_variance") / args.problem.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        importlib.import_module("matplotlib")
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    enable_compilation_cache()
    run(problem, specs, draws, args.seed, temperatures, folder)


if __name__ == "__main__":
    main()
