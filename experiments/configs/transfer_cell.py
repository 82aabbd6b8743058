"""Presets of the transfer of a recurrent cell to another text."""

import dataclasses

from experiments.configs.kinds import Depth, Seed, Text, Width
from experiments.configs.nas_rl_cell import FinalConfig
from experiments.configs.text import TextSourceConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Training a cell that was found on one text on another one."""

    cell: Text = "nascell"
    """A work directory of `nas_rl_cell`, its `architecture.json`, a published cell (nascell, worked_example), or the
    genotype of a cell."""
    data: TextSourceConfig = TextSourceConfig()
    hidden: Width = 64
    """Hidden units of a layer, and length of an embedding; other cells have as many weights in all."""
    layers: Depth = 1
    """Layers, each with weights of its own."""
    final: FinalConfig = FinalConfig()
    seed: Seed = 0
    """Seed of the whole run."""


PRESETS = {
    "words": Config(
        data=TextSourceConfig(unit="words", min_count=5),
        final=FinalConfig(steps=1000, test_length=128),
    ),
    "ptb": Config(
        data=TextSourceConfig("PTB"),
        hidden=800,
        layers=2,
        final=FinalConfig(steps=50_000, batch_size=32, length=100, learning_rates=(1e-3, 3e-3)),
    ),
}
"""Named configurations.

words: words of tiny Shakespeare, for a cell that was searched on its characters; CPU-sized.
ptb: characters of Penn Treebank's three files in `--data.path`, the paper's table 3 (bits per character); needs an
  accelerator and has not been run.
"""
