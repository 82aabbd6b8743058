"""Language models with a recurrent cell of NAS-RL: an embedding, layers of the cell, and a softmax over tokens.

The architecture is an argument of every function, and `Family(model.init, model.apply)` of `jaxnas.population` trains
many cells through one program. Letters for shapes: `B` texts side by side, `T` steps, `V` vocabulary, `H` hidden units.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.base import Arch, Key, Params
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl.cell import CellState, RecurrentCellSpace

__all__ = ["LanguageModel", "language_model"]

States = tuple[CellState, ...]  # one for each layer


class LanguageModel(NamedTuple):
    """A recurrent network that predicts the next token of a text.

    Attributes:
      init: `(key, arch, tokens) -> params`; neither the architecture nor the tokens change the weights.
      apply: `(params, arch, tokens[B, T]) -> logits[B, T, V]` from a state of zeros; `logits[:, t]` are about the token
        that follows `tokens[:, t]`.
      start: `(batch_size) -> states`, zeros for every layer.
      advance: `(params, arch, states, tokens[B, T]) -> (states, logits[B, T, V])`, for windows that continue each
        other. Stop the gradient of the states between windows to truncate back-propagation.
    """

    init: Callable[[Key, Arch, Any], Params]
    apply: Callable[[Params, Arch, jax.Array], jax.Array]
    start: Callable[[int], States]
    advance: Callable[[Params, Arch, States, jax.Array], tuple[States, jax.Array]]


def language_model(space: RecurrentCellSpace, num_tokens: int, hidden: int, *, layers: int = 1) -> LanguageModel:
    """A language model whose layers all have one architecture, each with weights of its own.

    Args:
      space: the space of the cells.
      num_tokens: the number `V` of tokens in the vocabulary, at least 2.
      hidden: the number `H` of hidden units, which is the length of an embedding too.
      layers: the number of layers; a layer reads the outputs of the one below. The paper has two on Penn Treebank.

    Returns:
      The model. With lists of Python's integers for an architecture it computes only the chosen operations.

    Raises:
      UserError: a size below 1, or fewer than two tokens.

    Example:
      >>> from jaxnas.spaces.nas_rl import PUBLISHED, recurrent_cell_space
      >>> space = recurrent_cell_space(2)
      >>> arch, tokens = space.about.parse(PUBLISHED["worked_example"]), jnp.zeros([4, 7], jnp.int32)
      >>> model = language_model(space, num_tokens=10, hidden=8)
      >>> model.apply(model.init(jax.random.key(0), arch, tokens), arch, tokens).shape
      (4, 7, 10)
    """
    if num_tokens < 2 or hidden < 1 or layers < 1:
        raise UserError(
            f"num_tokens, hidden and layers are {num_tokens}, {hidden} and {layers}, expected at least 2, 1 and 1"
        )

    def init(key: Key, arch: Arch, tokens: Any) -> Params:
        del arch, tokens
        key_embedding, key_head, key_cells = jax.random.split(key, 3)
        bound = 1 / math.sqrt(hidden)
        return {
            "embedding": jax.random.normal(key_embedding, (num_tokens, hidden), jnp.float32),
            "cells": [space.init(jax.random.fold_in(key_cells, layer), hidden, hidden) for layer in range(layers)],
            "head": {
                "kernel": jax.random.uniform(key_head, (hidden, num_tokens), jnp.float32, -bound, bound),
                "bias": jnp.zeros(num_tokens, jnp.float32),
            },
        }

    def start(batch_size: int) -> States:
        zeros = jnp.zeros((batch_size, hidden), jnp.float32)
        return (CellState(zeros, zeros),) * layers

    def advance(params: Params, arch: Arch, states: States, tokens: jax.Array) -> tuple[States, jax.Array]:
        def step(states: States, x: jax.Array) -> tuple[States, jax.Array]:
            found = []
            for cell, state in zip(params["cells"], states, strict=True):
                found.append(jax.vmap(lambda state, x, cell=cell: space.step(cell, arch, state, x))(state, x))
                x = found[-1].h
            return tuple(found), x

        # Time first for the scan, texts first for the head.
        states, outputs = lax.scan(step, states, params["embedding"][tokens.T])
        logits = jnp.einsum("tbh,hv->btv", outputs, params["head"]["kernel"])
        return states, logits + params["head"]["bias"].reshape(1, 1, -1)

    def apply(params: Params, arch: Arch, tokens: jax.Array) -> jax.Array:
        return advance(params, arch, start(len(tokens)), tokens)[1]

    return LanguageModel(init, apply, start, advance)
