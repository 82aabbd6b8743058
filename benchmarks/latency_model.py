"""How well does the sum of a latency table predict whole networks on this device?

    python -m benchmarks.latency_model --archs 100 --out runs/latency_model
    python -m benchmarks.latency_model --table latency.json --image 32 32 3 --batch 1

Measures the table block by block, unless one is given, then random architectures as single programs, none of which had
part in the table. Prints Spearman's rank correlation, the mean absolute percentage error and the root mean square
error in milliseconds; raw, and after a line through the points, as the part of a call that is no block is the same
for all. `points.json` and the table are kept in `--out`, from where the same command goes on.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import spearmanr

from jaxnas.costs import cost
from jaxnas.costs.latency import latency_cost, measure_network, measure_space, read_latency, write_latency
from jaxnas.run import Progress, environment, write_json
from jaxnas.spaces import proxyless_space
from jaxnas.spaces.decisions import decisions

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


def errors(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Rank correlation, mean absolute percentage error and root mean square error, raw and after a straight line."""
    slope, offset = np.polyfit(predicted, measured, 1)
    found: dict[str, float] = {"spearman": float(spearmanr(predicted, measured)[0])}
    for name, values in (("raw", predicted), ("line", slope * predicted + offset)):
        found[f"mape_{name}"] = float(100 * np.mean(np.abs(values / measured - 1)))
        found[f"rmse_{name}"] = float(np.sqrt(np.mean((values - measured) ** 2)))
    return {**found, "slope": float(slope), "offset_ms": float(offset)}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", type=int, default=100, help="held-out architectures")
    parser.add_argument("--image", nargs=3, type=int, default=(32, 32, 3), metavar=("H", "W", "C"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--table", help="a latency table; measured if not given")
    parser.add_argument("--out", type=Path, default=Path("runs/latency_model"))
    args = parser.parse_args(argv)
    if args.archs < 3:
        parser.error("archs must be at least 3")
    space, shape = proxyless_space(**SPACE), tuple(args.image)
    try:
        table = read_latency(args.table) if args.table else _measured(space, shape, args)
        costs = latency_cost(table, space, shape)
    except (ValueError, KeyError) as error:
        parser.error(str(error))
    points = _points(space, shape, costs, args)
    predicted, measured = np.array([[p["predicted"], p["measured"]] for p in points]).T
    found = {name: round(value, 4) for name, value in errors(predicted, measured).items()}
    print(
        json.dumps(
            {"archs": len(points), "batch": args.batch, **found, "from_ms": measured.min(), "to_ms": measured.max()}
        )
    )
    print(json.dumps({name: environment()[name] for name in ("device", "devices", "jax", "commit")}))


def _measured(space, shape, args) -> Any:
    path = args.out / "latency.json"
    if not path.exists():

        def show(number, count, part, milliseconds):
            print(f"{number}/{count} {part.key}: {milliseconds:.3f} ms", file=sys.stderr, flush=True)

        write_latency(path, measure_space(space, shape, batch_size=args.batch, repeats=args.repeats, on_part=show))
    return read_latency(path)


def _points(space, shape, costs, args) -> list[dict[str, Any]]:
    path = args.out / "points.json"
    points = json.loads(path.read_text()) if path.exists() else []
    rows = np.asarray(decisions(space.choices).random(jax.random.key(1), args.archs))
    with Progress("networks", args.archs, done=len(points), unit="network") as bar:
        for row in rows[len(points) :]:
            arch = jax.device_get(decisions(space.choices).split(row))
            measured = measure_network(space, arch, shape, batch_size=args.batch, repeats=args.repeats)
            points.append({"arch": row.tolist(), "predicted": float(cost(costs, arch)), "measured": measured})
            write_json(path, points)
            bar.update(1, f"{measured:.2f} ms")
    return points


if __name__ == "__main__":
    main()
