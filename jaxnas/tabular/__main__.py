"""`python -m jaxnas.tabular`: what a table holds, and tables from the official files."""

import argparse
import sys
import warnings
from collections.abc import Sequence

import jax
import numpy as np

from jaxnas.command import Parser, answer, check_out
from jaxnas.standard_error import say
from jaxnas.tabular.benchmarks import load
from jaxnas.tabular.convert import add_hw_nas_bench, nats_topology
from jaxnas.tabular.files import save_table
from jaxnas.tabular.table import Table, floats


def main(arguments: Sequence[str] | None = None) -> int:
    """Describes or converts a table; returns 0, or 2 after one line on standard error."""
    parser = Parser(prog="python -m jaxnas.tabular", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    describe = commands.add_parser("describe", help="list the metrics of a benchmark")
    describe.add_argument("benchmark", help="digits, nasbench201:FILE[,LATENCIES], nas-bench-macro:FILE, table:FILE")
    nats = commands.add_parser("nats", help="convert NATS-Bench's directory NATS-tss-v1_0-3ffb9-simple")
    nats.add_argument("directory")
    nats.add_argument("out", help="the .npz to write")
    hardware = commands.add_parser("hw-nas-bench", help="add the devices of HW-NAS-Bench-v1_0.pickle to a benchmark")
    hardware.add_argument("benchmark")
    hardware.add_argument("pickle")
    hardware.add_argument("out", help="the .npz to write")
    hardware.add_argument("--dataset", default="cifar10")
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():  # of records that disagree, in one line each
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *place: say(f"warning: {' '.join(str(message).split())}")
        return answer(lambda: print(_done(options)))


def _done(options: argparse.Namespace) -> str:
    """Does what the command line asks for, and returns the text to print."""
    if options.command == "describe":
        return _described(load(options.benchmark))
    check_out(options.out)
    if options.command == "nats":
        table = nats_topology(options.directory)
    else:
        table = add_hw_nas_bench(load(options.benchmark), options.pickle, dataset=options.dataset)
    return f"{options.out}\nsha256 {save_table(options.out, table)}"


def _described(table: Table) -> str:
    """The shape of a table, and for every metric how many values there are and where they lie."""
    size = len(next(iter(table.metrics.values())))
    leaves = jax.tree_util.tree_leaves_with_path(table.choices)
    shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
    there = size if table.present is None else int(table.present.sum())
    lines = [f"{table.name}: {there} of {size} architectures, decisions {shapes}"]
    for name, values in sorted(table.metrics.items()):
        array = floats(np.asarray(values))
        known = array[np.isfinite(array)]
        runs = f" x {array.shape[1]} runs" if array.ndim == 2 else ""
        digits = ".0f" if np.issubdtype(values.dtype, np.integer) else ".6g"
        span = f"{known.min():{digits}} to {known.max():{digits}}, mean {known.mean():.6g}" if known.size else "nothing"
        lines.append(f"  {name}{runs}: {known.size} values, {span}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
