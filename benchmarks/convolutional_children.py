"""Children per hour of NAS-RL's convolutional space: on the canvas, and in programs of their own on a farm.

    python -m benchmarks.convolutional_children --routes map shard farm1 farm2 --children 16
    python -m benchmarks.convolutional_children --filters 4 6 8 12 --routes map shard vmap farm1 farm2

Children are random networks of six layers, trained on scikit-learn's digits with Nesterov's momentum. `map`, `shard`
and `vmap` are the canvas by strategy; `farm1` and `farm2` are programs of their own in one and two processes. `total`
includes compilation and process start; `warm` is training time alone, and for a farm it is divided by the number of
processes. The accuracies say that all routes train the same children.

Start it without JAX_COMPILATION_CACHE_DIR, since a farm's programs would otherwise be those of the run before.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.arguments import at_least_one
from benchmarks.population_throughput import digits_data
from benchmarks.rows import measured, print_rows
from jaxnas.architectures import random_archs
from jaxnas.base import Arch, SearchSpace
from jaxnas.errors import UserError
from jaxnas.population import (
    Family,
    Farm,
    Population,
    Recipe,
    Record,
    layer_family,
    local_processes,
    own_family,
    train_population,
)
from jaxnas.run._environment import compiler_options, cores, split_cpu
from jaxnas.spaces.nas_rl import nas_rl_space

ROUTES = ("map", "shard", "vmap", "farm1", "farm2")
REFERENCE = 256


def make_space(form: dict[str, Any]) -> SearchSpace:
    """The space whose children are trained."""
    return nas_rl_space(form["layers"], 10, filters=tuple(form["filters"]))


def train(family: Family, archs: Arch, seeds: Any, form: dict[str, Any], strategy: str = "map") -> Population:
    """Trains children of a family."""
    return train_population(
        jax.random.key(0),
        family,
        archs,
        digits_data(),
        Recipe(optax.sgd(0.05, momentum=0.9, nesterov=True), form["steps"], form["batch"]),
        seeds=seeds,
        strategy=strategy,
        compile_fn=lambda lowered: lowered.compile(compiler_options=compiler_options()),
    )


def train_child(arch: Arch, seed: int, form: dict[str, Any]) -> dict[str, float]:
    """The child function of the farm: a program of its own."""
    family = own_family(make_space(form), arch, reference=REFERENCE)
    found = train(family, jax.tree.map(lambda leaf: np.asarray(leaf)[None], arch), [seed], form)
    return {"error": 1 - float(found.score["test"][0, -1]), "seconds": float(found.seconds[0])}


def farm_seconds(records: Sequence[Record]) -> float:
    """The seconds of training of all children of a farm; raises `UserError` if one of them failed."""
    seconds = 0.0
    for record in records:
        if record.result is None:
            raise UserError(f"child {record.child['id']} failed: {record.reason}")
        seconds += float(record.result["seconds"])
    return seconds


def measure(route: str, form: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    jax.clear_caches()
    size, archs = form["children"], random_archs(jax.random.key(1), make_space(form), form["children"])
    archs = jax.tree.map(np.asarray, archs)
    processes = int(route.removeprefix("farm")) if route.startswith("farm") else 1
    started = time.perf_counter()
    with Farm(train_child, ("error",), config=form, workers=local_processes(processes)) as farm:
        seeds = [farm.seed_of(number) for number in range(size)]
        if route.startswith("farm"):
            errors = farm.evaluate(range(size), archs)[:, 0]
            seconds = farm_seconds(list(farm.records.values())) / processes
        else:
            found = train(layer_family(make_space(form), reference=REFERENCE), archs, seeds, form, route)
            errors, seconds = 1 - found.score["test"][:, -1], float(found.seconds.sum())
    total = time.perf_counter() - started
    return {
        "route": route,
        "children": size,
        "total": round(3600 * size / total),
        "warm": round(3600 * size / seconds),
        "other_s": round(total - seconds, 1),
        "accuracy": round(1 - float(np.mean(errors)), 4),
    }


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", nargs="+", default=list(ROUTES), choices=ROUTES)
    parser.add_argument("--children", type=at_least_one, default=8)
    parser.add_argument("--steps", type=at_least_one, default=100)
    parser.add_argument("--batch", type=at_least_one, default=64)
    parser.add_argument("--layers", type=at_least_one, default=6)
    parser.add_argument(
        "--filters", nargs="+", type=at_least_one, default=[24, 36, 48, 64], help="the paper's by default"
    )
    parser.add_argument("--devices", type=at_least_one, default=cores(), help="devices to split a CPU into, for shard")
    args = parser.parse_args(argv)
    split_cpu(args.devices)
    form = {name: getattr(args, name) for name in ("children", "steps", "batch", "layers", "filters")}
    print_rows(measured(parser, measure, route, form) for route in args.routes)


if __name__ == "__main__":
    main()
