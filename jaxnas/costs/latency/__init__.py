"""Latency of the device at hand: measured block by block, summed over an architecture, and put into the loss."""

from jaxnas.costs.latency.measure import measure_networks, measure_space, median_milliseconds, milliseconds_in_turn
from jaxnas.costs.latency.objectives import latency_objective, policy_probabilities
from jaxnas.costs.latency.table import LatencyTable, latency_cost, read_latency, space_parts, write_latency

__all__ = [
    "LatencyTable",
    "latency_cost",
    "latency_objective",
    "measure_networks",
    "measure_space",
    "median_milliseconds",
    "milliseconds_in_turn",
    "policy_probabilities",
    "read_latency",
    "space_parts",
    "write_latency",
]
