"""Presets of the searches for a front."""

import dataclasses

from experiments.configs.kinds import Count, Names, Seed, Text
from experiments.configs.tabular import NASBENCH201


@dataclasses.dataclass(frozen=True)
class Config:
    """Searches for the trade-off between two objectives on a table."""

    table: Text = "digits"
    """Benchmark: digits, nasbench201:FILE,LATENCIES, nas-bench-macro:FILE, exhaustive:FILE or table:FILE."""
    accuracy: Text = "valid_16"
    """The metric to be maximised, in per cent."""
    costs: Names = ("macs", "seconds")
    """The metrics to be minimised, each in a search of its own with the accuracy."""
    evaluations: Count = 500
    """Of each search."""
    population_size: Count = 20
    """Of NSGA-II."""
    seeds: Count = 30
    """Searches of each method for each cost."""
    seed: Seed = 0
    """Seed of all of them."""


PRESETS = {
    "digits": Config(),
    "nasbench201": Config(
        table=NASBENCH201,
        accuracy="cifar10_valid_200",
        costs=("latency/raspi4", "latency/pixel3", "latency/1080ti_256"),
    ),
}
"""Named configurations.

digits: the bundled table, against multiply-adds and against seconds of training.
nasbench201: three devices of the latency table. Reads `$JAXNAS_DATA/nasbench201*.npz`.
"""
