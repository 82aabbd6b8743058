"""Recurrent cells per hour of population training, by strategy and by how many train in one call.

    export XLA_FLAGS=--xla_backend_optimization_level=3
    python -m benchmarks.recurrent_cells --strategies vmap map --sizes 64 192

Each is a random cell of base 2 in the recipe of `experiments.exhaustive_cells`: 16 hidden units, 100 steps of 16
windows of 32 characters, out of 65 different ones at random. `per hour` is by the clock; `processor ms` is the time of
all cores for one cell, which other work on the machine hardly changes. Neither counts compilation. `shard` trains one
after the other on each of `--devices` devices, `map` on one, and `vmap` all cells of a call side by side.
"""

import argparse
import dataclasses
import itertools
import time
from typing import Any

import jax
import numpy as np

from benchmarks.arguments import at_least_one
from benchmarks.rows import measured, print_rows
from experiments.configs.exhaustive_cells import Config
from experiments.text import text_population_data, text_recipe
from jaxnas.architectures import decisions
from jaxnas.data.text import text_of
from jaxnas.population import Family, train_population
from jaxnas.run import split_cpu
from jaxnas.spaces.nas_rl import language_model, recurrent_cell_space


def measure(strategy: str, size: int, steps: int) -> dict[str, Any]:
    """One row of the table: `size` cells in one call, after a call that warms up."""
    config, space = Config(), recurrent_cell_space(2)
    letters = [chr(ord("!") + number) for number in np.random.default_rng(0).integers(0, 65, 1_000_000)]
    text = text_of("".join(letters))
    model = language_model(space, len(text.vocabulary), config.hidden)
    flat = decisions(space.choices)
    archs = flat.split(np.random.default_rng(0).integers(0, flat.counts, (2 * size, len(flat.counts))).astype(np.int32))
    spent: list[tuple[float, float, float]] = []
    found = train_population(
        jax.random.key(0),
        Family(model.init, model.apply),
        archs,
        text_population_data(text, config.recipe.length),
        text_recipe(dataclasses.replace(config.recipe, steps=steps)),
        strategy=strategy,
        chunk=size,
        on_chunk=lambda done, _: spent.append((done, time.perf_counter(), time.process_time())),
        seconds=1e9,  # a call trains whole cells
    )
    # From the end of the first call, which starts threads and allocates, to the end of the last one.
    (before, clock, processor), (after, last_clock, last_processor) = spent[0], spent[-1]
    cells = after - before
    return {
        "strategy": strategy,
        "cells": size,
        "per hour": round(3600 * cells / (last_clock - clock)),
        "processor ms": round(1000 * (last_processor - processor) / cells, 1),
        "finite": int(found.good.sum()),
    }


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["vmap", "map"], choices=["vmap", "map", "shard"])
    parser.add_argument("--sizes", nargs="+", type=at_least_one, default=[64, 192], help="cells in one call")
    parser.add_argument("--steps", type=at_least_one, default=100)
    parser.add_argument("--devices", type=at_least_one, default=1, help="devices to split a CPU into, for shard")
    args = parser.parse_args(argv)
    split_cpu(args.devices)
    cases = itertools.product(args.strategies, args.sizes)
    rows = (measured(parser, measure, strategy, size, args.steps) for strategy, size in cases)
    print_rows(rows, about=("device", "devices", "jax", "commit", "xla_flags"))


if __name__ == "__main__":
    main()
