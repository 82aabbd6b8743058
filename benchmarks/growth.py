"""How time and memory of a training step grow with batch, channels and cells.

    python -m benchmarks.growth --mode bilevel --batch 16,32,64 --channels 8,16,32 --cells 4,8,12

The first value of each list is the base, from which one size at a time grows. Every point is a process of its own
(`benchmarks.supernet_step`), so that its peak of memory is its own. The slope is that of the logarithms, by least
squares: 1 for what grows in proportion.
"""

import argparse
import json
import subprocess
import sys

import numpy as np

SIZES = {"batch": "16,32,64", "channels": "8,16,32", "cells": "4,8,12"}
FIGURES = ("median_s", "temporary_mb", "peak_rss_mb", "compile_s")


def slope(sizes, values) -> float:
    """Exponent `b` of the power law `values = a sizes^b`, by least squares in logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def points(sizes: dict[str, list[int]]):
    """`(what grows, the size)` for every point, the base once for each list."""
    base = {name: values[0] for name, values in sizes.items()}
    for name, values in sizes.items():
        for value in values:
            yield name, {**base, name: value}


def measure(size: dict[str, int], options: list[str]) -> dict:
    """The figures of one point, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.supernet_step", "--json", *options]
    for name, value in size.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows(sizes: dict[str, list[int]], found: list[dict]) -> list[list]:
    """The table: one row a point, then the slopes of what grew."""
    table = []
    for name, values in sizes.items():
        points_of_name = [figures for grown, figures in found if grown == name]
        for value, figures in zip(values, points_of_name, strict=True):
            table.append([f"{name} {value}", *(figures[figure] for figure in FIGURES)])
        exponents = [slope(values, [figures[figure] for figures in points_of_name]) for figure in FIGURES]
        table.append([f"slope over {name}", *(f"{exponent:.2f}" for exponent in exponents)])
    return table


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, values in SIZES.items():
        parser.add_argument(f"--{name}", default=values, help=f"two or more sizes, {values} by default")
    parser.add_argument("--json", action="store_true", help="one JSON line a point instead of a table")
    args, options = parser.parse_known_args(argv)
    try:
        sizes = {name: [int(value) for value in getattr(args, name).split(",")] for name in SIZES}
    except ValueError:
        parser.error("sizes must be whole numbers with commas between")
    if any(len(set(values)) < 2 for values in sizes.values()):
        parser.error("a slope needs two different sizes of each kind")
    known: dict[tuple, dict] = {}
    found = []
    for name, size in points(sizes):
        at = tuple(size.values())
        try:
            known[at] = known.get(at) or measure(size, options)
        except subprocess.CalledProcessError:
            parser.exit(2)  # the process has said why
        found.append((name, known[at]))
        print(
            json.dumps(known[at]) if args.json else f"{name} {size[name]}: {known[at]['median_s']} s", file=sys.stderr
        )
    print("| size |", " | ".join(FIGURES), "|\n|---|" + "---:|" * len(FIGURES))
    for row in rows(sizes, found):
        print("|", " | ".join(map(str, row)), "|")


if __name__ == "__main__":
    main()
