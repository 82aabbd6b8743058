"""Recurrent cells of NAS-RL in language models: what a cell costs, known cells beside it, and its last training."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import final_grid, pictures
from experiments import text as texts
from experiments.configs.nas_rl_cell import FinalConfig
from experiments.configs.text import TextTrainingConfig
from jaxnas import export, plot
from jaxnas.architecture_files import read_source
from jaxnas.base import Arch, Tree
from jaxnas.data.text import Text
from jaxnas.errors import UserError
from jaxnas.population import Family, PopulationData
from jaxnas.run import Run
from jaxnas.spaces.nas_rl import (
    PUBLISHED,
    CellState,
    LanguageModel,
    RecurrentCellSpace,
    constants,
    language_model,
    recurrent_cell_space,
    space_of_genotype,
)


class Size(NamedTuple):
    """The sizes of a language model: tokens in the vocabulary, hidden units, and layers."""

    num_tokens: int
    hidden: int
    layers: int


class Cell(NamedTuple):
    """One cell in a language model.

    Attributes:
      space: the space of the cell.
      arch: the architecture.
      size: the sizes of the language model.
    """

    space: RecurrentCellSpace
    arch: Arch
    size: Size

    @property
    def model(self) -> LanguageModel:
        """The language model."""
        return language_model(self.space, self.size.num_tokens, self.size.hidden, layers=self.size.layers)

    @property
    def parameters(self) -> int:
        """The number of weights: `2 B H^2` for each layer, `V H` for the embedding and `H V + V` for the softmax."""
        num_tokens, hidden, layers = self.size
        return layers * 2 * self._leaves * hidden**2 + (2 * hidden + 1) * num_tokens

    @property
    def macs(self) -> int:
        """Multiply-adds of one token in matrix products: `2 B H^2` for each layer, `H V` for the softmax."""
        return self.size.layers * 2 * self._leaves * self.size.hidden**2 + self.size.hidden * self.size.num_tokens

    @property
    def _leaves(self) -> int:
        """The number `B` of leaves of the tree, which has `2 B - 1` nodes."""
        return (self.space.choices["index"].shape[1] + 1) // 2


def lstm_space() -> RecurrentCellSpace:
    """An LSTM in the form of a space with one cell, without biases as the searched cells have none.

    The gates read four pairs of matrices, as the leaves of a tree of base 4 do; the forget gate opens with 1.
    """

    def step(params: Tree, arch: Arch, state: CellState, x: jax.Array) -> CellState:
        del arch
        i, f, g, o = jnp.einsum("d,bdh->bh", x, params["x"]) + jnp.einsum("d,bdh->bh", state.h, params["h"])
        c = jax.nn.sigmoid(f + 1) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return CellState(c, jax.nn.sigmoid(o) * jnp.tanh(c))

    space = recurrent_cell_space(4)
    return space._replace(step=step, about=space.about._replace(name="lstm"))


def of_equal_size(space: RecurrentCellSpace, arch: Arch, like: Cell) -> Cell:
    """A cell in a language model with as many layers, and the hidden units that make its weights closest in number."""
    sizes = [like.size._replace(hidden=hidden) for hidden in range(1, 4 * like.size.hidden + 1)]
    return min((Cell(space, arch, size) for size in sizes), key=lambda cell: abs(cell.parameters - like.parameters))


def known_cells(like: Cell) -> dict[str, Cell]:
    """The published NASCell and an LSTM, each in a language model of the size of `like`."""
    space = recurrent_cell_space(8)
    assert space.about.parse is not None
    lstm, zero = lstm_space(), {"cell": np.zeros(1, np.int32)}
    return {
        "nascell": of_equal_size(space, space.about.parse(PUBLISHED["nascell"]), like),
        "lstm": of_equal_size(lstm, zero, like),
    }


def family_fn(cell: Cell) -> Callable[[Mapping[str, Any]], Family]:
    """`(settings) -> Family` of one cell, whose program holds only the operations of its architecture.

    The setting `init_scale` is a factor on the first weights of the cells.
    """
    model = cell.model
    fixed = cell.arch if cell.space.about.name == "lstm" else constants(cell.space, cell.arch)

    def family(settings: Mapping[str, Any]) -> Family:
        def init(key: jax.Array, arch: Arch, tokens: jax.Array) -> Tree:
            params = model.init(key, arch, tokens)
            return {**params, "cells": jax.tree.map(lambda leaf: leaf * settings["init_scale"], params["cells"])}

        return Family(init, lambda params, arch, tokens: model.apply(params, fixed, tokens))

    return family


def in_units(nats: float) -> dict[str, float]:
    """A loss in nats per token with its perplexity, infinite where a float cannot hold it, and its bits per token.

    All three are NaN for a loss of NaN.
    """
    perplexity = math.inf if nats >= 700 else math.exp(nats)
    return {"nats": nats, "perplexity": perplexity, "bits": nats / math.log(2)}


def train_to_the_end(
    run: Run, name: str, cell: Cell, text: Text, form: FinalConfig
) -> tuple[dict[str, Any], Tree | None]:
    """Trains a cell with every point of the grid, and tests the point that is best on the validation part.

    Args:
      run: the run in whose work directory it happens.
      name: a name that is free in the run.
      cell: the cell.
      text: the text.
      form: the recipe and the grid.

    Returns:
      What `result.json` says of the cell, with losses of NaN if it diverged at every point, and the weights of the
      tested network, or None if none was tested.
    """
    grid = {"learning_rate": form.learning_rates, "init_scale": form.init_scales, "decay_from": form.decay_shares}
    found = final_grid.final_grid(
        run,
        name,
        family_fn(cell),
        cell.arch,
        texts.text_population_data(text, form.length),
        texts.grid_recipe(form),
        grid,
        test=texts.text_population_data(text, form.test_length, parts=("test",)).parts["test"],
        repeats=form.repeats,
    )
    about = {"hidden": cell.size.hidden, "parameters": cell.parameters, "macs": cell.macs}
    return {**in_units(float(np.mean(found.test))), **about, "final": found.summary()}, found.params


def write_cell(run: Run, cell: Cell, params: Tree | None, text: Text) -> dict[str, Any]:
    """Writes the weights, if there are any, the description of the language model, and the picture of the tree.

    Returns:
      The content of `architecture.json`.
    """
    about = cell.space.about
    assert about.genotype is not None
    if params is not None:
        export.save_variables(run.path / "network.safetensors", params)
    record = {
        "space": about.name,
        "settings": about.config,
        "arch": jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), cell.arch),
        "genotype": about.genotype(cell.arch),
        "hidden": cell.size.hidden,
        "layers": cell.size.layers,
        "parameters": cell.parameters,
        "macs": cell.macs,
        "unit": text.unit,
        "vocabulary": list(text.vocabulary),
        "weights": None if params is None else "network.safetensors",
    }
    run.save_json("architecture.json", record)
    pictures.draw(plot.cell_tree, run.path / "architecture.png", about, cell.arch)
    return record


def conclude(
    run: Run, contestants: Mapping[str, Cell], text: Text, form: FinalConfig, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Trains cells to the end, all with the same grid, writes the files of the first one and ends the run.

    Args:
      run: the run in whose work directory the files lie.
      contestants: the cells by name; the first one is the child of `result.json`, the others are its baselines.
      text: the text.
      form: the recipe and the grid.
      about: the further entries of `result.json`.

    Raises:
      UserError: cells that all diverged at every point, if there was no search before whose result could be reported.
    """
    rows: dict[str, dict[str, Any]] = {}
    weights: dict[str, Tree | None] = {}
    for name, cell in contestants.items():
        rows[name], weights[name] = train_to_the_end(run, f"final/{name}", cell, text, form)
    if "search" not in about and all(one is None for one in weights.values()):
        raise UserError(f"no cell of {', '.join(contestants)} could be trained without losses that are not finite")
    first, *others = contestants
    record = write_cell(run, contestants[first], weights[first], text)
    child = {**rows[first], "genotype": record["genotype"]}
    return run.finish({**about, "child": child, "baseline": {name: rows[name] for name in others}})


def read_cell(source: str) -> tuple[RecurrentCellSpace, Arch]:
    """A cell from a work directory, a file, the name of a published cell, or a genotype, and a space that holds it.

    Raises:
      UserError: a source that cannot be read, or that is no recurrent cell.
    """
    if source in PUBLISHED or "|" in source:
        genotype = PUBLISHED.get(source, source)
        space = space_of_genotype(genotype)
        return space, jax.tree.map(np.asarray, constants(space, genotype), is_leaf=lambda node: isinstance(node, list))
    found = read_source(source)
    if found.space != "nas-rl-cell" or not isinstance(found.record.get("genotype"), str):
        raise UserError(f"{found.name}: not a recurrent cell of nas_rl_cell, but of space {found.space!r}")
    return read_cell(found.record["genotype"])


def check_final(text: Text, form: FinalConfig) -> None:
    """Raises `UserError` for a last training that could not be done with a text."""
    check_batches("final", form, texts.text_population_data(text, form.length))
    texts.text_population_data(text, form.test_length, parts=("test",))


def check_batches(name: str, form: TextTrainingConfig, data: PopulationData) -> None:
    """Raises `UserError` for batches with more windows than there are; `name` is the recipe's in the configuration."""
    known = len(data.train[0])
    if form.batch_size > known:
        raise UserError(f"{name}.batch_size is {form.batch_size}, expected 1 to the {known} windows there are")
