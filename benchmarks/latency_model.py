"""How well does the sum of a latency table predict whole networks on this device, and where does it not?

    python -m benchmarks.latency_model --archs 100 --out runs/latency_model
    python -m benchmarks.latency_model --table latency.json --image 32 32 3 --batch 1

Measures the table block by block, unless one is given, then random architectures as single programs, none of which had
part in the table. Blocks and networks are measured in turn, in several rounds, whose median counts.

Prints Spearman's rank correlation, the mean absolute percentage error and the root mean square error in milliseconds.
Errors are `raw`, and those after a `line` through the points, since the part of a call that is no block is the same for
all networks; `between_rounds` is the rank correlation of two rounds. Then it prints what each block takes inside of a
network, by least squares over all networks if there are enough of them, beside what it takes alone; for the first block
of a stage both count from its first candidate. `points.json` and the table are written into `--out`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import spearmanr

from jaxnas.architectures import decisions
from jaxnas.base import Arch, SearchSpace
from jaxnas.costs import cost
from jaxnas.costs.latency import (
    LatencyTable,
    latency_cost,
    measure_networks,
    measure_space,
    read_latency,
    space_parts,
    write_latency,
)
from jaxnas.errors import UserError
from jaxnas.run import Progress, environment, write_json
from jaxnas.spaces import proxyless_space

SPACE = {
    "widths": (16, 24, 40),
    "blocks": (3, 3, 3),
    "strides": (1, 2, 2),
    "stem_channels": 16,
    "stem_stride": 1,
    "first_channels": 16,
    "last_channels": 128,
    "num_classes": 10,
}


def errors(predicted: np.ndarray, rounds: np.ndarray) -> dict[str, float]:
    """Rank correlation, mean absolute percentage error and root mean square error, raw and after a line.

    Args:
      predicted: the predicted milliseconds of every network.
      rounds: the measured milliseconds, `[R, network]`.
    """
    measured = np.median(rounds, axis=0)
    slope, offset = np.polyfit(predicted, measured, 1)
    found: dict[str, float] = {"spearman": float(spearmanr(predicted, measured)[0])}
    if len(rounds) > 1:
        pairs = [spearmanr(a, b)[0] for i, a in enumerate(rounds) for b in rounds[:i]]
        found["between_rounds"] = float(np.mean(pairs))
    # The line takes up what all networks share, such as the cost of a call.
    for name, values in (("raw", predicted), ("line", slope * predicted + offset)):
        found[f"mape_{name}"] = float(100 * np.mean(np.abs(values / measured - 1)))
        found[f"rmse_{name}"] = float(np.sqrt(np.mean((values - measured) ** 2)))
    return {**found, "slope": float(slope), "offset_ms": float(offset)}


def inside(counts: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The milliseconds of each block inside of a network, by least squares, and their standard errors.

    Args:
      counts: how often each block is in each network, `[network, block]`.
      measured: the measured milliseconds of every network.

    Returns:
      Both as arrays `[block]`, without the constant that all networks share.
    """
    # Ordinary least squares: b = (X'X)^-1 X'y, whose covariance is s^2 (X'X)^-1.
    design = np.concatenate([counts, np.ones((len(counts), 1))], 1).astype(float)
    inverse = np.linalg.pinv(design.T @ design)
    found = inverse @ design.T @ measured
    freedom = max(len(measured) - np.linalg.matrix_rank(design), 1)
    variance = np.sum((measured - design @ found) ** 2) / freedom
    return found[:-1], np.sqrt(variance * np.diag(inverse))[:-1]


def block_counts(space: SearchSpace, shape: tuple[int, int, int], archs: list[Arch]) -> tuple[list[str], np.ndarray]:
    """Names of the blocks to choose from, and how often each is in each network; the first of each stage is left out.

    What the first block of a stage takes is counted from its first candidate, since every network has one of them.
    """
    _, rows = space_parts(space, shape)
    chosen = [
        [row[k].key for kind, places in rows.items() for row, k in zip(places, arch[kind], strict=True) if row[k]]
        for arch in archs
    ]
    always = {row[0].key for places in rows.values() for row in places if all(row)}
    # Blocks of which every network has one of a row would add up to a constant.
    keys = sorted({key for keys in chosen for key in keys} - always)
    return keys, np.array([[blocks.count(key) for key in keys] for blocks in chosen])


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", type=int, default=100, help="held-out architectures")
    parser.add_argument("--image", nargs=3, type=int, default=(32, 32, 3), metavar=("H", "W", "C"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--table", help="a latency table; measured if not given")
    parser.add_argument("--out", type=Path, default=Path("runs/latency_model"))
    args = parser.parse_args(argv)
    if args.archs < 3:
        parser.error("archs must be at least 3")
    space, shape = proxyless_space(**SPACE), tuple(args.image)
    # Held-out architectures, the table of the device, its predictions, and the measured times.
    rows = np.asarray(decisions(space.choices).random(jax.random.key(1), args.archs))
    archs = [jax.device_get(decisions(space.choices).split(row)) for row in rows]
    try:
        table = read_latency(args.table) if args.table else _measured_table(space, shape, args)
        costs = latency_cost(table, space, shape)
    except UserError as error:
        parser.error(str(error))
    predicted = np.array([float(cost(costs, arch)) for arch in archs])
    times = _measured_networks(space, shape, archs, args)
    points = [
        {"arch": row.tolist(), "predicted": p, "measured": rounds.tolist()}
        for row, p, rounds in zip(rows, predicted.tolist(), times.T, strict=True)
    ]
    write_json(args.out / "points.json", points)
    found = {name: round(value, 4) for name, value in errors(predicted, times).items()}
    low, high = np.median(times, axis=0)[[np.argmin(predicted), np.argmax(predicted)]].round(2).tolist()
    print(json.dumps({"archs": len(points), "batch": args.batch, **found, "fastest_ms": low, "slowest_ms": high}))
    _print_blocks(space, shape, archs, np.median(times, axis=0), table)
    print(json.dumps({name: environment()[name] for name in ("device", "devices", "jax", "commit")}))


def _measured_table(space, shape, args) -> LatencyTable:
    """The table of this device, measured and written down."""

    def show(number, count, part):
        print(f"compiled {number}/{count} {part.key}", file=sys.stderr, flush=True)

    table = measure_space(
        space, shape, batch_size=args.batch, rounds=args.rounds, repeats=args.repeats, on_compiled=show
    )
    write_latency(args.out / "latency.json", table)
    return table


def _measured_networks(space, shape, archs, args) -> np.ndarray:
    """The milliseconds of every network, `[R, network]`."""

    def compiled(bar):
        for arch in archs:
            yield arch
            bar.update(1)

    with Progress("networks compiled", len(archs), unit="network") as bar:
        return measure_networks(
            space, compiled(bar), shape, batch_size=args.batch, rounds=args.rounds, repeats=args.repeats
        )


def _print_blocks(space, shape, archs, measured: np.ndarray, table: Any) -> None:
    """Prints what every block takes alone and inside of a network."""
    keys, counts = block_counts(space, shape, archs)
    if len(archs) < 2 * len(keys):
        print(f"left out: what blocks take inside needs {2 * len(keys)} architectures", file=sys.stderr)
        return
    # A candidate of a first block counts from the first one of its row.
    first = {row[0].key: row for places in space_parts(space, shape)[1].values() for row in places if all(row)}
    base = {part.key: table.entries[row[0].key] for row in first.values() for part in row}
    inside_ms, spread = inside(counts, measured)
    print("| block | alone, ms | in a network, ms | difference | standard error |\n| --- |---:|---:|---:|---:|")
    for key, value, error in zip(keys, inside_ms, spread, strict=True):
        alone = table.entries[key] - base.get(key, 0.0)
        print(f"| {key} | {alone:.2f} | {value:.2f} | {value - alone:+.2f} | {error:.2f} |")


if __name__ == "__main__":
    main()
