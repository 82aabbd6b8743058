"""Presets of the evolution."""

import dataclasses

from experiments.configs.kinds import Count, Decay, Few, Names, Rate, Seed, Text
from experiments.configs.parts import CIFAR10, FASHION_MNIST, DataConfig, TrainConfig
from jaxnas.population import Strategy


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Searches that train every child from scratch; each of them trains the same number of children."""

    methods: Names = ("regularized_evolution", "nsga2")
    """Which searches, of regularized_evolution and nsga2; random_search always runs beside them."""
    objectives: Names = ("error", "macs")
    """What is minimised: error (on the validation examples), parameters, macs, latency (of this device, milliseconds).
    Regularised evolution sees the first one alone."""
    children: Count = 64
    """Children that each search trains."""
    population_size: Few = 16
    """Members of the population; NSGA-II proposes so many children at once."""
    sample_size: Few = 5
    """Members of which regularised evolution takes the best as a parent."""
    generation: Few = 8
    """Children that regularised evolution and random search propose at once, to be trained side by side."""
    epochs: Count = 16
    """Passes over the examples for the weights, for each child."""
    batch_size: Count = 64
    """Examples per step."""
    learning_rate: Rate = 0.1
    """First learning rate of SGD with Nesterov's momentum 0.9, falling to zero along a cosine."""
    weight_decay: Decay = 5e-4
    """L2 coefficient of the weights."""
    verified: Few = 3
    """How often the best child of each search is trained anew, to be tested without the luck that made it the best."""
    strategy: Strategy = "auto"
    """How children of one generation run: vmap, map or shard; auto chooses by device."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Evolution in a search space, every child trained from scratch."""

    data: DataConfig = DataConfig()
    space: Text = "nasbench201-small"
    """Name of a space, as `python -m jaxnas.describe` knows it."""
    settings: tuple[Text, ...] = ("channels=4",)
    """Settings of the space, each as NAME=VALUE."""
    search: SearchConfig = SearchConfig()
    retrain: TrainConfig = TrainConfig(epochs=16, learning_rate=0.1, weight_decay=5e-4)
    devices: Few | None = None
    """Devices that a CPU is split into; as many as there are cores if not given."""
    seed: Seed = 0
    """Seed of the whole run."""


PRESETS = {
    "digits": Config(DataConfig("digits", weights=900, policy=542, crop=1)),
    "fashion-mnist": Config(
        FASHION_MNIST,
        settings=("channels=8",),
        search=SearchConfig(epochs=4),
        retrain=TrainConfig(epochs=10, learning_rate=0.1, weight_decay=5e-4),
    ),
    "cifar10": Config(
        CIFAR10,
        space="nasbench201",
        settings=("channels=16", "cells=5"),
        search=SearchConfig(
            children=1000, population_size=50, sample_size=10, generation=25, epochs=12, batch_size=256, strategy="map"
        ),
        retrain=TrainConfig(epochs=200, batch_size=256, learning_rate=0.1, weight_decay=5e-4),
    ),
}
"""Named configurations.

digits: children are trained as in the bundled table (`experiments.exhaustive`).
fashion-mnist: the same space with 8 channels, 16x16 images, 6,000 + 6,000 of them; CPU-sized.
cifar10: the full network of NAS-Bench-201 with its schedule of 12 epochs; needs an accelerator. Not yet run here. Its
children run one after the other: under `vmap` this space would compute every operation of every edge.
"""
