"""Exact parameters and multiply-adds of the networks of DARTS and SNAS, as tables over their decisions."""

import numpy as np

from jaxnas.base import CostTable
from jaxnas.ops import Classifier, Cost, Style
from jaxnas.spaces.darts.network import AuxiliaryHead, DartsConfig, cell_plans, edges, operation, stem

__all__ = ["cost_tables"]


def cost_tables(
    config: DartsConfig, style: Style, image_shape: tuple[int, int, int], *, auxiliary: bool = False
) -> dict[str, CostTable]:
    """Parameters and multiply-adds of the stand-alone network.

    Args:
      config: size of the network.
      style: whether normalisation has parameters.
      image_shape: `(H, W, C)`.
      auxiliary: count the parameters of an auxiliary head too, which papers leave out.

    Returns:
      `{"parameters": CostTable, "macs": CostTable}` with tables `[E, K]` summed over the cells of each kind.
    """
    height, width, channels = image_shape
    first = stem(config, style)
    fixed = first.cost(channels, height, width)
    shape = (len(edges(config.nodes)), len(config.operations), 2)
    tables = {"normal": np.zeros(shape, np.int64), "reduce": np.zeros(shape, np.int64)}
    before_size = size = (height, width)
    for plan in cell_plans(config):
        pre0, pre1 = plan.preprocess(style)
        fixed += pre0.cost(plan.inputs[0], *before_size) + pre1.cost(plan.inputs[1], *size)
        before_size = size
        half = (-(-size[0] // 2), -(-size[1] // 2)) if plan.reduction else size
        for edge, (source, _) in enumerate(edges(config.nodes)):
            stride = plan.stride(source)
            for k, name in enumerate(config.operations):
                block = operation(name, plan.features, stride, style, config.pool_norm)
                tables[plan.kind][edge, k] += block.cost(plan.features, *(size if stride == 2 or source < 2 else half))
        size = half
    fixed += Classifier(config.num_classes).cost(config.nodes * plan.features)
    if auxiliary:
        at = list(cell_plans(config))[2 * config.cells // 3]
        fixed += AuxiliaryHead(config.num_classes, style).cost(config.nodes * at.features)
    return {
        name: CostTable(getattr(fixed, name), {kind: table[..., i] for kind, table in tables.items()})
        for i, name in enumerate(Cost._fields)
    }
