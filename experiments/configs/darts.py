"""Presets of DARTS."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, Rate
from experiments.configs.parts import CELL_PRESETS, CellConfig, CellSearchConfig


@dataclasses.dataclass(frozen=True)
class SearchConfig(CellSearchConfig):
    """The search of DARTS; defaults are the paper's code except where a preset is small."""

    batch_size: Count = 64
    """Examples per step, of each part."""
    order: Literal["first", "second", "finite_difference"] = "first"
    """First order; or second order exactly (`second`), or by the released finite difference, which is off by a tenth to
    the whole of the gradient because its radius spans kinks of the ReLUs."""
    last_temperature: Rate = 1.0
    """Below 1, the temperature of the softmax falls to this value, linearly over the epochs; the paper has 1."""
    evaluate_epochs: Count = 5
    """Validate after so many epochs."""


@dataclasses.dataclass(frozen=True)
class Config(CellConfig):
    """A DARTS experiment."""

    search: SearchConfig = SearchConfig()


SEARCHES = {
    "digits": SearchConfig(epochs=12, policy_learning_rate=0.04, evaluate_epochs=4),
    "fashion-mnist": SearchConfig(epochs=20, policy_learning_rate=3e-3),
    "cifar10": SearchConfig(epochs=50, order="finite_difference", evaluate_epochs=1),
}
PRESETS = {name: Config(search=search, **CELL_PRESETS[name]) for name, search in SEARCHES.items()}
"""Named configurations.

The learning rate of the logits grows as the number of steps shrinks: the paper has 3e-4 over 19,500 steps.

digits: first-order DARTS on scikit-learn's 8x8 digits. `python -m experiments.darts digits`. Not yet verified.
fashion-mnist: CPU-sized, 16x16 images, 6,000 + 6,000 of them. `python -m experiments.darts fashion-mnist`. Some 45
minutes of search on one CPU core. The search is verified as part of `experiments.child_gap`, the rest not yet.
cifar10: the paper's second-order search (arXiv 1806.09055): 50 epochs, 16 channels, 8 cells; needs an accelerator.
Published test error after 600 epochs at 36 channels and 20 cells: 2.76 +- 0.09 per cent (second order), 3.00 +- 0.14
(first order); retrain with `python -m experiments.retrain cifar10`. Not yet verified here.
"""
