"""Presets of retraining."""

import dataclasses

from experiments.configs.parts import DataConfig, SizeConfig


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """Training of one stand-alone network; defaults are the recipe that DARTS and SNAS share."""

    epochs: int = 600
    """Passes over the training examples."""
    batch_size: int = 96
    """Examples per step."""
    learning_rate: float = 0.025
    """First learning rate of SGD with momentum 0.9, falling to zero along a cosine by epochs."""
    weight_decay: float = 3e-4
    """Added to the gradient."""
    clip: float = 5.0
    """Global norm to which the gradient is clipped."""
    drop_path: float = 0.2
    """Probability of drop path in the last epoch; rises linearly from zero."""
    cutout: int = 16
    """Side of the square that is blanked in training images; 0 for none."""
    auxiliary: bool = True
    """Add the auxiliary head (32x32 images only)."""
    auxiliary_weight: float = 0.4
    """Factor of its loss."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Training one found or published network from scratch."""

    architecture: str = "snas_mild"
    """A file architecture.json from a search, or a published cell: darts_v1, darts_v2, snas_mild, snas_moderate,
    snas_aggressive."""
    data: DataConfig = DataConfig()
    network: SizeConfig = SizeConfig()
    recipe: RecipeConfig = RecipeConfig()
    seed: int = 0
    """Seed of the whole run."""


SMALL = RecipeConfig(epochs=20, batch_size=64, learning_rate=0.05, drop_path=0.0, cutout=0, auxiliary=False)

PRESETS = {
    "digits": Config(recipe=SMALL),
    "fashion-mnist": Config(
        data=DataConfig("fashion-mnist", weights=6000, policy=6000, pad_to=32, shrink=2),
        recipe=dataclasses.replace(SMALL, epochs=10),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", crop=4, flip=True),
        network=SizeConfig(channels=36, cells=20),
        recipe=RecipeConfig(),
    ),
}
"""Named configurations.

digits: a published cell, three cells deep, on scikit-learn's 8x8 digits. `python -m experiments.retrain digits`.
fashion-mnist: the same, 16x16 images, 12,000 of them. `python -m experiments.retrain fashion-mnist`.
cifar10: the recipe of both papers (arXiv 1806.09055 and 1812.09926): 600 epochs at 36 channels and 20 cells, auxiliary
head, cutout, drop path; needs an accelerator. Published test errors: DARTS second order 2.76 +- 0.09 per cent, SNAS
moderate 2.85 +- 0.02 per cent, mild 2.98 per cent. Not yet verified here.
"""
