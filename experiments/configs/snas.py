"""Presets of SNAS."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, Factor, Probability, Rate
from experiments.configs.parts import CELL_PRESETS, CellConfig, CellSearchConfig


@dataclasses.dataclass(frozen=True)
class SearchConfig(CellSearchConfig):
    """The search of SNAS; defaults are the paper's code except where a preset is small."""

    first_temperature: Rate = 1.0
    """Temperature of the Gumbel-softmax before the first epoch."""
    last_temperature: Rate = 0.03
    """Temperature in the last epoch; linear between, over the epochs of this run."""
    drop_path: Probability = 0.0
    """Probability of dropping an edge's output, per example."""
    resource: Literal["log", "linear"] = "log"
    """How size, FLOPs and memory access of an edge are combined."""
    resource_mode: Literal["reparametrization", "discrete"] = "reparametrization"
    """Cost of the sampled weights, or its expectation."""
    resource_weight: Factor = 0.0
    """Factor of the resource term in the loss; 0 turns it off."""
    evaluate_epochs: Count = 5
    """Validate after so many epochs."""


@dataclasses.dataclass(frozen=True)
class Config(CellConfig):
    """A SNAS experiment."""

    search: SearchConfig = SearchConfig()


SEARCHES = {
    "digits": SearchConfig(epochs=12, policy_learning_rate=0.1, evaluate_epochs=4),
    "fashion-mnist": SearchConfig(epochs=20, policy_learning_rate=9e-3),
    "cifar10": SearchConfig(epochs=150, drop_path=0.3, resource_weight=1.5e-3, evaluate_epochs=1),
}
PRESETS = {name: Config(search=search, **CELL_PRESETS[name]) for name, search in SEARCHES.items()}
"""Named configurations.

The learning rate of the logits grows as the number of steps shrinks: the paper has 3e-4 over 58,500 steps.

digits: SNAS on scikit-learn's 8x8 digits. `python -m experiments.snas digits`. Expected: argmax child above 93 per cent
on validation without retraining, 97 to 99 per cent on test after it, as random networks of this small space reach too.
Under three minutes on two CPU cores, compilation included. Verified 2026-11-22, jax 0.10.2.
fashion-mnist: CPU-sized, 16x16 images, 6,000 + 6,000 of them. `python -m experiments.snas fashion-mnist`. Some twenty
minutes of search on one CPU core. The search is verified as part of `experiments.child_gap`, the rest not yet.
cifar10: the paper's search (arXiv 1812.09926): 150 epochs, 16 channels, 8 cells; needs an accelerator. The published
test error after 600 epochs of retraining at 36 channels and 20 cells is 2.85 +- 0.02 per cent (moderate constraint);
retrain with `python -m experiments.retrain cifar10`. Not yet verified here.
"""
