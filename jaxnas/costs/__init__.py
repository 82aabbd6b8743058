"""What architectures cost: exact counts, expectations over a policy, and the resource constraint of SNAS."""

from jaxnas.costs.snas import (
    Resources,
    combine,
    operation_resources,
    resource_penalty,
    resource_tables,
    resource_totals,
)
from jaxnas.costs.tables import cost, count_parameters, expected_cost, space_tables

__all__ = [
    "Resources",
    "combine",
    "cost",
    "count_parameters",
    "expected_cost",
    "operation_resources",
    "resource_penalty",
    "resource_tables",
    "resource_totals",
    "space_tables",
]
