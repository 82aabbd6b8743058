"""The toolkit from which spaces are built: choices, cells, inheritance of weights, checks of settings."""

from jaxnas.spaces.parts.cell import (
    CellGraph,
    EdgeGroup,
    apply_cell,
    edge_params,
    group_of,
    init_cell,
    output_like,
    used_cell,
)
from jaxnas.spaces.parts.checks import at_least_one, known_operations, reference_examples
from jaxnas.spaces.parts.choice import mixed_op
from jaxnas.spaces.parts.inherit import fill, linen_network

__all__ = [
    "CellGraph",
    "EdgeGroup",
    "apply_cell",
    "at_least_one",
    "edge_params",
    "fill",
    "group_of",
    "init_cell",
    "known_operations",
    "linen_network",
    "mixed_op",
    "output_like",
    "reference_examples",
    "used_cell",
]
