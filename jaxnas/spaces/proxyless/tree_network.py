"""The backbone of the tree space: its plan, its parts, its costs and its stand-alone network.

`jaxnas.spaces.proxyless.tree` builds the supernet from the same plan and the same parts.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import CostTable
from jaxnas.errors import UserError
from jaxnas.ops import (
    Block,
    Classifier,
    ConvNorm,
    Cost,
    Identity,
    Pool,
    PreActConv,
    PreActSepConv,
    Style,
    channel_shuffle,
    drop_path,
)
from jaxnas.spaces.parts.checks import at_least_one, known_operations

__all__ = ["EDGES", "OPERATIONS", "Entry", "Exit", "TreeCell", "TreeConfig", "TreeNetwork", "cost_tables", "operation"]

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
      blocks: cells of every stage.
      stages: the grid is halved between two of them.
      stem: channels of the first convolution.
      alpha: by how much the inner width of the cells grows from the first to the last.
      bottleneck: factor from a cell's inner to its outer width.
      groups: of the convolution at the root of a cell; inner widths are rounded down to a multiple.
      num_classes: width of the output.
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

    @property
    def rows(self) -> int:
        """Decisions of the whole network."""
        return len(EDGES) * self.blocks * self.stages


class TreeCell(NamedTuple):
    """One cell.

    Attributes:
      number: which, from 0.
      features_in: channels of the input.
      inner: channels of the tree.
      features: channels of the output.
      stride: of the root.
      groups: of the root.
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
        width += config.alpha / (config.blocks * config.stages)
        inner = round(width) // config.groups * config.groups
        stride = 2 if number and number % config.blocks == 0 else 1
        yield TreeCell(number, features, inner, config.bottleneck * inner, stride, config.groups)
        features = config.bottleneck * inner


class Entry(nn.Module):
    """From the input of a cell to the two branches of its tree: 1x1 convolution, grouped 3x3 convolution, shuffle.

    Attributes:
      cell: which.
      style: normalisation and lowering.
    """

    cell: TreeCell
    style: Style

    def parts(self) -> tuple[PreActConv, PreActConv]:
        """Both convolutions; the second doubles the channels."""
        narrow = PreActConv(self.cell.inner, 1, self.style, relu=False, parent=None)
        root = PreActConv(
            2 * self.cell.inner, self.cell.stride, self.style, kernel=3, groups=self.cell.groups, parent=None
        )
        return narrow, root

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Two arrays of the cell's inner width."""
        narrow, root = self.parts()
        x = root.clone(name="root", parent=self)(narrow.clone(name="narrow", parent=self)(x))
        first, second = jnp.split(channel_shuffle(x, self.cell.groups), 2, -1)
        return first, second

    def cost(self, height: int, width: int) -> Cost:
        """Of both convolutions."""
        narrow, root = self.parts()
        return narrow.cost(self.cell.features_in, height, width) + root.cost(self.cell.inner, height, width)


class Exit(nn.Module):
    """From branches and their trees to what is added to the shortcut.

    `norm(conv(sum_b (branch_b + norm_b(tree_b))))`.

    Attributes:
      cell: which.
      style: normalisation and lowering.
    """

    cell: TreeCell
    style: Style

    def widen(self) -> PreActConv:
        """The 1x1 convolution to the outer width."""
        return PreActConv(self.cell.features, 1, self.style, parent=None)

    @nn.compact
    def __call__(self, x: tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]) -> jax.Array:
        """Applies the part to `(branches, trees)`."""
        branches, trees = x
        sums = [b + self.style.norm(f"branch{i}_norm")(t) for i, (b, t) in enumerate(zip(branches, trees, strict=True))]
        y = self.widen().clone(name="widen", parent=self)(sums[0] + sums[1])
        return self.style.norm("norm")(y)

    def cost(self, height: int, width: int) -> Cost:
        """Of the convolution and all normalisations."""
        inner = self.style.norm_cost(self.cell.inner)
        outer = self.widen().cost(self.cell.inner, height, width) + self.style.norm_cost(self.cell.features)
        return inner + inner + outer


def operation(name: str, features: int, style: Style) -> Block:
    """The block of one of the `OPERATIONS`."""
    if name == "identity":
        return Identity(features, 1, style)
    if name.endswith("pool_3x3"):
        return Pool(features, 1, style, kind=name[:3], normalised=False)
    return PreActSepConv(features, 1, style, kernel=int(name[-1]), dilation=2 if name.startswith("dil") else 1)


def stem(config: TreeConfig, style: Style) -> ConvNorm:
    """3x3 convolution and normalisation."""
    return ConvNorm(config.stem, 1, style, kernel=3, relu=False)


class TreeNetwork(nn.Module):
    """The stand-alone network of one architecture.

    Attributes:
      config: size of the network.
      chosen: operations of all edges, `EDGES` of one cell after the other.
      style: normalisation and lowering; `style.train` is set by the call.
      cell_drop: mean probability that a cell is left out while training; of the `l`-th of `L` cells it is
        `2 l cell_drop / (L + 1)`.
    """

    config: TreeConfig
    chosen: tuple[str, ...]
    style: Style
    cell_drop: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: jax.Array | float | None = None) -> jax.Array:
        """Logits of `x[B, H, W, C]`.

        Args:
          x: images.
          train: use the statistics of the batch.
          drop_rate: probability that the output of an edge is left out, from the stream `dropout`; None turns this and
            the dropping of cells off.
        """
        style = dataclasses.replace(self.style, train=train)
        x = stem(self.config, style).clone(name="stem", parent=self)(x)
        cells = self.config.cells
        for cell in cells:
            y = self._cell(cell, style, x, drop_rate)
            if drop_rate is not None and self.cell_drop:
                rate = 2 * (cell.number + 1) * self.cell_drop / (len(cells) + 1)
                y = drop_path(self.make_rng("dropout"), y, rate)
            x = cell.shortcut(x) + y
        x = jax.nn.relu(style.norm("last_norm")(x))
        return Classifier(self.config.num_classes, bias=0.0, name="classifier")(x)

    def _cell(self, cell: TreeCell, style: Style, x, drop_rate) -> jax.Array:
        branches = Entry(cell, style, name=f"cell{cell.number}_entry")(x)
        nodes = dict(enumerate(branches))
        for edge, ((source, target), name) in enumerate(zip(EDGES, self.chosen[cell.rows], strict=True)):
            block = operation(name, cell.inner, style)
            y = block.clone(name=f"cell{cell.number}_edge{edge}_{name}", parent=self)(nodes[source])
            y = y if drop_rate is None else drop_path(self.make_rng("dropout"), y, drop_rate)
            nodes[target] = nodes[target] + y if target in nodes else y
        return Exit(cell, style, name=f"cell{cell.number}_exit")((branches, (nodes[6], nodes[7])))


def cost_tables(config: TreeConfig, style: Style, image_shape: tuple[int, int, int]) -> dict[str, CostTable]:
    """Parameters and multiply-adds of the stand-alone network; tables `{"edges": [rows, K]}`."""
    height, width, channels = image_shape
    fixed = stem(config, style).cost(channels, height, width)
    table = np.zeros((config.rows, len(config.operations), 2), np.int64)
    for cell in config.cells:
        fixed += Entry(cell, style).cost(height, width)
        height, width = -(-height // cell.stride), -(-width // cell.stride)
        fixed += Exit(cell, style).cost(height, width)
        for k, name in enumerate(config.operations):
            table[cell.rows, k] = operation(name, cell.inner, style).cost(cell.inner, height, width)
    features = config.cells[-1].features
    fixed += style.norm_cost(features) + Classifier(config.num_classes).cost(features)
    return {name: CostTable(getattr(fixed, name), {"edges": table[..., i]}) for i, name in enumerate(Cost._fields)}
