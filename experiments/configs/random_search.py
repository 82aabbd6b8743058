"""Presets of random search."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, Few, Rate
from experiments.configs.parts import CELL_PRESETS, CellConfig


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Candidates drawn at random and trained briefly."""

    space: Literal["snas", "darts"] = "snas"
    """Whose rule the architectures follow."""
    candidates: Few = 8
    """Architectures to train."""
    epochs: Count = 10
    """Passes over the examples for the weights, for each candidate."""
    batch_size: Count = 64
    """Examples per step."""
    learning_rate: Rate = 0.05
    """First learning rate; falls to zero along a cosine."""


@dataclasses.dataclass(frozen=True)
class Config(CellConfig):
    """A random search."""

    search: SearchConfig = SearchConfig()


SEARCHES = {
    "digits": SearchConfig(),
    "fashion-mnist": SearchConfig(),
    "cifar10": SearchConfig(candidates=24, epochs=25, learning_rate=0.025),
}
PRESETS = {name: Config(search=search, **CELL_PRESETS[name]) for name, search in SEARCHES.items()}
"""Named configurations.

digits: eight candidates on scikit-learn's 8x8 digits. `python -m experiments.random_search digits`.
fashion-mnist: the same, 16x16 images, 6,000 + 6,000 of them. `python -m experiments.random_search fashion-mnist`.
cifar10: 24 candidates at the size of the DARTS search; needs an accelerator. The published random baseline in this
space is a test error of 3.29 +- 0.15 per cent (arXiv 1806.09055, table 1). Not yet verified here.
"""
