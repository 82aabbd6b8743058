"""Presets of NAS-RL on images."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import (
    Count,
    Decay,
    Decays,
    Depth,
    Depths,
    Few,
    FewOrNone,
    Fractions,
    Probability,
    Rate,
    Rates,
    Seed,
    Widths,
)
from experiments.configs.parts import CIFAR10, FASHION_MNIST, DataConfig, TrainConfig
from jaxnas.population import Strategy

Route = Literal["auto", "canvas", "farm"]


@dataclasses.dataclass(frozen=True)
class LayersConfig:
    """What a layer may be, and how many layers there are as the search goes on."""

    filters: Widths = (24, 36, 48, 64)
    """Candidates for the number of filters of a layer."""
    kernels: Depths = (1, 3, 5, 7)
    """Candidates for the height and the width of a filter, odd numbers."""
    strides: Depths | None = None
    """Candidates for the strides along rows and columns, (1, 2, 3) in the paper; none for stride 1 without a choice."""
    order: Literal["conv_bn_relu", "conv_relu_bn"] = "conv_bn_relu"
    """Order of convolution, batch normalisation and ReLU."""
    pooling: Depths | None = None
    """Numbers of layers after which a maximum pooling stands, ascending; none for no pooling."""
    convolutions: Few = 1
    """Convolutions of the densely connected block that each layer stands for."""
    more_filters: FewOrNone = 0
    """Filters of every convolution beside those that it chose."""
    first_layers: Depth = 6
    """Number of layers of the first children."""
    more_layers: Depth = 2
    """Number of layers by which networks grow at a time."""
    grow_every: Count = 1600
    """Number of children after which networks grow."""
    last_layers: Depth = 6
    """Number of layers at which networks stop growing."""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The controller, how it learns, and how children are trained."""

    children: Count = 128
    """Children that each search trains, the controller's and the random one."""
    batch: Few = 8
    """Children from which the controller learns at once."""
    controller_rate: Rate = 6e-4
    """Learning rate of Adam on the controller."""
    baseline_decay: Probability = 0.95
    """Decay of the moving average of earlier rewards."""
    ppo_steps: FewOrNone = 0
    """Optimiser steps of PPO for each batch; 0 for REINFORCE, as in the paper."""
    ppo_clip: Probability = 0.2
    """Distance from 1 at which PPO clips ratios of probabilities."""
    staleness: FewOrNone = 0
    """Simulated age of the parameters that a batch is sampled with, in updates, drawn from 0 to this number."""
    replicas: Few = 1
    """Batches that are out at a time, as with so many replicas of the controller; more than 1 for the farm alone."""
    route: Route = "auto"
    """How children are trained: on a canvas that is one program for all networks of a depth, on a farm with a program
    for each, or auto: the farm where there are several workers or replicas, else the canvas."""
    workers: Few = 1
    """Processes of the farm on this machine."""
    strategy: Strategy = "auto"
    """How children on a canvas run: vmap, map or shard; auto chooses by device."""
    epochs: Count = 50
    """Passes over the examples for the weights, for each child; the best of the last five judgements counts."""
    batch_size: Count = 64
    """Examples per step."""
    learning_rate: Rate = 0.1
    """Learning rate of SGD with Nesterov's momentum 0.9."""
    weight_decay: Decay = 1e-4
    """L2 coefficient of the weights."""
    verified: Few = 3
    """How often the best child of each search is trained anew, to be tested without the luck that made it the best."""


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """The final grid: the best network of the search, trained with every combination of these settings."""

    learning_rate: Rates = (0.05, 0.1, 0.2)
    """First learning rates of SGD with Nesterov's momentum 0.9."""
    weight_decay: Decays = (1e-4, 5e-4)
    """L2 coefficients of the weights."""
    epsilon: Rates = (1e-5, 1e-3)
    """Constants that batch normalisation adds to a variance."""
    decay_at: Fractions = (0.5, 0.75)
    """Parts of the epochs after which the learning rate falls to a tenth."""
    epochs: Count = 20
    """Passes over the examples for the weights."""
    batch_size: Count = 64
    """Examples per step."""
    repeats: Few = 1
    """Trainings of each combination, of which the mean decides."""


@dataclasses.dataclass(frozen=True)
class SkipsConfig:
    """The ablation: the best network with the skips that were found, with all of them and with none."""

    seeds: FewOrNone = 5
    """Trainings of each of the three networks; 0 leaves the ablation out."""
    epochs: Count = 20
    """Passes over all training examples, those for weights and policy together."""
    batch_size: Count = 64
    """Examples per step."""
    learning_rate: Rate = 0.1
    """First learning rate of SGD with Nesterov's momentum 0.9, falling to zero along a cosine."""
    weight_decay: Decay = 1e-4
    """L2 coefficient of the weights."""


@dataclasses.dataclass(frozen=True)
class Config:
    """NAS-RL on images: a controller writes convolutional networks, and every child is trained from scratch."""

    data: DataConfig = DataConfig()
    layers: LayersConfig = LayersConfig()
    search: SearchConfig = SearchConfig()
    grid: GridConfig = GridConfig()
    skips: SkipsConfig = SkipsConfig()
    retrain: TrainConfig = TrainConfig(learning_rate=0.1, weight_decay=1e-4)
    devices: Few | None = None
    """Devices that a CPU is split into; as many as there are cores if not given."""
    seed: Seed = 0
    """Seed of the whole run."""


PRESETS = {
    "digits": Config(
        DataConfig("digits", weights=900, policy=542, crop=1),
        LayersConfig(filters=(6, 9, 12, 16)),
        SearchConfig(epochs=6, controller_rate=5e-3),
    ),
    "fashion-mnist": Config(
        FASHION_MNIST,
        LayersConfig(filters=(6, 9, 12, 16)),
        SearchConfig(epochs=6, controller_rate=5e-3),
        GridConfig(learning_rate=(0.05, 0.1), epochs=10),
        SkipsConfig(epochs=10),
        TrainConfig(epochs=10, learning_rate=0.1, weight_decay=1e-4),
    ),
    "cifar10": Config(
        CIFAR10,
        LayersConfig(last_layers=20),
        SearchConfig(children=12_800),
        GridConfig(epochs=300),
        SkipsConfig(epochs=300),
        TrainConfig(epochs=300, learning_rate=0.1, weight_decay=1e-4),
    ),
}
"""Named configurations.

digits: six layers with a quarter of the paper's filters and 6 epochs for each child, so that 2 x 128 children take
minutes on two cores; the controller learns faster than the paper's, since it sees 16 batches and not 1,600.
fashion-mnist: the same networks on 16x16 images, 6,000 + 6,000 of them. Not yet run here.
cifar10: the paper's filters, depths, children and recipe; batches of 8 children are those of one of its replicas, the
batch size of a child and the lengths of the last trainings are not in the paper. Needs accelerators. Not yet run here.
"""
