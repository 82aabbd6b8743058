"""The cell space of DARTS and SNAS: supernet, stand-alone network, costs, genotypes, published cells."""

from jaxnas.spaces.darts.network import PRIMITIVES
from jaxnas.spaces.darts.published import PUBLISHED
from jaxnas.spaces.darts.resources import (
    Resources,
    combine,
    operation_resources,
    resource_penalty,
    resource_tables,
    resource_totals,
)
from jaxnas.spaces.darts.space import darts_space, snas_space

__all__ = [
    "PRIMITIVES",
    "PUBLISHED",
    "Resources",
    "combine",
    "darts_space",
    "operation_resources",
    "resource_penalty",
    "resource_tables",
    "resource_totals",
    "snas_space",
]
