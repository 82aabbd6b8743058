"""Cells that the authors of DARTS and SNAS found and released, as genotypes: facts to retrain and to test against.

A genotype lists, per kind of cell and per node, the incoming edges as `[operation, source]`;
`space.about.parse(PUBLISHED[name])` gives the architecture.
"""

from typing import Any

__all__ = ["PUBLISHED"]

_SHORT = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}


def _cell(text: str) -> list[list[list[Any]]]:
    """Reads `sep3 0, sep3 1 | skip 0, sep3 1 | ...`, one group per node, an empty one for a node without edges."""
    nodes = [[edge.split() for edge in node.split(",") if edge.strip()] for node in text.split("|")]
    return [[[_SHORT[name], int(source)] for name, source in node] for node in nodes]


def _genotype(normal: str, reduce: str) -> dict[str, Any]:
    return {"normal": _cell(normal), "reduce": _cell(reduce)}


PUBLISHED: dict[str, dict[str, Any]] = {
    "darts_v1": _genotype(
        "sep3 0, sep3 1 | skip 0, sep3 1 | skip 0, sep3 1 | sep3 0, skip 2",
        "max 0, max 1 | max 0, skip 2 | max 0, skip 2 | avg 0, skip 2",
    ),
    "darts_v2": _genotype(
        "sep3 0, sep3 1 | sep3 0, sep3 1 | skip 0, sep3 1 | skip 0, dil3 2",
        "max 0, max 1 | max 1, skip 2 | max 0, skip 2 | max 1, skip 2",
    ),
    "snas_mild": _genotype(
        "sep3 0, sep3 1 | skip 0, dil3 1 | skip 0, skip 1 | skip 0, sep3 1",
        "max 0, max 1 | max 1, skip 2 | max 1, skip 2 | max 0, dil5 2",
    ),
    "snas_moderate": _genotype(
        "dil5 0, skip 1 | sep3 0, skip 1 | skip 0, skip 1 | sep3 0, dil5 1",
        "max 0, max 1 | sep5 0, dil5 1 | sep5 0, sep5 1 | sep5 0, sep5 1",
    ),
    "snas_aggressive": _genotype(
        "sep5 0, skip 1 | skip 0, skip 1 | skip 0, dil5 1 | skip 0, dil5 1",
        "sep5 0 | sep5 0 | | ",
    ),
}
"""Genotypes by name: `darts_v1` and `darts_v2` (first and second order; Liu et al., 2019, arXiv 1806.09055),
`snas_mild`, `snas_moderate` and `snas_aggressive` (three strengths of the resource constraint; Xie et al., 2019,
arXiv 1812.09926)."""
