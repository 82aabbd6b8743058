"""The parts of which the experiments' configurations are made."""

import dataclasses

from experiments.configs.kinds import (
    Count,
    Decay,
    Depth,
    FewOrNone,
    Names,
    Nodes,
    Pixels,
    Positive,
    Rate,
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
