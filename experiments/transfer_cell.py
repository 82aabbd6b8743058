"""A recurrent cell that was found on one text, trained on another one beside the published NASCell and an LSTM.

  python -m experiments.transfer_cell [words | ptb] --cell runs/nas_rl_cell-shakespeare-0 [--smoke]

Zoph and Le (2017, arXiv 1611.01578), section 4.2, take the cell that was found on words of Penn Treebank to its
characters. All cells have as many weights, the same grid of settings and the same text. `result.json` has nats,
perplexity and bits per token of the test part; bits per token are bits per character where tokens are characters.
"""

import dataclasses
from typing import NamedTuple

from experiments import cells
from experiments import text as texts
from experiments.configs.nas_rl_cell import FinalConfig
from experiments.configs.transfer_cell import PRESETS, Config
from jaxnas.data.text import Text
from jaxnas.run import Run, script


class Study(NamedTuple):
    """The configuration, the text, and the cell in a language model for it."""

    config: Config
    text: Text
    cell: cells.Cell


def prepare(config: Config) -> Study:
    """The cell and the text, after a look at everything that the training will need."""
    space, arch = cells.read_cell(config.cell)
    text = texts.load_text_data(config.data)
    cells.check_final(text, config.final)
    return Study(config, text, cells.Cell(space, arch, cells.Size(len(text.vocabulary), config.hidden, config.layers)))


def main(run: Run, study: Study) -> None:
    """Train all cells, test, write."""
    config, text, cell = study
    about = {"system": "transfer_cell", "data": config.data.path, "unit": config.data.unit}
    cells.conclude(run, {"transferred": cell, **cells.known_cells(cell)}, text, config.final, about)


def smoke(config: Config) -> Config:
    """The same training: a few steps on a made-up text."""
    final: FinalConfig = dataclasses.replace(config.final, **texts.FEW, learning_rates=(0.01,), test_length=16)
    data = dataclasses.replace(config.data, path=texts.SYNTHETIC, fractions=None)
    return dataclasses.replace(config, data=data, hidden=4, layers=1, final=final)


if __name__ == "__main__":
    script(main, PRESETS, system="transfer_cell", prepare=prepare, smoke=smoke, default="words")
