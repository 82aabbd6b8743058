"""The notation of NAS-Bench-201: a cell as one string, written and read."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnas.base import Arch
from jaxnas.errors import UserError
from jaxnas.spaces.nasbench201.network import EDGES

__all__ = ["genotype", "parse"]


def genotype(operations: Sequence[str], arch: Arch) -> str:
    """The benchmark's string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: per node and source one operation."""
    nodes: list[str] = ["|"] * 3
    for (source, target), k in zip(EDGES, arch["cell"], strict=True):
        nodes[target - 1] += f"{operations[k]}~{source}|"
    return "+".join(nodes)


def parse(operations: Sequence[str], genotype: Any) -> Arch:
    """Reads the benchmark's notation; the order of a node's sources is free.

    Args:
      operations: the candidates of every edge, in order.
      genotype: the string that `genotype` makes, the one that the released code prints around it, `Structure(4 nodes
        with |...|)`, or per node a list of edges `[operation, source]`.

    Raises:
      UserError: another form, or an operation that is not among `operations`.
    """
    # Nodes: from the string, or from lists of edges.
    if isinstance(genotype, str):
        printed = re.fullmatch(r"\w+\(\d+ nodes with (.*)\)", genotype)
        text = printed.group(1) if printed else genotype
        nodes = [[part.split("~", 1) for part in node.strip("|").split("|")] for node in text.split("+")]
    else:
        nodes = [list(node) for node in genotype]
    # Edges: each exactly once, whatever their order.
    found = [(edge, target) for target, node in enumerate(nodes, start=1) for edge in node if len(edge) == 2]
    names = {(str(source), target): name for (name, source), target in found}
    wanted = [(str(source), target) for source, target in EDGES]
    if len(found) != len(EDGES) or set(names) != set(wanted) or not set(names.values()) <= set(operations):
        form, known = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|", ", ".join(operations)
        raise UserError(f"genotype must have the form {form} with operations {known}, got {genotype!r}")
    return {"cell": np.array([operations.index(names[edge]) for edge in wanted], np.int32)}
