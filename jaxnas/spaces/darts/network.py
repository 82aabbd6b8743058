"""The plan of the DARTS network: its size, its cells, the blocks of their edges, and the way through them.

`jaxnas.spaces.parts.skeleton` makes the supernet and the stand-alone network of it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.errors import UserError
from jaxnas.ops import (
    Block,
    Classifier,
    ConvNorm,
    Cost,
    DilConv,
    FactorizedReduce,
    Identity,
    Pool,
    SepConv,
    Style,
    Zero,
    torch_uniform,
)
from jaxnas.spaces.parts.cells import Cell
from jaxnas.spaces.parts.checks import at_least_one, known_operations
from jaxnas.spaces.parts.graph import CellGraph, group_of
from jaxnas.spaces.parts.pieces import Fixed
from jaxnas.spaces.parts.skeleton import StandAlone

__all__ = ["PRIMITIVES", "AuxiliaryHead", "CellPlan", "DartsConfig", "DartsNetwork", "cell_plans", "edges", "operation"]

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


@dataclasses.dataclass(frozen=True)
class DartsConfig:
    """Size of a network of cells.

    Attributes:
      channels: width of the first cell; reduction cells double it.
      cells: depth; cells `cells // 3` and `2 * cells // 3` are reduction cells.
      num_classes: number of logits.
      nodes: intermediate nodes per cell.
      stem_multiplier: the stem has `stem_multiplier * channels` channels.
      operations: the candidates of every edge, in order.
      pool_norm: whether pooling is normalised, as in search networks and SNAS, but not in DARTS's final network.
      auxiliary: whether there is an auxiliary head after the second reduction, which only runs while training.
    """

    channels: int = 16
    cells: int = 8
    num_classes: int = 10
    nodes: int = 4
    stem_multiplier: int = 3
    operations: tuple[str, ...] = PRIMITIVES
    pool_norm: bool = True
    auxiliary: bool = False

    def __post_init__(self):
        """Checks sizes and operation names."""
        at_least_one(self, ("channels", "cells", "num_classes", "nodes", "stem_multiplier"))
        known_operations(self.operations, PRIMITIVES)

    def pieces(self, style: Style) -> dict[str, Any]:
        """Stem, cells and classifier; the stem's normalisation always has a scale and an offset."""
        affine = dataclasses.replace(style, affine=True)
        stem = ConvNorm(self.stem_multiplier * self.channels, 1, affine, kernel=3, activation=None)
        pieces: dict[str, Any] = {
            "stem": Fixed("stem", stem),
            "cells": [self._cell(i, plan, style) for i, plan in enumerate(cell_plans(self))],
            "classifier": Fixed("classifier", Classifier(self.num_classes)),
        }
        if self.auxiliary:
            pieces["auxiliary"] = Fixed("auxiliary", AuxiliaryHead(self.num_classes, style))
        return pieces

    def _cell(self, i: int, plan: "CellPlan", style: Style) -> dict[str, Any]:
        """What brings both inputs to the width and grid of a cell, and its edges."""
        # Edges in groups of one stride: those from the inputs of a reduction cell halve the grid.
        groups = {}
        for stride in (2, 1):
            rows = tuple(row for row, (source, _) in enumerate(edges(self.nodes)) if plan.stride(source) == stride)
            if rows:
                named = {
                    name: operation(name, plan.features, stride, style, self.pool_norm) for name in self.operations
                }
                groups[f"stride{stride}"] = group_of(named, rows)
        graph = CellGraph(edges(self.nodes), 2, groups, scanned=style.lowering != "lax")
        # Both inputs are brought to the width and the grid of the cell.
        reduce, convolve = FactorizedReduce(plan.features, 2, style), ConvNorm(plan.features, 1, style)
        return {
            "pre0": Fixed(f"cell{i}_pre0", reduce if plan.after_reduction else convolve),
            "pre1": Fixed(f"cell{i}_pre1", convolve),
            "edges": Cell(plan.kind, graph, i, spared=(Identity,)),
        }

    def forward(self, net: Any, x: jax.Array) -> Any:
        """Logits, and beside them those of the auxiliary head where `net` has one."""
        before = last = net["stem"](x)
        extra = None
        for i, cell in enumerate(net["cells"]):
            nodes = cell["edges"]([cell["pre0"](before), cell["pre1"](last)])
            before, last = last, jnp.concatenate(nodes, -1)  # section 2.1: the output joins all intermediate nodes
            if i == 2 * self.cells // 3 and net.get("auxiliary"):
                extra = net["auxiliary"](last)
        logits = net["classifier"](last)
        return logits if extra is None else (logits, extra)


class CellPlan(NamedTuple):
    """One cell.

    Attributes:
      reduction: whether it halves the grid.
      after_reduction: whether the cell before it does.
      features: width of its operations.
    """

    reduction: bool
    after_reduction: bool
    features: int

    @property
    def kind(self) -> str:
        """The key of the cell's architecture in `choices`."""
        return "reduce" if self.reduction else "normal"

    def stride(self, source: int) -> int:
        """Stride of an edge that leaves node `source`."""
        return 2 if self.reduction and source < 2 else 1


def edges(nodes: int) -> tuple[tuple[int, int], ...]:
    """`(source, target)` of every edge: nodes 0 and 1 are the inputs, node `2 + i` has `2 + i` incoming edges."""
    return tuple((source, 2 + i) for i in range(nodes) for source in range(2 + i))


def cell_plans(config: DartsConfig) -> Iterator[CellPlan]:
    """The cells of a network, in order."""
    features, after = config.channels, False
    for i in range(config.cells):
        # Reduction cells, at one and two thirds of the depth, double the width.
        reduction = i in (config.cells // 3, 2 * config.cells // 3)
        features *= 2 if reduction else 1
        yield CellPlan(reduction, after, features)
        after = reduction


def operation(name: str, features: int, stride: int, style: Style, pool_norm: bool) -> Block:
    """The block of one of the `PRIMITIVES`."""
    if name in ("max_pool_3x3", "avg_pool_3x3"):
        return Pool(features, stride, style, kind=name[:3], normalised=pool_norm)
    if name == "skip_connect":
        return Identity(features) if stride == 1 else FactorizedReduce(features, stride, style)
    if name == "none":
        return Zero(features, stride)
    block = SepConv if name.startswith("sep") else DilConv
    return block(features, stride, style, kernel=int(name[-1]))


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier of the CIFAR recipe, on 8x8 inputs.

    Attributes:
      num_classes: number of logits.
      style: how its normalisations keep running averages; they always have a scale and an offset.

    Raises:
      UserError: another input size.
    """

    num_classes: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[B, num_classes]`."""
        if x.shape[1:3] != (8, 8):
            raise UserError(f"auxiliary head: needs 8x8 inputs (32x32 images), got {x.shape[1]}x{x.shape[2]}")
        # Pooled to 2x2, a 1x1 convolution to 128 channels, a 2x2 convolution to 768.
        x = nn.avg_pool(jax.nn.relu(x), window_shape=(5, 5), strides=(3, 3), padding="VALID")
        x = ConvNorm(128, 1, dataclasses.replace(self.style, affine=True), activation=None, name="reduce")(x)
        kernel = self.param("kernel", torch_uniform(2 * 2 * 128), (2, 2, 128, 768))
        x = lax.conv_general_dilated(
            jax.nn.relu(x), kernel.astype(x.dtype), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(dataclasses.replace(self.style, affine=True).norm("norm")(x))
        return Classifier(self.num_classes, name="classifier")(x)

    def output(self, x: jax.Array) -> jax.Array:
        """Zeros with the shape of the logits."""
        return Classifier(self.num_classes, parent=None).output(x)

    def cost(self, in_features: int, height: int = 8, width: int = 8) -> Cost:
        """The parameters of the head, and no multiply-adds for an image, since it only runs in training."""
        del height, width
        norms = 2 * 128 + 2 * 768  # a scale and an offset per channel
        classifier = Classifier(self.num_classes, parent=None).cost(768).parameters
        return Cost(in_features * 128 + 2 * 2 * 128 * 768 + norms + classifier, 0)


class DartsNetwork(StandAlone):
    """The stand-alone network of one architecture, whose auxiliary head runs in training alone."""

    def adapted(self, net, train, drop_rate):
        """Leaves the auxiliary head out of use, not out of the weights."""
        del drop_rate
        return net if train or self.is_initializing() else {**net, "auxiliary": None}
