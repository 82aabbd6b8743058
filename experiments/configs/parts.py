"""The parts of which the experiments' configurations are made."""

import dataclasses

from jaxnas.spaces.darts import PRIMITIVES


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, how they are divided and how they are varied."""

    name: str = "digits"
    """Data set: digits, fashion-mnist, cifar10, synthetic, tfds:NAME, npz:FILE or folder:DIR."""
    data_dir: str | None = None
    """Folder with prepared TFDS data; TFDS's own default if not given."""
    weights: float = 0.5
    """Training examples for the weights: a fraction up to 1, or a count."""
    policy: float = 0.5
    """Training examples that judge architectures: a fraction up to 1, or a count."""
    pad_to: int | None = None
    """Pad images to this side before they are shrunk."""
    shrink: int = 1
    """Average squares of this side, which makes images smaller by that factor."""
    crop: int = 0
    """Pad training images by this many pixels and crop at random."""
    flip: bool = False
    """Mirror training images at random."""


@dataclasses.dataclass(frozen=True)
class SizeConfig:
    """Size of a network of cells."""

    channels: int = 8
    """Channels of the first cell."""
    cells: int = 3
    """Number of cells; those at one and two thirds halve the image."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig(SizeConfig):
    """A search space of cells."""

    nodes: int = 4
    """Nodes of a cell besides its two inputs."""
    operations: tuple[str, ...] = PRIMITIVES
    """Candidates of every edge."""
    dtype: str = "float32"
    """Of the computation: float32 or bfloat16. Weights stay float32."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the found network and the random ones are trained from scratch."""

    epochs: int = 20
    """Passes over all training examples, those for weights and policy together."""
    batch_size: int = 64
    """Examples per step."""
    learning_rate: float = 0.05
    """First learning rate of SGD with momentum 0.9, falling to zero along a cosine."""
    weight_decay: float = 3e-4
    """Added to the gradient."""
    clip: float = 5.0
    """Global norm to which the gradient is clipped."""
    random_children: int = 4
    """Number of random architectures trained beside the found one."""
