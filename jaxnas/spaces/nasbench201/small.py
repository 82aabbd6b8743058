"""The cell space of NAS-Bench-201 in a network of two cells, small enough to train every architecture of it.

The network is a 3x3 convolution, a cell, ReLU, a 3x3 convolution with stride two to twice the channels, a cell, ReLU,
global average pooling and a dense layer. Its supernet computes with the examples innermost (`jaxnas.ops.batch_last`);
a sparse path keeps one image per edge for the backward pass and leaves out edges into nodes that lead nowhere.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, CostTable, Params, Paths, SearchSpace
from jaxnas.errors import UserError
from jaxnas.ops import Classifier, ConvNorm, Cost, Style, batch_last, by_hand, from_linen, one_draw, torch_uniform
from jaxnas.spaces.nasbench201.edge import Choice, edge, operations
from jaxnas.spaces.nasbench201.genotype import genotype, parse
from jaxnas.spaces.nasbench201.network import EDGES, OPERATIONS, check_even, operation
from jaxnas.spaces.parts.cell import CellGraph, EdgeGroup, apply_cell, edge_params, init_cell, used_cell
from jaxnas.spaces.parts.checks import reference_examples
from jaxnas.spaces.parts.inherit import linen_network

__all__ = ["live_operations", "nasbench201_small_space"]


def nasbench201_small_space(
    channels: int = 8, num_classes: int = 10, *, choice: Choice | None = None, reference: int = 0
) -> SearchSpace:
    """Two cells of NAS-Bench-201 (arXiv 2001.00326, section 2.1), the second with twice the channels.

    Args:
      channels: of the first cell.
      num_classes: number of classes.
      choice: how the operation of a sparse path is run: `"switch"` runs it alone, `"kernel"` runs one convolution
        whose weights are selected, the form for `vmap` over architectures; None for `"switch"` on a CPU, where a loop
        over architectures is faster, and `"kernel"` elsewhere.
      reference: normalise with the statistics of the first `reference` examples of a batch instead of all of them, so
        that the others are judged independently of each other.

    Returns:
      The space, with `choices = {"cell": [6, 5]}`. Its images need even sides.

    Raises:
      UserError: a size below one, another `choice`.
    """
    for name, value in (("channels", channels), ("num_classes", num_classes)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    reference_examples(reference)
    if choice not in (None, "switch", "kernel"):
        raise UserError(f"choice must be 'switch', 'kernel' or None, got {choice!r}")
    chosen: Choice = choice or ("switch" if by_hand("auto") else "kernel")
    widths = (channels, 2 * channels)
    graphs = [CellGraph(EDGES, 1, {"edges": _group(features, reference)}) for features in widths]
    head = from_linen(Classifier(num_classes))

    def init(key, x):
        key_stem, key_reduce, key_head, *keys = jax.random.split(key, 5)
        check_even(*x.shape[1:3])
        cells = [init_cell(k, graph, {"edges": x}) for k, graph in zip(keys, graphs, strict=True)]
        return {
            "stem": {"kernel": _kernel(key_stem, x.shape[-1], channels)},
            "cells": cells,
            "reduce": {"kernel": _kernel(key_reduce, *widths)},
            "head": {"classifier": head.init(key_head, jnp.zeros((1, 1, 1, widths[1])))},
        }

    def apply(params, paths, x, *, key=None):
        del key  # nothing in this space is random
        check_even(*x.shape[1:3])
        own = paths.select(lambda tree: tree["cell"])
        x = batch_last.conv(batch_last.images_last(x), params["stem"]["kernel"])
        x = _cell(graphs[0], chosen, reference, params["cells"][0], own, x)
        x = batch_last.conv(jax.nn.relu(x), params["reduce"]["kernel"], 2)
        x = _cell(graphs[1], chosen, reference, params["cells"][1], own, x)
        return head.apply(params["head"]["classifier"], jax.nn.relu(x).transpose(3, 1, 2, 0))

    def used(params, paths):
        own = paths.select(lambda tree: tree["cell"])
        mask = jax.tree.map(lambda leaf: True, {**params, "cells": []})
        cells = zip(graphs, params["cells"], strict=True)
        return {**mask, "cells": [used_cell(graph, cell, own) for graph, cell in cells]}

    choices = {"cell": jax.ShapeDtypeStruct((len(EDGES), len(OPERATIONS)), jnp.float32)}
    config = {"channels": channels, "num_classes": num_classes, "choice": chosen, "reference": reference}
    about = _about(channels, num_classes, graphs, choices, config)
    return SearchSpace(one_draw(init), apply, used, greatest, choices, about)


def _group(features: int, reference: int) -> EdgeGroup:
    return EdgeGroup(operations(features, reference), tuple(range(len(EDGES))))


def _kernel(key: jax.Array, channels: int, features: int) -> jax.Array:
    return torch_uniform(9 * channels)(key, (3, 3, channels, features))


def _cell(graph: CellGraph, choice: Choice, reference: int, params: Params, paths: Paths, x: jax.Array) -> jax.Array:
    """The last node of one cell."""
    if paths.index is None or paths.probe is not None or paths.weight.shape[-1] > 1:
        return apply_cell(graph, params, paths, [x])[-1]
    index = live_operations(paths.index[:, 0])
    nodes = {0: x}
    for number, (source, target) in enumerate(EDGES):
        own = jax.tree.map(lambda leaf, number=number: leaf[number], params["edges"])
        y = paths.weight[number, 0] * edge(choice, reference, index[number], own, nodes[source])
        nodes[target] = nodes[target] + y if target in nodes else y
    return nodes[3]


def live_operations(index: jax.Array) -> jax.Array:
    """The operations `[6]` of a cell, with `none` on edges into nodes from which nothing reaches the output."""
    runs = index != OPERATIONS.index("none")
    second = runs[EDGES.index((2, 3))]
    first = runs[EDGES.index((1, 3))] | (runs[EDGES.index((1, 2))] & second)
    reaches = jnp.stack([{1: first, 2: second, 3: jnp.array(True)}[target] for _, target in EDGES])
    return jnp.where(reaches, index, OPERATIONS.index("none"))


class _Network(nn.Module):
    """The stand-alone network of one architecture, on images `[B, H, W, C]`."""

    channels: int
    num_classes: int
    cell: tuple[int, ...]
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: jax.Array | float | None = None) -> jax.Array:
        style = dataclasses.replace(self.style, train=train)
        del drop_rate  # the benchmark trains without drop path
        x = _conv(self.channels, 1, style, False).clone(name="stem", parent=self)(x)
        for number in range(2):
            features = self.channels * (number + 1)
            if number:
                x = _conv(features, 2, style, True).clone(name="reduce", parent=self)(x)
            nodes: list[Any] = [x, 0, 0, 0]
            for e, (source, target) in enumerate(EDGES):
                name = OPERATIONS[self.cell[e]]
                block = operation(name, features, style).clone(name=f"cell{number}_edge{e}_{name}", parent=self)
                nodes[target] = nodes[target] + block(nodes[source])
            x = nodes[-1]
        return Classifier(self.num_classes, name="classifier")(jax.nn.relu(x))


def _conv(features: int, stride: int, style: Style, relu: bool) -> ConvNorm:
    """A 3x3 convolution without normalisation."""
    return ConvNorm(features, stride, style, kernel=3, relu=relu, normalised=False, parent=None)


def _about(channels, num_classes, graphs, choices, config) -> About:
    def costs(image_shape, *, momentum=0.9):
        del momentum  # costs nothing
        return _cost_tables(channels, num_classes, image_shape)

    def network(arch, *, momentum=0.9):
        cell = tuple(arch_like(choices, arch)["cell"].tolist())
        module = _Network(channels, num_classes, cell, Style(affine=True, running=True, momentum=momentum))
        return linen_network(module, lambda params: _inherit(graphs, cell, params))

    return About(
        name="nasbench201-small",
        operations={"cell": OPERATIONS},
        size=len(OPERATIONS) ** len(EDGES),
        costs=costs,
        genotype=lambda arch: genotype(OPERATIONS, arch_like(choices, arch)),
        parse=functools.partial(parse, OPERATIONS),
        network=network,
        edges={"cell": EDGES},
        config=config,
    )


def _inherit(graphs, cell: tuple[int, ...], params: Params):
    named = {name: params[name] for name in ("stem", "reduce")} | params["head"]
    for number, graph in enumerate(graphs):
        for e, k in enumerate(cell):
            name = OPERATIONS[k]
            named[f"cell{number}_edge{e}_{name}"] = edge_params(graph, params["cells"][number], e, name)
    return named, jax.ShapeDtypeStruct((4, 8, 8, params["stem"]["kernel"].shape[2]), jnp.float32)


def _cost_tables(channels: int, num_classes: int, image_shape: tuple[int, int, int]) -> dict[str, CostTable]:
    """Parameters and multiply-adds of the stand-alone network; the classifier's bias is counted as in the benchmark."""
    height, width, depth = image_shape
    style = Style(affine=True)
    fixed = _conv(channels, 1, style, False).cost(depth, height, width)
    fixed += _conv(2 * channels, 2, style, True).cost(channels, height, width)
    fixed += Classifier(num_classes).cost(2 * channels) + Cost(0, num_classes)
    row = np.zeros((len(OPERATIONS), 2), np.int64)
    for k, name in enumerate(OPERATIONS):
        for factor in (1, 2):
            features = factor * channels
            row[k] += np.array(operation(name, features, style).cost(features, height // factor, width // factor))
    table = np.broadcast_to(row, (len(EDGES), *row.shape))
    return {name: CostTable(getattr(fixed, name), {"cell": table[..., i]}) for i, name in enumerate(Cost._fields)}
