"""Recurrent cells of NAS-RL in language models: what a cell costs, known cells beside it, and its last training."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import final_grid, pictures
from experiments import text as texts
from experiments.configs.nas_rl_cell import FinalConfig
from jaxnas import export, plot
from jaxnas.base import Arch, Tree
from jaxnas.data.text import Text
from jaxnas.population import Family
from jaxnas.run import Run
from jaxnas.spaces.nas_rl import (
    PUBLISHED,
    CellState,
    LanguageModel,
    RecurrentCellSpace,
    constants,
    language_model,
    recurrent_cell_space,
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
        """The number of weights of the language model, embedding and softmax included."""
        tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        shapes = jax.eval_shape(lambda: self.model.init(jax.random.key(0), None, tokens))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    @property
    def macs(self) -> int:
        """Multiply-adds of one token in matrix products: `2 B H^2` for each layer, `H V` for the softmax."""
        leaves = len(jax.eval_shape(lambda: self.space.init(jax.random.key(0), 1, 1))["x"])
        return self.size.layers * 2 * leaves * self.size.hidden**2 + self.size.hidden * self.size.num_tokens


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
    """A loss in nats per token with its perplexity and its bits per token."""
    return {"nats": nats, "perplexity": math.exp(nats), "bits": nats / math.log(2)}


def train_to_the_end(run: Run, name: str, cell: Cell, text: Text, form: FinalConfig) -> tuple[dict[str, Any], Tree]:
    """Trains a cell with every point of the grid, and tests the point that is best on the validation part.

    Args:
      run: the run in whose work directory it happens.
      name: a name that is free in the run.
      cell: the cell.
      text: the text.
      form: the recipe and the grid.

    Returns:
      What `result.json` says of the cell, and the weights of the tested network.
    """
    grid = {"learning_rate": form.learning_rates, "init_scale": form.init_scales, "decay_from": form.decay_shares}
    recipe = texts.text_recipe(form)

    def tx(rates: Mapping[str, Any]) -> Any:
        return texts.optimiser(form, rates["learning_rate"], rates["decay_from"])

    found = final_grid.final_grid(
        run,
        name,
        family_fn(cell),
        cell.arch,
        texts.text_population_data(text, form.length),
        recipe._replace(tx=tx),
        grid,
        test=texts.text_population_data(text, form.test_length, parts=("test",)).parts["test"],
        repeats=form.repeats,
    )
    about = {"hidden": cell.size.hidden, "parameters": cell.parameters, "macs": cell.macs}
    return {**in_units(float(np.mean(found.test))), **about, "final": found.summary()}, found.params


def write_cell(run: Run, cell: Cell, params: Tree, text: Text) -> None:
    """Writes the weights, the description that builds the language model again, and the picture of the tree."""
    about = cell.space.about
    assert about.genotype is not None
    export.save_variables(run.path / "network.safetensors", params)
    run.save_json(
        "architecture.json",
        {
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
            "weights": "network.safetensors",
        },
    )
    pictures.draw(plot.cell_tree, run.path / "architecture.png", about, cell.arch)


def describe_recipe(form: Any) -> dict[str, Any]:
    """The fields of a recipe as JSON data."""
    return json.loads(json.dumps(dataclasses.asdict(form)))
