"""Presets of the exhaustive study of recurrent cells."""

import dataclasses

from experiments.configs.kinds import Count, Few, Seed, Whole, Width
from experiments.configs.text import TextConfig, TextRecipeConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """How every recurrent cell of base 2 is trained."""

    text: TextConfig = TextConfig()
    recipe: TextRecipeConfig = TextRecipeConfig(judgements=1, learning_rate=0.03)
    hidden: Width = 16
    """Hidden units of the one layer, and length of an embedding."""
    judge_steps: tuple[Count, ...] = (25, 50)
    """Steps after which every network is judged too, besides the last."""
    test_windows: Count | None = 128
    """Windows of the test part that judge a network, spread evenly over it; all if not given."""
    seeds: Few = 3
    """Runs of each of the `repeated` cells."""
    repeated: Whole = 1000
    """How many cells, drawn at random, are trained with several seeds; the others have one."""
    cells: Count | None = None
    """Train only so many of the cells that differ, drawn at random; all if not given."""
    chunk: Few = 192
    """Networks that train side by side in one call of the program."""
    seed: Seed = 0
    """Seed of the whole run: of the cells that are drawn, and of every network."""


PRESETS = {"shakespeare": Config()}
"""Named configurations.

shakespeare: the table that comes with the library. `python -m experiments.exhaustive_cells shakespeare`.
"""
