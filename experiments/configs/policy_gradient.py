"""Presets of the comparison of NAS-RL with random search."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, FewOrNone, Rates, Seed, Sides, Text


@dataclasses.dataclass(frozen=True)
class Config:
    """Searches of a controller and random searches on a table, over many seeds."""

    table: Text = "digits"
    """Benchmark, as `experiments.tabular` takes it."""
    objective: Text = "-valid_16"
    """The metric that searches see and minimise; a minus in front of one to be maximised."""
    reward: Literal["accuracy", "perplexity"] = "accuracy"
    """The cube of an accuracy in per cent, or 80 over the square of the perplexity of a loss in nats."""
    children: Count = 400
    """Children of each search, the same number for both kinds of search."""
    batch_size: Count = 8
    """Children of each step of the controller."""
    learning_rates: Rates = (6e-4, 5e-3)
    """Of Adam on the controller's parameters, each in searches of its own; the paper has 6e-4."""
    ppo_steps: FewOrNone = 0
    """Steps of PPO for each batch; 0 for one step of REINFORCE."""
    staleness: FewOrNone = 0
    """Greatest number of updates that the parameters of a batch may be behind."""
    top: Sides = (1, 5, 15)
    """Numbers of best distinct children whose mean is compared."""
    seeds: Count = 500
    """Searches of each kind, all in one compiled call."""
    seed: Seed = 0
    """Seed of all of them."""


PRESETS = {"digits": Config(), "cells": Config(table="cells", objective="valid_nats_100", reward="perplexity")}
"""Named configurations.

digits: the bundled table of NAS-Bench-201's cells on digits, by the accuracy after 16 epochs.
cells: the bundled table of recurrent cells on text, by the loss in nats.
"""
