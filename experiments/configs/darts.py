"""Presets of DARTS."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, Decay, LastRate, Rate, Seed
from experiments.configs.parts import DataConfig, NetworkConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The search of DARTS; defaults are the paper's code except where a preset is small."""

    epochs: Count = 25
    """Passes over the examples for the weights."""
    batch_size: Count = 64
    """Examples per step, of each part."""
    learning_rate: Rate = 0.025
    """First learning rate of the weights; a cosine by epochs."""
    last_learning_rate: LastRate = 0.001
    """Where the cosine ends."""
    weight_decay: Decay = 3e-4
    """Of the weights, added to the gradient."""
    policy_learning_rate: Rate = 3e-4
    """Adam on the logits."""
    policy_weight_decay: Decay = 1e-3
    """Of the logits, added to the gradient."""
    order: Literal["first", "second", "finite_difference"] = "first"
    """First order; or second order exactly (`second`), or by the released finite difference, which is off by a tenth to
    the whole of the gradient because its radius spans kinks of the ReLUs."""
    last_temperature: Rate = 1.0
    """Below 1, the temperature of the softmax falls to this value, linearly over the epochs; the paper has 1."""
    evaluate_epochs: Count = 5
    """Validate after so many epochs."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A DARTS experiment."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    search: SearchConfig = SearchConfig()
    retrain: TrainConfig = TrainConfig()
    seed: Seed = 0
    """Seed of the whole run."""


PRESETS = {
    "digits": Config(
        search=SearchConfig(epochs=12, policy_learning_rate=0.04, evaluate_epochs=4),
        retrain=TrainConfig(epochs=8),
    ),
    "fashion-mnist": Config(
        data=DataConfig("fashion-mnist", weights=6000, policy=6000, pad_to=32, shrink=2),
        search=SearchConfig(epochs=20, policy_learning_rate=3e-3),
        retrain=TrainConfig(epochs=10),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", crop=4, flip=True),
        network=NetworkConfig(channels=16, cells=8),
        search=SearchConfig(epochs=50, order="finite_difference", evaluate_epochs=1),
        retrain=TrainConfig(epochs=100, learning_rate=0.025),
    ),
}
"""Named configurations.

The learning rate of the logits grows as the number of steps shrinks: the paper has 3e-4 over 19,500 steps.

digits: first-order DARTS on scikit-learn's 8x8 digits. `python -m experiments.darts digits`. Not yet verified.
fashion-mnist: CPU-sized, 16x16 images, 6,000 + 6,000 of them. `python -m experiments.darts fashion-mnist`. Some 45
minutes of search on one CPU core. The search is verified as part of `experiments.child_gap`, the rest not yet.
cifar10: the paper's second-order search (arXiv 1806.09055): 50 epochs, 16 channels, 8 cells; needs an accelerator.
Published test error after 600 epochs at 36 channels and 20 cells: 2.76 +- 0.09 per cent (second order), 3.00 +- 0.14
(first order); retrain with `python -m experiments.retrain cifar10`. Not yet verified here.
"""
