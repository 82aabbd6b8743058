"""The cell space of NAS-Bench-201 in a network of two cells, small enough to train every architecture of it.

The network is a 3x3 convolution, a cell, ReLU, a 3x3 convolution with stride two to twice the channels, a cell, ReLU,
global average pooling and a dense layer. Its supernet computes with the examples innermost (`jaxnas.ops.batch_last`);
a sparse path keeps one image per edge for the backward pass and leaves out edges into nodes that lead nowhere.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.architectures import arch_like
from jaxnas.base import Params, Paths, SearchSpace
from jaxnas.errors import UserError
from jaxnas.ops import Block, ConvNorm, Style, batch_last, by_hand, from_linen
from jaxnas.spaces.nasbench201.edge import Choice, edge, operations
from jaxnas.spaces.nasbench201.genotype import genotype, parse
from jaxnas.spaces.nasbench201.network import EDGES, OPERATIONS, BenchmarkClassifier, cell_of, check_even
from jaxnas.spaces.parts.checks import at_least_one
from jaxnas.spaces.parts.graph import CellGraph, EdgeGroup, apply_cell
from jaxnas.spaces.parts.pieces import Fixed
from jaxnas.spaces.parts.skeleton import StandAlone, assemble

__all__ = ["live_operations", "nasbench201_small_space"]


@dataclasses.dataclass(frozen=True)
class SmallConfig:
    """Size of the small network.

    Attributes:
      channels: width of the first cell; the second has twice as many.
      num_classes: number of logits.
    """

    channels: int
    num_classes: int

    def __post_init__(self):
        """Checks sizes."""
        at_least_one(self, ("channels", "num_classes"))

    def pieces(self, style: Style) -> dict[str, Any]:
        """Two cells behind convolutions without normalisation, and the classifier."""
        stem, halve = (
            ConvNorm(factor * self.channels, factor, style, kernel=3, activation=activation, normalised=False)
            for factor, activation in ((1, None), (2, jax.nn.relu))
        )
        cells = [cell_of(OPERATIONS, (number + 1) * self.channels, style, number) for number in range(2)]
        return {
            "stem": Fixed("stem", stem),
            "cells": [dataclasses.replace(cell, spared=(Block,)) for cell in cells],  # trained without drop path
            "reduce": Fixed("reduce", halve),
            "head": {"classifier": Fixed("classifier", BenchmarkClassifier(self.num_classes))},
        }

    def forward(self, net: Any, x: jax.Array) -> jax.Array:
        """Logits of `x[B, H, W, C]`."""
        check_even(*x.shape[1:3])
        first, second = net["cells"]
        *_, x = first([net["stem"](x)])
        *_, x = second([net["reduce"](x)])
        return net["head"]["classifier"](jax.nn.relu(x))


def nasbench201_small_space(
    channels: int = 8, num_classes: int = 10, *, choice: Choice | None = None, reference: int = 0
) -> SearchSpace:
    """Two cells of NAS-Bench-201 (arXiv 2001.00326, section 2.1), the second with twice the channels.

    Args:
      channels: width of the first cell.
      num_classes: number of classes.
      choice: form in which the operation of a sparse path is run. `"switch"` runs it alone; `"kernel"` runs one
        convolution whose weights are selected, the form for `vmap` over architectures. None stands for `"switch"` on a
        CPU, where a loop over architectures is faster, and for `"kernel"` elsewhere.
      reference: number of examples at the head of a batch that give the statistics of normalisation, so that the others
        are judged independently of each other; 0 for all of them.

    Returns:
      The space, with `choices = {"cell": [6, 5]}`. Its images need even sides.

    Raises:
      UserError: a size below one, another `choice`.

    Example:
      >>> space = nasbench201_small_space(channels=4)
      >>> table = space.about.costs((8, 8, 3))["macs"]
      >>> int(table.fixed), table.table["cell"][0].tolist()
      (11610, [0, 0, 2048, 18432, 0])
    """
    if choice not in (None, "switch", "kernel"):
        raise UserError(f"choice must be 'switch', 'kernel' or None, got {choice!r}")
    chosen: Choice = choice or ("switch" if by_hand("auto") else "kernel")
    settings = {"channels": channels, "num_classes": num_classes, "choice": chosen, "reference": reference}
    config, style = SmallConfig(channels, num_classes), Style(affine=True)
    # Operations with the examples innermost; they take the weights of the blocks.
    cell, *_ = config.pieces(style)["cells"]
    blocks = cell.graph.groups["edges"].ops
    graph = CellGraph(EDGES, 1, {"edges": EdgeGroup(operations(blocks, reference), tuple(range(len(EDGES))))})
    classify = from_linen(BenchmarkClassifier(num_classes)).apply

    def form(*, momentum=0.9):
        return StandAlone(config, dataclasses.replace(style, running=True, momentum=momentum))

    def apply(params, paths, x, *, key=None):
        del key  # nothing in this space is random
        check_even(*x.shape[1:3])
        paths = paths.select(lambda tree: tree["cell"])
        # Stem, cell, strided convolution and cell, with the examples innermost.
        first, second = (functools.partial(_cell, graph, chosen, reference, cell, paths) for cell in params["cells"])
        x = first(batch_last.conv(batch_last.images_last(x), params["stem"]["kernel"]))
        x = second(batch_last.conv(jax.nn.relu(x), params["reduce"]["kernel"], 2))
        return classify(params["head"]["classifier"], jax.nn.relu(x).transpose(3, 1, 2, 0))

    space = assemble("nasbench201-small", config, style, form, settings)
    about = space.about._replace(
        genotype=lambda arch: genotype(OPERATIONS, arch_like(space.choices, arch)),
        parse=functools.partial(parse, OPERATIONS),
        edges={"cell": EDGES},
    )
    return space._replace(apply=apply, about=about)


def _cell(graph: CellGraph, choice: Choice, reference: int, params: Params, paths: Paths, x: jax.Array) -> jax.Array:
    """The last node of one cell."""
    if paths.index is None or paths.probe is not None or paths.weight.shape[-1] > 1:
        return apply_cell(graph, params, paths, [x])[-1]
    # One operation per edge, and none where nothing of it reaches the output.
    index = live_operations(paths.index[:, 0])
    nodes = {0: x}
    for number, (source, target) in enumerate(EDGES):
        weights = jax.tree.map(lambda leaf, number=number: leaf[number], params["edges"])
        y = paths.weight[number, 0] * edge(choice, reference, index[number], weights, nodes[source])
        nodes[target] = nodes[target] + y if target in nodes else y
    return nodes[3]


def live_operations(index: jax.Array) -> jax.Array:
    """The operations `[6]` of a cell, with `none` on edges into nodes from which nothing reaches the output."""
    runs = index != OPERATIONS.index("none")
    # A node is alive if an edge leads from it to the output, or to a node that is alive.
    second = runs[EDGES.index((2, 3))]
    first = runs[EDGES.index((1, 3))] | (runs[EDGES.index((1, 2))] & second)
    reaches = jnp.stack([{1: first, 2: second, 3: jnp.array(True)}[target] for _, target in EDGES])
    return jnp.where(reaches, index, OPERATIONS.index("none"))
