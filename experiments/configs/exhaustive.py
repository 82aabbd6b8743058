"""Presets of the exhaustive study."""

import dataclasses

from experiments.configs.kinds import Count, Decay, Few, Rate, Seed, Whole, Width
from experiments.configs.parts import FASHION_MNIST, DataConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """How every cell of NAS-Bench-201 is trained."""

    data: DataConfig = DataConfig("digits", weights=900, policy=542, crop=1)
    channels: Width = 4
    """Of the first of the two cells."""
    epochs: Count = 16
    """Passes over the examples for the weights."""
    judge_epochs: tuple[Count, ...] = (2, 4, 8)
    """Epochs after which every network is judged too, besides the last."""
    batch_size: Count = 64
    """Examples per step."""
    learning_rate: Rate = 0.1
    """First learning rate of SGD with Nesterov's momentum 0.9, falling to zero along a cosine."""
    weight_decay: Decay = 5e-4
    """Added to the gradient."""
    seeds: Few = 3
    """Runs of each of the `repeated` cells."""
    repeated: Whole = 1000
    """How many cells, drawn at random, are trained with several seeds; the others have one."""
    cells: Count | None = None
    """Train only so many of the cells that differ, drawn at random; all if not given."""
    chunk: Few = 64
    """Networks in one call of the program, after which it is saved."""
    devices: Few | None = None
    """Devices that a CPU is split into; as many as there are cores if not given."""
    seed: Seed = 0
    """Seed of the whole run: of the split, the cells that are drawn, and every network."""


PRESETS = {
    "digits": Config(),
    "fashion-mnist": Config(data=FASHION_MNIST, channels=8),
}
"""Named configurations.

digits: the table that comes with the library. `python -m experiments.exhaustive digits`.
fashion-mnist: the same cells on 16x16 images, for an accelerator. Not verified.
"""
