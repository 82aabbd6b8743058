"""The plan of the tree space: its size, the parts of its cells, and the way through them.

`jaxnas.spaces.parts.skeleton` makes the supernet and the stand-alone network of it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.errors import UserError
from jaxnas.ops import (
    Block,
    Classifier,
    ConvNorm,
    Identity,
    Pool,
    PreActConv,
    PreActSepConv,
    Style,
    channel_shuffle,
    drop_path,
)
from jaxnas.spaces.parts.cells import Cell
from jaxnas.spaces.parts.checks import at_least_one, known_operations
from jaxnas.spaces.parts.graph import CellGraph, group_of
from jaxnas.spaces.parts.pieces import Fixed
from jaxnas.spaces.parts.skeleton import StandAlone

__all__ = ["EDGES", "OPERATIONS", "Entry", "Exit", "TreeCell", "TreeConfig", "TreeNetwork", "operation"]

OPERATIONS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "identity",
    "avg_pool_3x3",
    "max_pool_3x3",
)
# Nodes 0 and 1 are the two branches of the root, 2 to 5 their children, 6 and 7 what comes back from each branch.
EDGES = ((0, 2), (0, 3), (1, 4), (1, 5), (2, 6), (2, 6), (3, 6), (3, 6), (4, 7), (4, 7), (5, 7), (5, 7))


@dataclasses.dataclass(frozen=True)
class TreeConfig:
    """Size of a PyramidNet of tree cells; the defaults are those of the paper.

    Attributes:
      blocks: number of cells in every stage.
      stages: number of stages; the grid is halved between two of them.
      stem: channels of the first convolution.
      alpha: by how much the inner width of the cells grows from the first to the last, at least 0.
      bottleneck: factor from a cell's inner to its outer width.
      groups: groups of the convolution at the root of a cell; inner widths are rounded down to a multiple of them.
      num_classes: number of logits.
      operations: the candidates of every edge, in order.
    """

    blocks: int = 18
    stages: int = 3
    stem: int = 16
    alpha: float = 84.0
    bottleneck: int = 4
    groups: int = 2
    num_classes: int = 10
    operations: tuple[str, ...] = OPERATIONS

    def __post_init__(self):
        """Checks sizes and operation names."""
        at_least_one(self, ("blocks", "stages", "stem", "bottleneck", "groups", "num_classes"))
        if not self.alpha >= 0:
            raise UserError(f"alpha must be at least 0, got {self.alpha}")
        if self.stem < self.groups:
            raise UserError(f"stem_channels must be at least groups, {self.groups}, got {self.stem}")
        known_operations(self.operations, OPERATIONS)

    @property
    def cells(self) -> tuple["TreeCell", ...]:
        """The cells from the image to the classifier."""
        return tuple(_cells(self))

    def pieces(self, style: Style) -> dict[str, Any]:
        """Stem, the entry, the tree and the exit of every cell, and the head."""
        return {
            "stem": Fixed("stem", ConvNorm(self.stem, 1, style, kernel=3, activation=None)),
            "cells": [self._cell(cell, style) for cell in self.cells],
            "last": {"norm": Fixed("last_norm", style.norm())},
            "classifier": Fixed("classifier", Classifier(self.num_classes, bias=0.0)),
        }

    def _cell(self, cell: "TreeCell", style: Style) -> dict[str, Any]:
        blocks = {name: operation(name, cell.inner, style) for name in self.operations}
        groups = {"edges": group_of(blocks, tuple(range(len(EDGES))))}
        graph = CellGraph(EDGES, 2, groups, scanned=style.lowering != "lax")
        return {
            "entry": Fixed(f"cell{cell.number}_entry", Entry(2 * cell.inner, cell.stride, style, cell.groups)),
            "edges": Cell("edges", graph, cell.number, cell.rows),
            "exit": Fixed(f"cell{cell.number}_exit", Exit(cell.features, 1, style)),
        }

    def forward(self, net: Any, x: jax.Array) -> jax.Array:
        """Logits of `x[B, H, W, C]`."""
        x = net["stem"](x)
        for cell, parts in zip(self.cells, net["cells"], strict=True):
            # The tree: two branches, each split in two twice; all that comes back to a branch is added to it.
            branches = parts["entry"](x)
            *_, left, right = parts["edges"](branches)
            x = cell.shortcut(x) + parts["exit"]((branches, (left, right)))
        return net["classifier"](jax.nn.relu(net["last"]["norm"](x)))


class TreeCell(NamedTuple):
    """One cell.

    Attributes:
      number: place of the cell in the network, from 0.
      features_in: channels of the input.
      inner: channels of the tree.
      features: channels of the output.
      stride: stride of the root, 1 or 2.
      groups: groups of the root.
    """

    number: int
    features_in: int
    inner: int
    features: int
    stride: int
    groups: int

    @property
    def rows(self) -> slice:
        """The decisions of this cell."""
        return slice(self.number * len(EDGES), (self.number + 1) * len(EDGES))

    def shortcut(self, x: jax.Array) -> jax.Array:
        """The input, averaged over 2x2 pixels where the grid is halved, with channels of zeros for those it lacks.

        Raises:
          UserError: an odd grid that is to be halved.
        """
        if self.stride == 2:
            batch, height, width, channels = x.shape
            if height % 2 or width % 2:
                raise UserError(f"image size: halving the grid needs an even height and width, got {height}x{width}")
            x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - self.features_in)))


def _cells(config: TreeConfig) -> Iterator[TreeCell]:
    width, features = float(config.stem), config.stem
    for number in range(config.blocks * config.stages):
        width += config.alpha / (config.blocks * config.stages)  # PyramidNet's additive widening
        inner = round(width) // config.groups * config.groups
        stride = 2 if number and number % config.blocks == 0 else 1
        yield TreeCell(number, features, inner, config.bottleneck * inner, stride, config.groups)
        features = config.bottleneck * inner


class Entry(Block):
    """The way from the input of a cell to the branches of its tree: 1x1 convolution, grouped 3x3 convolution, shuffle.

    Attributes:
      groups: groups of the 3x3 convolution.
    """

    groups: int = 1

    def parts(self) -> tuple[PreActConv, PreActConv]:
        """The two convolutions, of which the second doubles the channels."""
        narrow = PreActConv(self.features // 2, 1, self.style, activation=None, parent=None)
        return narrow, PreActConv(self.features, self.stride, self.style, kernel=3, groups=self.groups, parent=None)

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Two arrays with half of the features each."""
        narrow, root = self.parts()
        x = root.clone(name="root", parent=self)(narrow.clone(name="narrow", parent=self)(x))
        return self._branches(channel_shuffle(x, self.groups))

    def output(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Zeros like both branches."""
        return self._branches(super().output(x))

    def _branches(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jnp.split(x, 2, -1)
        return first, second

    def cost(self, in_features, height, width):
        """The sum of both convolutions."""
        narrow, root = self.parts()
        return narrow.cost(in_features, height, width) + root.cost(narrow.features, height, width)


class Exit(Block):
    """The way from branches and their trees to the output of a cell before its shortcut is added.

    `norm(conv(sum_b (branch_b + norm_b(tree_b))))`.
    """

    def widen(self) -> PreActConv:
        """The 1x1 convolution to the outer width."""
        return PreActConv(self.features, 1, self.style, parent=None)

    @nn.compact
    def __call__(self, x: tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]) -> jax.Array:
        """Applies the part to `(branches, trees)`."""
        branches, trees = x
        # norm(conv(sum_b (branch_b + norm_b(tree_b)))).
        sums = [b + self.style.norm(f"branch{i}_norm")(t) for i, (b, t) in enumerate(zip(branches, trees, strict=True))]
        y = self.widen().clone(name="widen", parent=self)(sums[0] + sums[1])
        return self.style.norm("norm")(y)

    def output(self, x: Any) -> jax.Array:
        """Zeros like the output."""
        return super().output(x[0][0])

    def cost(self, in_features, height, width):
        """The sum of the convolution and all normalisations."""
        inner = self.style.norm_cost(in_features)
        return inner + inner + self.widen().cost(in_features, height, width) + self.style.norm_cost(self.features)


def operation(name: str, features: int, style: Style) -> Block:
    """The block of one of the `OPERATIONS`."""
    if name == "identity":
        return Identity(features, 1, style)
    if name.endswith("pool_3x3"):
        return Pool(features, 1, style, kind=name[:3], normalised=False)
    return PreActSepConv(features, 1, style, kernel=int(name[-1]), dilation=2 if name.startswith("dil") else 1)


class TreeNetwork(StandAlone):
    """The stand-alone network of one architecture.

    Attributes:
      cell_drop: mean probability that a cell is left out while training, below one half or a little more; of the
        `l`-th of `L` cells it is `2 l cell_drop / (L + 1)`.
    """

    cell_drop: float = 0.0

    def adapted(self, net, train, drop_rate):
        """Leaves whole cells out, later ones more often."""
        del train
        if drop_rate is None or not self.cell_drop:
            return net

        # The l-th of L cells is left out with probability 2 l cell_drop / (L + 1), at its exit.
        def dropping(number, leave):
            rate = 2 * (number + 1) * self.cell_drop / (len(net["cells"]) + 1)
            return lambda x: drop_path(self.make_rng("dropout"), leave(x), rate)

        cells = [{**cell, "exit": dropping(number, cell["exit"])} for number, cell in enumerate(net["cells"])]
        return {**net, "cells": cells}
