"""Children per hour of population training, by strategy and population size.

    python -m benchmarks.population_throughput --strategies map shard --sizes 32 256
    python -m benchmarks.population_throughput --strategies shard --sizes 256 --beside "python children.py"

A child is a random cell of NAS-Bench-201 in the small network of two cells, trained on scikit-learn's digits with
Nesterov's momentum. `total` counts everything from the call to the last accuracy, compilation with it; `warm` the time
of the chunks alone. `--devices` splits a CPU into so many devices, for `shard`.

`--beside COMMAND` runs another program after each case, whose last line is JSON with `children_per_hour`, and gives
the ratios: on a shared machine only ratios of neighbours mean something.
"""

import argparse
import itertools
import json
import shlex
import subprocess
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from benchmarks.rows import measured, print_rows
from jaxnas.population import Family, PopulationData, Recipe, family_of, train_population
from jaxnas.run._environment import compiler_options, cores, split_cpu
from jaxnas.spaces import nasbench201_small_space

TRAINING = 1400  # of 1,797 images


def digits_data() -> PopulationData:
    """Images between 0 and 1, the last 397 for the test."""
    images, labels = load_digits(return_X_y=True)
    x, y = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16.0, jnp.float32), jnp.asarray(labels, jnp.int32)
    return PopulationData((x[:TRAINING], y[:TRAINING]), {"test": (x[TRAINING:], y[TRAINING:])})


def digits_family(channels: int, choice: Any = None, reference: int = 256) -> Family:
    """The small space, judged with the statistics of `reference` training images."""
    space, judge = (nasbench201_small_space(channels, 10, choice=choice, reference=r) for r in (0, reference))
    return family_of(space, judge, reference=reference)


def measure(strategy: str, size: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    jax.clear_caches()
    choice = "kernel" if strategy == "vmap" else None
    archs = {"cell": np.random.default_rng(0).integers(0, 5, (size, 6)).astype(np.int32)}
    tx = optax.sgd(0.05, momentum=0.9, nesterov=True)
    started = time.perf_counter()
    found = train_population(
        jax.random.key(0),
        digits_family(args.channels, choice),
        archs,
        digits_data(),
        Recipe(tx, args.steps, args.batch),
        strategy=strategy,
        chunk=min(size, args.chunk),
        compile_fn=lambda lowered: lowered.compile(compiler_options=compiler_options()),
    )
    total, warm = time.perf_counter() - started, found.seconds.sum()
    return {
        "strategy": strategy,
        "children": size,
        "total": round(3600 * size / total),
        "warm": round(3600 * size / warm),
        "compile_s": round(total - warm, 1),
        "accuracy": round(float(found.score["test"][:, -1].mean()), 4),
    }


def beside(command: str, row: dict[str, Any]) -> dict[str, Any]:
    """The other program's children per hour and the ratios to it."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.strip().splitlines()[-1])["children_per_hour"]
    return {"beside": theirs, "ratio": round(row["total"] / theirs, 2), "warm ratio": round(row["warm"] / theirs, 2)}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["map", "vmap", "shard"], choices=["map", "vmap", "shard"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 64, 256])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=64, help="members in one call of the program")
    parser.add_argument("--devices", type=int, default=cores(), help="devices to split a CPU into")
    parser.add_argument("--beside", metavar="COMMAND", help="a program to run after each case")
    args = parser.parse_args(argv)
    split_cpu(args.devices)
    cases = itertools.product(args.strategies, args.sizes)
    rows = (measured(parser, measure, strategy, size, args) for strategy, size in cases)
    print_rows(row | (beside(args.beside, row) if args.beside else {}) for row in rows)


if __name__ == "__main__":
    main()
