"""Exact parameters and multiply-adds of the networks of NAS-Bench-201, as tables over their decisions."""

import numpy as np

from jaxnas.base import CostTable
from jaxnas.ops import Classifier, Cost, Style
from jaxnas.spaces.nasbench201.network import EDGES, NasBench201Config, operation, reduction, stem

__all__ = ["cost_tables"]


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
      UserError: an odd side where the grid is halved.
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
