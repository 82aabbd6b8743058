"""The cell space of NAS-Bench-201: the benchmark's network, a small one, and classes of equivalent cells."""

from jaxnas.spaces.nasbench201.forms import all_cells, canonical_form, representatives
from jaxnas.spaces.nasbench201.network import EDGES, OPERATIONS
from jaxnas.spaces.nasbench201.small import live_operations, nasbench201_small_space
from jaxnas.spaces.nasbench201.space import nasbench201_space

__all__ = [
    "EDGES",
    "OPERATIONS",
    "all_cells",
    "canonical_form",
    "live_operations",
    "nasbench201_small_space",
    "nasbench201_space",
    "representatives",
]
