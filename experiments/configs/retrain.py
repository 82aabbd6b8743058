"""Presets of retraining, and the recipes of the papers."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, Decay, Factor, Pixels, Probability, Rate, Seed, Text
from experiments.configs.parts import CIFAR10, FASHION_MNIST, DataConfig, SizeConfig


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """Training of one stand-alone network. What is None is taken from the recipe of the space's paper."""

    epochs: Count | None = None
    """Passes over the training examples."""
    batch_size: Count | None = None
    """Examples per step."""
    learning_rate: Rate | None = None
    """First learning rate of SGD with momentum 0.9, falling to zero along a cosine."""
    schedule: Literal["epoch", "step"] | None = None
    """The learning rate moves once per epoch, or at every step."""
    nesterov: bool | None = None
    """Nesterov's form of momentum."""
    weight_decay: Decay | None = None
    """L2 coefficient of the weights, added to the gradient."""
    decay_norms: bool | None = None
    """Scales and offsets of normalisation decay too."""
    clip: Factor | None = None
    """Global norm to which the gradient is clipped; 0 leaves it as it is."""
    label_smoothing: Probability | None = None
    """Share of the target that is spread over all classes, in every loss."""
    drop_path: Probability | None = None
    """Probability of drop path in the last epoch; rises linearly from zero."""
    dropout: Probability | None = None
    """Probability of dropout before the classifier (proxyless only)."""
    cutout: Pixels | None = None
    """Side of the square that is blanked in training images; 0 for none."""
    auxiliary: bool | None = None
    """Add the auxiliary head (darts and snas only, 32x32 images only)."""
    auxiliary_weight: Factor | None = None
    """Factor of its loss."""


# What recipes have in common unless they say otherwise.
_PLAIN = RecipeConfig(
    schedule="step",
    nesterov=True,
    decay_norms=True,
    clip=0.0,
    label_smoothing=0.0,
    drop_path=0.0,
    dropout=0.0,
    cutout=0,
    auxiliary=False,
    auxiliary_weight=0.0,
)
# In the order of the fields: epochs, batch size, learning rate, schedule, and so on.
_CELLS = RecipeConfig(600, 96, 0.025, "epoch", False, 3e-4, True, 5.0, 0.0, 0.2, 0.0, 16, True, 0.4)
_BENCHMARK = dataclasses.replace(_PLAIN, epochs=200, batch_size=256, learning_rate=0.1, weight_decay=5e-4)
_PROXYLESS = dataclasses.replace(
    _PLAIN,
    epochs=300,
    batch_size=256,
    learning_rate=0.05,
    weight_decay=4e-5,
    decay_norms=False,
    label_smoothing=0.1,
    dropout=0.1,
)
_TREE = dataclasses.replace(_PLAIN, epochs=300, batch_size=64, learning_rate=0.1, weight_decay=1e-4, cutout=16)
_LAYERS = dataclasses.replace(_PLAIN, epochs=50, batch_size=64, learning_rate=0.1, weight_decay=1e-4)

RECIPES = {
    "darts": _CELLS,
    "snas": _CELLS,
    "nasbench201": _BENCHMARK,
    "nasbench201-small": _BENCHMARK,
    "proxyless": _PROXYLESS,
    "proxyless-tree": _TREE,
    "nas-rl": _LAYERS,
}
"""The recipe of every space's paper; crops and mirrored images belong to the data.

darts, snas: arXiv 1806.09055, section 3.2, and the released code.
nasbench201: arXiv 2001.00326, table 1: 200 epochs, `--recipe.epochs 12` for the benchmark's reduced form. That the
  learning rate moves at every step is recalled from the released code.
proxyless: the released code for ImageNet (arXiv 1812.00332), with the dropout of its network for mobile phones, and
  without its random sizes of crops and changes of colour, which the data here do not have.
proxyless-tree: batches, learning rate, weight decay and cutout are those of the code of arXiv 1806.02639, on which the
  paper builds; the number of epochs is recalled from the paper, as is that it is twice as many with drop path.
nas-rl: learning rate, Nesterov's momentum, weight decay and epochs of a child in the search of arXiv 1611.01578. That
  paper trains what was found until it converges and does not say for how long; batches of 64 are those of DenseNet,
  whose settings it names, and the cosine stands in for a decay that it chooses by validation.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Training one found or published network from scratch."""

    architecture: Text = "snas_mild"
    """A file, a work directory, a published cell (darts_v1, darts_v2, snas_mild, snas_moderate, snas_aggressive) or
    network (nas_rl_v1), or the architecture itself: integers or a genotype, as `python -m jaxnas.describe --arch` takes
    them."""
    space: Text | None = None
    """Space of an architecture that does not say it; if not given, the first that fits, DARTS before SNAS."""
    settings: tuple[Text, ...] = ()
    """Settings of the space, NAME=VALUE each, above those in the file: for example cells=5 or widths=8,16."""
    data: DataConfig = DataConfig()
    network: SizeConfig = SizeConfig()
    """Size of a network of darts or snas, above that in the file, which is the search's. The networks of all other
    spaces have the size in the file."""
    recipe: RecipeConfig = RecipeConfig()
    seed: Seed = 0
    """Seed of the whole run."""


# A recipe that a CPU can follow, for any space.
SMALL = RecipeConfig(
    epochs=20, batch_size=64, learning_rate=0.05, drop_path=0.0, dropout=0.0, cutout=0, auxiliary=False
)

PRESETS = {
    "digits": Config(recipe=SMALL),
    "fashion-mnist": Config(data=FASHION_MNIST, recipe=dataclasses.replace(SMALL, epochs=10)),
    "cifar10": Config(data=CIFAR10, network=SizeConfig(channels=36, cells=20)),
}
"""Named configurations. What a preset does not say is that of the space's paper, see `RECIPES`.

digits: a small recipe for any space on scikit-learn's 8x8 digits; without an architecture a published cell of SNAS,
  three cells deep. `python -m experiments.retrain digits`.
fashion-mnist: the same, 16x16 images, 12,000 of them. `python -m experiments.retrain fashion-mnist`.
cifar10: the whole recipe of the space's paper; cells of DARTS and SNAS in their final size, 36 channels and 20 cells.
  Needs an accelerator. Published test errors: DARTS second order 2.76 +- 0.09 per cent, SNAS moderate 2.85 +- 0.02 per
  cent, mild 2.98 per cent. Not yet verified here.
"""
