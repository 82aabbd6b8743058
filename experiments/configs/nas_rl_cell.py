"""Presets of NAS-RL's search for recurrent cells."""

import dataclasses
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from experiments.configs.kinds import Count, Depth, Few, Names, Positive, Probability, Rate, Seed, Width
from experiments.configs.text import TextConfig, TextRecipeConfig, TextTrainingConfig
from jaxnas.population import Strategy
from jaxnas.run import ranged

Leaves = ranged(int, Ge(2), Le(64))
FewSteps = ranged(int, Ge(0), Le(100))
Rates = Annotated[tuple[Rate, ...], MinLen(1)]
Shares = Annotated[tuple[Probability, ...], MinLen(1)]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The space of cells, and the language model around a cell."""

    base: Leaves = 4
    """Leaves of the tree."""
    combinations: Names = ("add", "elem_mult")
    """Combination methods, of add, elem_mult and max; the paper adds max in a control experiment."""
    activations: Names = ("identity", "tanh", "sigmoid", "relu")
    """Activations, of identity, tanh, sigmoid, relu and sin; the paper adds sin in a control experiment."""
    hidden: Width = 24
    """Hidden units of a layer, and length of an embedding."""
    layers: Depth = 1
    """Layers, each with weights of its own."""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The controller and the random search beside it; both train the same number of cells."""

    children: Count = 400
    """Cells that each search trains."""
    generation: Few = 10
    """Cells that are proposed at once and trained side by side, after which the controller is updated."""
    learning_rate: Rate = 0.01
    """Adam on the controller. The paper has 5e-4 for some ten thousand cells; hundreds need larger steps."""
    baseline_decay: Probability = 0.95
    """Weight of the old average of rewards, the baseline, when a generation is added."""
    c: Positive = 80.0
    """The reward is c / perplexity^2."""
    ppo_steps: FewSteps = 0
    """Steps of PPO for each generation; 0 for one step of REINFORCE, as in the paper."""
    staleness: FewSteps = 0
    """Each generation is sampled with parameters of up to so many updates ago, as with the paper's servers."""
    strategy: Strategy = "vmap"
    """How the cells of one generation run: vmap, map or shard; auto chooses by device."""


@dataclasses.dataclass(frozen=True)
class FinalConfig(TextTrainingConfig):
    """The last training of the cell that each search found, and of known cells, with a grid of settings.

    Each network is judged once, after its last step.
    """

    learning_rates: Rates = (0.01, 0.03)
    """Learning rates of the grid, each constant until it falls."""
    init_scales: Rates = (1.0,)
    """Factors of the grid on a cell's first weights, which are uniform within one over the square root of the hidden
    units."""
    decay_shares: Shares = (0.5,)
    """Shares of the steps after which the learning rate falls along a line, to zero at the end, of the grid."""
    repeats: Few = 1
    """Trainings of each point of the grid, the mean of which decides."""
    test_length: Few = 256
    """Tokens of a window of the test part, which starts with a state of zeros."""


@dataclasses.dataclass(frozen=True)
class Config:
    """NAS-RL on recurrent cells."""

    data: TextConfig = TextConfig()
    network: NetworkConfig = NetworkConfig()
    search: SearchConfig = SearchConfig()
    child: TextRecipeConfig = TextRecipeConfig()
    final: FinalConfig = FinalConfig()
    seed: Seed = 0
    """Seed of the whole run."""


PRESETS = {
    "shakespeare": Config(
        child=TextRecipeConfig(steps=200, learning_rate=0.03),
        final=FinalConfig(steps=2000, length=64),
    ),
    "ptb": Config(
        data=TextConfig("PTB", unit="words", validation_windows=None),
        network=NetworkConfig(base=8, hidden=650, layers=2),
        search=SearchConfig(children=12_800, generation=10, learning_rate=5e-4, strategy="auto"),
        child=TextRecipeConfig(
            steps=46_000, batch_size=20, length=35, optimiser="sgd", learning_rate=1.0, clip=5.0, judge_every=1300
        ),
        final=FinalConfig(
            steps=46_000,
            batch_size=20,
            length=35,
            optimiser="sgd",
            clip=5.0,
            learning_rates=(0.5, 1.0, 2.0),
            init_scales=(0.5, 1.0),
            decay_shares=(0.2, 0.5),
        ),
    ),
}
"""Named configurations.

shakespeare: characters of tiny Shakespeare, `$JAXNAS_DATA/text/tinyshakespeare.txt.gz`; 400 cells each of the
  controller and of random search, CPU-sized.
ptb: words of Penn Treebank in `--data.path`, base 8 and two layers as in the paper, 35 epochs; needs an accelerator and
  has not been run. The recipe of a "medium" LSTM with plain gradient descent and a line for the last half of the
  steps in place of the paper's exponential decay; the dropout of the paper's cells is left out, and a window starts
  with a state of zeros.
"""
