"""Genotypes of the DARTS cell: from integers to the paper's notation, and back from every form that was released."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnas.errors import UserError
from jaxnas.spaces.darts.network import DartsConfig, edges

__all__ = ["genotype", "parse"]

KINDS = ("normal", "reduce")


def genotype(config: DartsConfig, arch: dict[str, np.ndarray], keep_none: bool) -> dict[str, Any]:
    """The edges of an architecture by name: per cell kind and node, the incoming edges as `[operation, source]`.

    Args:
      config: size of the network.
      arch: operations of the edges, leaves `[E]`.
      keep_none: whether edges with the operation `none` are listed, too.
    """
    found: dict[str, Any] = {}
    for kind, choice in arch.items():
        found[kind] = [[] for _ in range(config.nodes)]
        for (source, target), k in zip(edges(config.nodes), choice, strict=True):
            if keep_none or config.operations[k] != "none":
                found[kind][target - 2].append([config.operations[k], source])
    return found


def parse(config: DartsConfig, genotype: dict[str, Any]) -> dict[str, np.ndarray]:
    """The architecture of a genotype; edges that are not listed are `none`.

    Args:
      config: size of the network.
      genotype: under `normal` and `reduce` either one list of edges `[operation, source]` per node, or the released
        form: the edges of all nodes in one list, two per node or all that a node can have. `normal_concat` and
        `reduce_concat` may stand beside them and must name all nodes.

    Returns:
      Leaves `[E]`, int32.

    Raises:
      UserError: another form, an edge or an operation that the space does not have, an edge twice.
    """
    if not isinstance(genotype, dict):
        raise UserError(f"genotype: expected a dictionary with normal and reduce, got {genotype!r}")
    unknown = sorted(set(genotype) - {*KINDS, *(f"{kind}_concat" for kind in KINDS)})
    if unknown:
        raise UserError(f"genotype: unknown entries {unknown}, accepted are normal, reduce and their _concat")
    # Each kind of cell by itself: its concat, its edges by node, its integers.
    arch = {}
    for kind in KINDS:
        _check_concat(config, kind, genotype.get(f"{kind}_concat"))
        arch[kind] = _cell(config, kind, _by_node(config, kind, genotype.get(kind)))
    return arch


def _check_concat(config: DartsConfig, kind: str, concat: Any) -> None:
    """Raises `UserError` if a cell leaves a node out of its output, or takes one of its inputs into it."""
    nodes = list(range(2, 2 + config.nodes))
    if concat is not None and sorted(concat) != nodes:
        raise UserError(f"genotype: {kind}_concat must be {nodes}, all nodes of the space, got {list(concat)}")


def _by_node(config: DartsConfig, kind: str, cell: Any) -> Sequence[Any]:
    """The incoming edges of every node."""
    if not isinstance(cell, list | tuple):
        raise UserError(f"genotype: expected {config.nodes} nodes under {kind!r}, got {cell!r}")
    # Per node, or the released form with the edges of all nodes in one list.
    is_flat = any(edge and isinstance(edge[0], str) for edge in cell)
    if not is_flat:
        if len(cell) != config.nodes:
            raise UserError(f"genotype: expected {config.nodes} nodes under {kind!r}, got {cell!r}")
        return cell
    # A list says how many edges each node has by its length alone: two, or all that there can be.
    two, every = [2] * config.nodes, [2 + i for i in range(config.nodes)]
    counts = {sum(counts): counts for counts in (two, every)}.get(len(cell))
    if counts is None:
        raise UserError(f"genotype: {kind} must list {sum(two)} or {sum(every)} edges, got {len(cell)}")
    ends = np.cumsum([0, *counts]).tolist()
    return [cell[start:end] for start, end in itertools.pairwise(ends)]


def _cell(config: DartsConfig, kind: str, nodes: Sequence[Any]) -> np.ndarray:
    rows = {ends: row for row, ends in enumerate(edges(config.nodes))}
    found: dict[int, int] = {}
    for node, incoming in enumerate(nodes):  # the paper counts intermediate nodes from 0, edges count inputs too
        for name, source in incoming:
            row = rows.get((source, node + 2))
            if name not in config.operations or row is None:
                raise UserError(f"genotype: no edge {source} -> {node + 2} with operation {name!r}")
            if row in found:
                raise UserError(f"genotype: {kind} has two operations on edge {source} -> {node + 2}")
            found[row] = config.operations.index(name)
    if len(found) < len(rows) and "none" not in config.operations:
        raise UserError(f"genotype: {kind} leaves edges out, and the space has no 'none' to put there")
    return np.array([found[i] if i in found else config.operations.index("none") for i in range(len(rows))], np.int32)
