"""What architectures cost: exact counts of parameters and multiply-adds, expectations over a policy, and latency."""

from jaxnas.costs.tables import cost, count_parameters, expected_cost, space_tables

__all__ = ["cost", "count_parameters", "expected_cost", "space_tables"]
