"""The DARTS macro structure: its plan and its stand-alone network as a Linen module.

`jaxnas.spaces.darts` builds the supernet from the same plan and the same blocks.
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
    drop_path,
    torch_uniform,
)
from jaxnas.spaces.parts.checks import at_least_one, known_operations

__all__ = [
    "PRIMITIVES",
    "AuxiliaryHead",
    "CellPlan",
    "DartsConfig",
    "DartsNetwork",
    "cell_plans",
    "edges",
    "operation",
    "stem",
]

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
      channels: of the first cell; reduction cells double them.
      cells: depth; cells `cells // 3` and `2 * cells // 3` are reduction cells.
      num_classes: width of the output.
      nodes: intermediate nodes per cell.
      stem_multiplier: the stem has `stem_multiplier * channels` channels.
      operations: the candidates of every edge, in order.
      pool_norm: normalise after pooling, as search networks and SNAS do and DARTS's final network does not.
    """

    channels: int = 16
    cells: int = 8
    num_classes: int = 10
    nodes: int = 4
    stem_multiplier: int = 3
    operations: tuple[str, ...] = PRIMITIVES
    pool_norm: bool = True

    def __post_init__(self):
        """Checks sizes and operation names."""
        at_least_one(self, ("channels", "cells", "num_classes", "nodes", "stem_multiplier"))
        known_operations(self.operations, PRIMITIVES)


class CellPlan(NamedTuple):
    """One cell: its kind, its width, the widths of the two cells before it, and what follows a reduction."""

    reduction: bool
    after_reduction: bool
    features: int
    inputs: tuple[int, int]

    @property
    def kind(self) -> str:
        """The key of the cell's architecture in `choices`."""
        return "reduce" if self.reduction else "normal"

    def preprocess(self, style: Style) -> tuple[Block, Block]:
        """What brings the two inputs to the width and grid of this cell."""
        first = FactorizedReduce(self.features, 2, style) if self.after_reduction else None
        return first or ConvNorm(self.features, 1, style), ConvNorm(self.features, 1, style)

    def stride(self, source: int) -> int:
        """Stride of an edge that leaves node `source`."""
        return 2 if self.reduction and source < 2 else 1


def edges(nodes: int) -> tuple[tuple[int, int], ...]:
    """`(source, target)` of every edge: nodes 0 and 1 are the inputs, node `2 + i` has `2 + i` incoming edges."""
    return tuple((source, 2 + i) for i in range(nodes) for source in range(2 + i))


def cell_plans(config: DartsConfig) -> Iterator[CellPlan]:
    """The cells of a network, in order."""
    features, after = config.channels, False
    inputs = (config.stem_multiplier * features,) * 2
    for i in range(config.cells):
        reduction = i in (config.cells // 3, 2 * config.cells // 3)
        features *= 2 if reduction else 1
        yield CellPlan(reduction, after, features, inputs)
        after, inputs = reduction, (inputs[1], config.nodes * features)


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


def stem(config: DartsConfig, style: Style) -> ConvNorm:
    """3x3 convolution and a normalisation that always has a scale and an offset; no ReLU."""
    affine = dataclasses.replace(style, affine=True)
    return ConvNorm(config.stem_multiplier * config.channels, 1, affine, kernel=3, relu=False)


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier of the CIFAR recipe, on 8x8 inputs.

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
        x = nn.avg_pool(jax.nn.relu(x), window_shape=(5, 5), strides=(3, 3), padding="VALID")
        x = ConvNorm(128, 1, dataclasses.replace(self.style, affine=True), relu=False, name="reduce")(x)
        kernel = self.param("kernel", torch_uniform(2 * 2 * 128), (2, 2, 128, 768))
        x = lax.conv_general_dilated(
            jax.nn.relu(x), kernel.astype(x.dtype), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(dataclasses.replace(self.style, affine=True).norm("norm")(x))
        return Classifier(self.num_classes, name="classifier")(x)

    def cost(self, in_features: int) -> Cost:
        """Its parameters; it only runs in training, so that an image costs no multiply-adds."""
        norms = 2 * 128 + 2 * 768
        weights = (
            in_features * 128
            + 2 * 2 * 128 * 768
            + norms
            + Classifier(self.num_classes, parent=None).cost(768).parameters
        )
        return Cost(weights, 0)


class DartsNetwork(nn.Module):
    """The stand-alone network of one architecture.

    Attributes:
      config: size of the network.
      normal: operation of every edge of the normal cells, as an index into `config.operations`.
      reduce: the same for the reduction cells.
      style: normalisation and lowering; `style.train` is set by the call.
      auxiliary: add the auxiliary head, which only runs while training.
    """

    config: DartsConfig
    normal: tuple[int, ...]
    reduce: tuple[int, ...]
    style: Style = Style(affine=True, running=True)
    auxiliary: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: jax.Array | float | None = None) -> Any:
        """Logits of `x[B, H, W, C]`, and those of the auxiliary head while training with one.

        Args:
          x: images.
          train: use the statistics of the batch.
          drop_rate: probability of drop path, from the stream `dropout`; `None` turns it off. Identities are exempt.
        """
        style = dataclasses.replace(self.style, train=train)
        before = last = stem(self.config, style).clone(name="stem", parent=self)(x)
        extra = None
        for i, plan in enumerate(cell_plans(self.config)):
            before, last = last, self._cell(i, plan, style, before, last, drop_rate)
            if self.auxiliary and i == 2 * self.config.cells // 3 and (train or self.is_initializing()):
                extra = AuxiliaryHead(self.config.num_classes, style, name="auxiliary")(last)
        logits = Classifier(self.config.num_classes, name="classifier")(last)
        return (logits, extra) if extra is not None and train else logits

    def _cell(self, i, plan, style, before, last, drop_rate):
        arch = self.reduce if plan.reduction else self.normal
        first, second = plan.preprocess(style)
        blocks = ((first, "pre0", before), (second, "pre1", last))
        nodes = [block.clone(name=f"cell{i}_{name}", parent=self)(x) for block, name, x in blocks]
        totals: dict[int, jax.Array] = {}
        for edge, (source, target) in enumerate(edges(self.config.nodes)):
            name = self.config.operations[arch[edge]]
            stride = plan.stride(source)
            if len(nodes) < target:
                nodes.append(totals[target - 1])
            block = operation(name, plan.features, stride, style, self.config.pool_norm)
            y = block.clone(name=f"cell{i}_edge{edge}_{name}", parent=self)(nodes[source])
            if drop_rate is not None and not isinstance(block, Identity):
                y = drop_path(self.make_rng("dropout"), y, drop_rate)
            totals[target] = y if target not in totals else totals[target] + y
        return jnp.concatenate(list(totals.values()), -1)
