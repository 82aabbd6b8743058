"""Parts of configurations for texts: which text, and how a small recurrent network learns it."""

import dataclasses
from typing import Literal

from experiments.configs.kinds import Count, Few, Fraction, Positive, Probability, Rate, Text


@dataclasses.dataclass(frozen=True)
class TextConfig:
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
    validation_windows: Count | None = 128
    """Windows of the validation part that judge a network, spread evenly over it; all if not given."""


@dataclasses.dataclass(frozen=True)
class TextRecipeConfig:
    """How a network learns a text, from windows that each start with a state of zeros."""

    steps: Count = 100
    """Training steps."""
    batch_size: Few = 16
    """Windows per step."""
    length: Few = 32
    """Tokens of a window, through all of which the gradient goes back."""
    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam, or plain gradient descent as the paper's networks on Penn Treebank have it."""
    learning_rate: Rate = 0.01
    """Learning rate until it falls."""
    decay_from: Probability = 0.5
    """Share of the steps after which the learning rate falls along a line, to zero at the end."""
    clip: Positive = 1.0
    """Global norm to which the gradient is clipped."""
    judgements: Few = 5
    """How often a network is judged; the best judgement counts. The last one is after the last step."""
    judge_every: Count = 5
    """Steps between two judgements."""
