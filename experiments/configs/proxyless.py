"""Presets of ProxylessNAS."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import (
    Count,
    Decay,
    Depth,
    Depths,
    Factor,
    Few,
    Positive,
    Probability,
    Rate,
    Seed,
    Sides,
    Text,
    Whole,
    Width,
    Widths,
)
from experiments.configs.parts import CIFAR10, FASHION_MNIST, DataConfig, TrainConfig
from jaxnas.spaces.registry import defaults


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The chain of inverted bottlenecks."""

    widths: Widths = (16, 24, 40)
    """Output channels of every stage."""
    blocks: Depths = (3, 3, 3)
    """Searchable blocks of every stage."""
    strides: Depths = (1, 2, 2)
    """Of the first block of every stage."""
    stem_channels: Width = 16
    """Of the first convolution."""
    stem_stride: Depth = 1
    """Of the first convolution."""
    first_channels: Width = 16
    """Of the fixed block after it."""
    last_channels: Width = 128
    """Before the classifier."""
    kernels: Sides = (3, 5, 7)
    """Sides of the depthwise convolutions to choose from."""
    expansions: Sides = (3, 6)
    """Expansion factors to choose from."""
    dtype: Text = "float32"
    """Of the computation: float32, bfloat16 (weights stay float32), or for checking float64, with JAX_ENABLE_X64=1."""


@dataclasses.dataclass(frozen=True)
class TreeNetworkConfig:
    """The PyramidNet of tree cells."""

    blocks: Depth = 18
    """Cells of every stage."""
    stages: Depth = 3
    """The grid is halved between two of them."""
    stem_channels: Width = 16
    """Of the first convolution."""
    alpha: Positive = 84.0
    """By how much the inner width grows from the first to the last cell."""
    bottleneck: Depth = 4
    """Factor from a cell's inner to its outer width."""
    dtype: Text = "float32"
    """Of the computation: float32, bfloat16 (weights stay float32), or for checking float64, with JAX_ENABLE_X64=1."""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The search; defaults are those of the released code except where a preset is small."""

    mode: Literal["full_v2", "two", "full", "reinforce"] = "full_v2"
    """How the gradient of the architecture is estimated."""
    warmup_epochs: Whole = 5
    """Epochs in which the weights alone train, on paths drawn almost uniformly; 40 for ImageNet."""
    rest_epochs: Whole = 1
    """Epochs after the warm-up in which the architecture does not move yet."""
    epochs: Count = 20
    """All epochs, the warm-up among them; 160 for ImageNet."""
    batch_size: Count = 64
    """Examples per step; 256 for ImageNet."""
    learning_rate: Rate = 0.05
    """First learning rate of the weights, falling to zero along a cosine."""
    weight_decay: Decay = 4e-5
    """Of the weights, added to the gradient."""
    label_smoothing: Probability = 0.1
    """In the loss of the weights."""
    policy_learning_rate: Rate = 0.02
    """Of Adam on the logits; 1e-3 for ImageNet."""
    policy_every: Count = 5
    """One step of the architecture in so many of the weights."""
    skip_zero_sampled: bool = True
    """A block whose sampled operation is zero learns nothing from that batch, as in the released code."""
    num_samples: Few = 10
    """Networks per step of the architecture in mode reinforce."""
    baseline: Literal["inclusive_average", "leave_one_out"] = "inclusive_average"
    """Of mode reinforce; the first is that of the released code, the second unbiased."""
    evaluate_epochs: Count = 5
    """Validate after so many epochs."""


@dataclasses.dataclass(frozen=True)
class LatencyConfig:
    """Latency in the loss."""

    table: Text | None = None
    """JSON or YAML table; measured on the device at hand, block by block, if not given."""
    batch_size: Few = 64
    """Images at a time when it is measured."""
    form: Literal["add#linear", "mul#log", "limit", "none"] = "add#linear"
    """How latency enters the loss; none leaves it out."""
    weight: Factor = 0.1
    """Of the latency term: 0.1 for add#linear and 0.2 for mul#log in the released code."""
    target: Positive | None = None
    """Milliseconds that the term is relative to; the expectation over uniform choices if not given."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A ProxylessNAS experiment."""

    data: DataConfig = DataConfig()
    network: NetworkConfig | TreeNetworkConfig = NetworkConfig()
    search: SearchConfig = SearchConfig()
    latency: LatencyConfig = LatencyConfig()
    retrain: TrainConfig = TrainConfig()
    seed: Seed = 0
    """Seed of the whole run."""


# The paper's network has the default sizes of the space itself.
IMAGENET = NetworkConfig(
    **{field.name: defaults("proxyless")[field.name] for field in dataclasses.fields(NetworkConfig)}
)
# 5,000 of the training images judge architectures, as in the paper.
PARTED_CIFAR10 = dataclasses.replace(CIFAR10, weights=45_000, policy=5_000)
PRESETS = {
    "digits": Config(
        network=NetworkConfig((8, 16), (2, 2), (1, 2), 8, 1, 8, 32, (3, 5), (3,)),
        search=SearchConfig(warmup_epochs=3, epochs=15, policy_learning_rate=0.05),
        retrain=TrainConfig(epochs=8, random_children=2),
    ),
    "fashion-mnist": Config(data=FASHION_MNIST, retrain=TrainConfig(epochs=10)),
    "cifar10": Config(
        data=PARTED_CIFAR10,
        network=NetworkConfig((24, 40, 80), (4, 4, 4), (1, 2, 2), 32, 1, 16, 320),
        search=SearchConfig(warmup_epochs=20, epochs=120, policy_learning_rate=6e-3),
        retrain=TrainConfig(epochs=100),
    ),
    "cifar10-tree": Config(
        data=PARTED_CIFAR10,
        network=TreeNetworkConfig(),
        search=SearchConfig(warmup_epochs=40, epochs=200, learning_rate=0.1, weight_decay=1e-4, policy_every=1),
        latency=LatencyConfig(form="none"),
        retrain=TrainConfig(epochs=300, learning_rate=0.1, weight_decay=1e-4),
    ),
    "imagenet2012": Config(
        data=DataConfig("tfds:imagenet2012", weights=1_231_167, policy=50_000, flip=True),
        network=IMAGENET,
        search=SearchConfig(warmup_epochs=40, epochs=160, batch_size=256, policy_learning_rate=1e-3),
        latency=LatencyConfig(form="mul#log", weight=0.2, batch_size=1, target=80.0),
        retrain=TrainConfig(epochs=300, batch_size=256, weight_decay=4e-5),
    ),
}
"""Named configurations.

digits: a small chain on 8x8 digits, latency measured on this device; two minutes on two CPU cores. Seed 0: the found
  network 98.0 per cent on test data, two random ones 97.6.
fashion-mnist: CPU-sized, 16x16 images. Not yet verified.
cifar10: the chain on 32x32 images, needs an accelerator. Not yet verified.
cifar10-tree: the paper's space for CIFAR-10, 54 cells with 648 decisions, without latency. Needs an accelerator. Not
  yet verified.
imagenet2012: the paper's search space and schedule; needs accelerators and prepared TFDS data. Not yet verified.
"""
