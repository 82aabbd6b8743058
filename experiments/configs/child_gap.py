"""Settings of the child-gap study."""

import dataclasses

from experiments.configs.kinds import Count, Few, Names, Rate, Seed, Seeds
from experiments.configs.parts import FASHION_MNIST, DataConfig, NetworkConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Searches of several methods and seeds, at one size."""

    data: DataConfig = FASHION_MNIST
    network: NetworkConfig = NetworkConfig()
    methods: Names = ("snas", "darts", "darts_annealed")
    """Which methods: snas, darts, darts_annealed (the softmax's temperature falls as that of SNAS does)."""
    seeds: Seeds = (0, 1, 2)
    """Seeds, each a search of its own."""
    epochs: Count = 20
    """Of each search, and the horizon of the temperature."""
    batch_size: Count = 64
    """Examples per step."""
    snas_policy_learning_rate: Rate = 9e-3
    """Adam on the logits of SNAS. The paper's 3e-4 times its 58,500 steps is this times 1,860 steps."""
    darts_policy_learning_rate: Rate = 3e-3
    """Adam on the logits of DARTS. The paper's 3e-4 times its 19,500 steps is this times 1,860 steps."""
    samples: Few = 8
    """Architecture samples over which the accuracy of sampled paths is averaged."""
    seed: Seed = 0
    """Not used; the searches have the seeds above."""


PRESETS = {
    "fashion-mnist": Config(),
    "digits": Config(data=DataConfig("digits"), epochs=40),
}
"""Named configurations.

fashion-mnist: the study of the README, three methods and three seeds at 16x16 pixels, 8 channels and 3 cells.
`python -m experiments.child_gap fashion-mnist`. Prepare the data first, see `docs/data.md`. On one CPU core 25 minutes
for a search of SNAS and 45 for one of DARTS. Expected, in per cent: SNAS 83.6 sampled, 85.2 its child; DARTS 87.6 the
mixture, 18.7 its child, 15.4 the argmax of all edges. Verified 2026-11-22, jax 0.10.2.
digits: the same on 8x8 digits, for a quick look. Not yet verified.
"""
