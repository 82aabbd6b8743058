"""The NAS-Bench-201 macro structure: its plan, its stand-alone network as a Linen module, and its exact costs.

`jaxnas.spaces.nasbench201` builds the supernet from the same plan and the same blocks.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, CostTable
from jaxnas.ops import Block, Classifier, ConvNorm, Cost, Identity, Norm, Pool, Style, Zero, conv, drop_path
from jaxnas.spaces.checks import at_least_one, known_operations

__all__ = [
    "EDGES",
    "OPERATIONS",
    "NasBench201Config",
    "NasBench201Network",
    "ResidualReduce",
    "check_even",
    "cost_tables",
    "genotype",
    "last_norm",
    "operation",
    "parse",
    "reduction",
    "stem",
]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target); node 0 is the input, node 3 the output
STAGES = 3


@dataclasses.dataclass(frozen=True)
class NasBench201Config:
    """Size of a network of three stages.

    Attributes:
      channels: of the first stage; each further stage doubles them and halves the grid.
      cells: per stage.
      num_classes: width of the output.
      operations: the candidates of every edge, in order.
    """

    channels: int = 16
    cells: int = 5
    num_classes: int = 10
    operations: tuple[str, ...] = OPERATIONS

    def __post_init__(self):
        """Checks sizes and operation names."""
        at_least_one(self, ("channels", "cells", "num_classes"))
        known_operations(self.operations, OPERATIONS)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the three stages."""
        return tuple(self.channels * 2**stage for stage in range(STAGES))


class ResidualReduce(Block):
    """Halves the grid between two stages: two 3x3 convolutions, and beside them a pooled 1x1 convolution.

    `ReLU-Conv3x3(stride 2)-BN-ReLU-Conv3x3-BN + Conv1x1(AvgPool2x2)`; the shortcut is not normalised.

    Raises:
      ValueError: odd height or width.
    """

    stride: int = 2

    def _halves(self) -> tuple[ConvNorm, ConvNorm]:
        first = ConvNorm(self.features, 2, self.style, kernel=3, parent=None)
        return first, ConvNorm(self.features, 1, self.style, kernel=3, parent=None)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Halves `x` in height and width."""
        batch, height, width, channels = x.shape
        check_even(height, width)
        first, second = self._halves()
        y = second.clone(name="second", parent=self)(first.clone(name="first", parent=self)(x))
        pooled = jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), (2, 4))
        kernel = self._kernel("shortcut", 1, channels, self.features)
        return conv(pooled, kernel, lowering=self.style.lowering) + y

    def cost(self, in_features, height, width):
        """Both convolutions, and `C * D` weights of the shortcut used once per output pixel."""
        check_even(height, width)
        first, second = self._halves()
        weights = in_features * self.features
        total = Cost(weights, weights * self._pixels(height, width)) + first.cost(in_features, height, width)
        return total + second.cost(self.features, height // 2, width // 2)


def check_even(height: int, width: int) -> None:
    """Raises `ValueError` for a grid that cannot be halved."""
    if height % 2 or width % 2:
        raise ValueError(f"image size: halving the grid needs an even height and width, got {height}x{width}")


def operation(name: str, features: int, style: Style) -> Block:
    """The block of one of the `OPERATIONS`; average pooling is not normalised."""
    if name == "none":
        return Zero(features)
    if name == "skip_connect":
        return Identity(features)
    if name == "avg_pool_3x3":
        return Pool(features, 1, style, kind="avg", normalised=False)
    return ConvNorm(features, 1, style, kernel=int(name[-1]))


def stem(config: NasBench201Config, style: Style) -> ConvNorm:
    """3x3 convolution and normalisation; no ReLU."""
    return ConvNorm(config.channels, 1, _affine(style), kernel=3, relu=False)


def reduction(features: int, style: Style) -> ResidualReduce:
    """What leads into a stage of width `features`."""
    return ResidualReduce(features, 2, _affine(style))


def last_norm(style: Style) -> Norm:
    """The normalisation after the last cell."""
    return _affine(style).norm()


def _affine(style: Style) -> Style:
    """Outside cells normalisation has a scale and an offset, in the search too."""
    return dataclasses.replace(style, affine=True)


class NasBench201Network(nn.Module):
    """The stand-alone network of one architecture.

    Attributes:
      config: size of the network.
      cell: operation of every edge, as an index into `config.operations`.
      style: normalisation and lowering; `style.train` is set by the call.
    """

    config: NasBench201Config
    cell: tuple[int, ...]
    style: Style = Style(affine=True, running=True)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: jax.Array | float | None = None) -> jax.Array:
        """Logits of `x[B, H, W, C]`.

        Args:
          x: images.
          train: use the statistics of the batch.
          drop_rate: probability of drop path, from the stream `dropout`; `None` turns it off, as the benchmark does.
            Identities are exempt.
        """
        style = dataclasses.replace(self.style, train=train)
        x = stem(self.config, style).clone(name="stem", parent=self)(x)
        for stage, features in enumerate(self.config.widths):
            if stage:
                x = reduction(features, style).clone(name=f"reduce{stage}", parent=self)(x)
            for i in range(self.config.cells):
                x = self._cell(f"cell{stage * self.config.cells + i}", features, style, x, drop_rate)
        x = jax.nn.relu(last_norm(style).clone(name="norm", parent=self)(x))
        return Classifier(self.config.num_classes, name="classifier")(x)

    def _cell(self, prefix, features, style, x, drop_rate):
        nodes = {0: x}
        for edge, (source, target) in enumerate(EDGES):
            name = self.config.operations[self.cell[edge]]
            block = operation(name, features, style)
            y = block.clone(name=f"{prefix}_edge{edge}_{name}", parent=self)(nodes[source])
            if drop_rate is not None and not isinstance(block, Identity):
                y = drop_path(self.make_rng("dropout"), y, drop_rate)
            nodes[target] = nodes[target] + y if target in nodes else y
        return nodes[3]


def cost_tables(config: NasBench201Config, style: Style, image_shape: tuple[int, int, int]) -> dict[str, CostTable]:
    """Parameters and multiply-adds of the stand-alone network, equal to those that the benchmark records.

    The benchmark counts the bias of the classifier as `num_classes` multiply-adds, and so does this.

    Args:
      config: size of the network.
      style: whether normalisation has parameters.
      image_shape: `(H, W, C)`.

    Returns:
      `{"parameters": CostTable, "macs": CostTable}` with tables `[6, K]` summed over all cells.

    Raises:
      ValueError: an odd side where the grid is halved.
    """
    height, width, channels = image_shape
    fixed = stem(config, style).cost(channels, height, width)
    row = np.zeros((len(config.operations), 2), np.int64)
    for stage, features in enumerate(config.widths):
        if stage:
            fixed += reduction(features, style).cost(features // 2, height, width)
            height, width = height // 2, width // 2
        for k, name in enumerate(config.operations):
            row[k] += config.cells * np.array(operation(name, features, style).cost(features, height, width))
    fixed += Classifier(config.num_classes).cost(config.widths[-1])
    fixed += Cost(2 * config.widths[-1], config.num_classes)  # the last normalisation; the bias
    table = np.broadcast_to(row, (len(EDGES), *row.shape))
    return {name: CostTable(getattr(fixed, name), {"cell": table[..., i]}) for i, name in enumerate(Cost._fields)}


def genotype(operations: Sequence[str], arch: Arch) -> str:
    """The benchmark's string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: per node and source one operation."""
    nodes: list[str] = ["|"] * 3
    for (source, target), k in zip(EDGES, arch["cell"], strict=True):
        nodes[target - 1] += f"{operations[k]}~{source}|"
    return "+".join(nodes)


def parse(operations: Sequence[str], genotype: Any) -> Arch:
    """Reads the benchmark's notation; the order of a node's sources is free.

    Args:
      operations: the candidates of every edge, in order.
      genotype: the string that `genotype` makes, the one that the released code prints around it, `Structure(4 nodes
        with |...|)`, or per node a list of edges `[operation, source]`.

    Raises:
      ValueError: another form, or an operation that is not among `operations`.
    """
    if isinstance(genotype, str):
        printed = re.fullmatch(r"\w+\(\d+ nodes with (.*)\)", genotype)
        text = printed.group(1) if printed else genotype
        nodes = [[part.split("~", 1) for part in node.strip("|").split("|")] for node in text.split("+")]
    else:
        nodes = [list(node) for node in genotype]
    found = [(edge, target) for target, node in enumerate(nodes, start=1) for edge in node if len(edge) == 2]
    names = {(str(source), target): name for (name, source), target in found}
    wanted = [(str(source), target) for source, target in EDGES]
    if len(found) != len(EDGES) or set(names) != set(wanted) or not set(names.values()) <= set(operations):
        form, known = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|", ", ".join(operations)
        raise ValueError(f"genotype must have the form {form} with operations {known}, got {genotype!r}")
    return {"cell": np.array([operations.index(names[edge]) for edge in wanted], np.int32)}
