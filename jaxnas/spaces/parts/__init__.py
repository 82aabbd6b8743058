"""The toolkit from which spaces are built.

A space of images is a plan made of pieces; `assemble` makes the rest. Below the pieces are choices and their cells.
"""

from jaxnas.spaces.parts.cells import Cell, Stack
from jaxnas.spaces.parts.checks import at_least_one, known_operations, reference_examples
from jaxnas.spaces.parts.choice import mixed_op
from jaxnas.spaces.parts.graph import CellGraph, EdgeGroup, apply_cell, edge_params, group_of, init_cell, used_cell
from jaxnas.spaces.parts.inherit import fill, linen_network
from jaxnas.spaces.parts.pieces import Fixed, Place, Run, runs
from jaxnas.spaces.parts.skeleton import Plan, StandAlone, assemble, cost_tables, visit_pieces

__all__ = [
    "Cell",
    "CellGraph",
    "EdgeGroup",
    "Fixed",
    "Place",
    "Plan",
    "Run",
    "Stack",
    "StandAlone",
    "apply_cell",
    "assemble",
    "at_least_one",
    "cost_tables",
    "edge_params",
    "fill",
    "group_of",
    "init_cell",
    "known_operations",
    "linen_network",
    "mixed_op",
    "reference_examples",
    "runs",
    "used_cell",
    "visit_pieces",
]
