"""Search spaces: supernets with the rule that reads an architecture from them, and the parts to build one's own."""

from jaxnas.spaces.cell import CellGraph, EdgeGroup, apply_cell, edge_params, init_cell, used_cell
from jaxnas.spaces.chain import as_op, chain_space
from jaxnas.spaces.choice import mixed_op
from jaxnas.spaces.darts import darts_space, snas_space
from jaxnas.spaces.inherit import fill, linen_network
from jaxnas.spaces.nasbench201 import nasbench201_space
from jaxnas.spaces.nasbench201_forms import all_cells, canonical_form, representatives
from jaxnas.spaces.nasbench201_small import live_operations, nasbench201_small_space
from jaxnas.spaces.proxyless import proxyless_space
from jaxnas.spaces.toy import function_space, gates, quadratic_space, table_space
from jaxnas.spaces.tree import proxyless_tree_space

__all__ = [
    "CellGraph",
    "EdgeGroup",
    "all_cells",
    "apply_cell",
    "as_op",
    "canonical_form",
    "chain_space",
    "darts_space",
    "edge_params",
    "fill",
    "function_space",
    "gates",
    "init_cell",
    "linen_network",
    "live_operations",
    "mixed_op",
    "nasbench201_small_space",
    "nasbench201_space",
    "proxyless_space",
    "proxyless_tree_space",
    "quadratic_space",
    "representatives",
    "snas_space",
    "table_space",
    "used_cell",
]
