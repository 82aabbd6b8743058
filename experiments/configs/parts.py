"""The parts of which the configurations of experiments are made, each written once.

Fields of a dataclass that inherits follow those of its base, and a field that it defines again stays in its place.
`--help` and `config.yaml` show fields in that order.
"""

import dataclasses
from typing import Any

from experiments.configs.kinds import (
    Count,
    Decay,
    Depth,
    FewOrNone,
    LastRate,
    Names,
    Nodes,
    Pixels,
    Positive,
    Rate,
    Seed,
    Share,
    Text,
    Width,
)
from jaxnas.spaces.darts import PRIMITIVES


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, how they are divided and how they are varied."""

    name: Text = "digits"
    """Data set: digits, fashion-mnist, cifar10, synthetic, tfds:NAME, npz:FILE or folder:DIR."""
    data_dir: Text | None = None
    """Folder with prepared TFDS data; TFDS's own default if not given."""
    weights: Share = 0.5
    """Training examples for the weights: a fraction up to 1, or a count."""
    policy: Share = 0.5
    """Training examples that judge architectures: a fraction up to 1, or a count."""
    pad_to: Width | None = None
    """Pad images to this side before they are shrunk."""
    shrink: Width = 1
    """Average squares of this side, which makes images smaller by that factor."""
    crop: Pixels = 0
    """Pad training images by this many pixels and crop at random."""
    flip: bool = False
    """Mirror training images at random."""


@dataclasses.dataclass(frozen=True)
class SizeConfig:
    """Size of a network of cells."""

    channels: Width = 8
    """Channels of the first cell."""
    cells: Depth = 3
    """Number of cells; those at one and two thirds halve the image."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig(SizeConfig):
    """A search space of cells."""

    nodes: Nodes = 4
    """Nodes of a cell besides its two inputs."""
    operations: Names = PRIMITIVES
    """Candidates of every edge."""
    dtype: Text = "float32"
    """Of the computation: float32, bfloat16 (weights stay float32), or for checking float64, with JAX_ENABLE_X64=1."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the found network and the random ones are trained from scratch."""

    epochs: Count = 20
    """Passes over all training examples, those for weights and policy together."""
    batch_size: Count = 64
    """Examples per step."""
    learning_rate: Rate = 0.05
    """First learning rate of SGD with momentum 0.9, falling to zero along a cosine."""
    weight_decay: Decay = 3e-4
    """Added to the gradient."""
    clip: Positive = 5.0
    """Global norm to which the gradient is clipped."""
    random_children: FewOrNone = 4
    """Number of random architectures trained beside the found one."""


@dataclasses.dataclass(frozen=True)
class CellSearchConfig:
    """What the searches of DARTS and SNAS share; defaults are those of the papers' code."""

    epochs: Count = 25
    """Passes over the examples for the weights."""
    batch_size: Count = 64
    """Examples per step."""
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


@dataclasses.dataclass(frozen=True)
class CellConfig:
    """An experiment in a space of cells; a script's own class gives `search` its type and its defaults."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    search: Any = None
    retrain: TrainConfig = TrainConfig()
    seed: Seed = 0
    """Seed of the whole run."""


FASHION_MNIST = DataConfig("fashion-mnist", weights=6000, policy=6000, pad_to=32, shrink=2)
CIFAR10 = DataConfig("cifar10", crop=4, flip=True)

CELL_PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"retrain": TrainConfig(epochs=8)},
    "fashion-mnist": {"data": FASHION_MNIST, "retrain": TrainConfig(epochs=10)},
    "cifar10": {
        "data": CIFAR10,
        "network": NetworkConfig(channels=16, cells=8),
        "retrain": TrainConfig(epochs=100, learning_rate=0.025),
    },
}
"""Fields of `CellConfig` besides `search`, by preset: data, the size of the supernet, and the retraining."""
