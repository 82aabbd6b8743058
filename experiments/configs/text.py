"""Parts of configurations for texts: which text, and how a small recurrent network learns it."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, Few, Fraction, Positive, Probability, Rate, Text


@dataclasses.dataclass(frozen=True)
class TextSourceConfig:
    """Which text, and how it is divided."""

    path: Text = "$JAXNAS_DATA/text/tinyshakespeare.txt.gz"
    """A text file, plain or gzip; a folder with the three files of Penn Treebank; or synthetic, a short made-up text.
    Variables of the environment and a leading ~ are expanded."""
    unit: Literal["characters", "words"] = "characters"
    """What a token is."""
    fractions: tuple[Fraction, Fraction, Fraction] | None = None
    """Shares of the training, validation and test part of a single file, in this order from its beginning; nine tenths
    and twice a twentieth if not given. A folder has a file for each part."""
    min_count: Count = 1
    """How often a token has to occur in the training part to be in the vocabulary."""


@dataclasses.dataclass(frozen=True)
class TextConfig(TextSourceConfig):
    """Which text, how it is divided, and how much of it judges each of many networks."""

    validation_windows: Count | None = 128
    """Windows of the validation part that judge each network of a search or of a table, spread evenly over it; all if
    not given. A last training with a grid of settings is always judged on all of them."""


@dataclasses.dataclass(frozen=True)
class TextTrainingConfig:
    """How a network learns a text, from windows that each start with a state of zeros."""

    steps: Count = 100
    """Training steps."""
    batch_size: Few = 16
    """Windows per step."""
    length: Few = 32
    """Tokens of a window, through all of which the gradient goes back."""
    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam, or plain gradient descent as the paper's networks on Penn Treebank have it."""
    clip: Positive = 1.0
    """Global norm to which the gradient is clipped."""


@dataclasses.dataclass(frozen=True)
class TextRecipeConfig(TextTrainingConfig):
    """How each network of a search or of a table learns a text, and when it is judged."""

    learning_rate: Rate = 0.01
    """Learning rate until it falls."""
    decay_from: Probability = 0.5
    """Share of the steps after which the learning rate falls along a line, to zero at the end."""
    judgements: Few = 5
    """How often a network is judged, the last time after its last step. A search takes the best of the last five
    judgements."""
    judge_every: Count = 5
    """Steps between two judgements."""
