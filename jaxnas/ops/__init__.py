"""Fast building blocks: plain functions, and the candidate operations as Linen modules over them."""

from jaxnas.ops._conv import conv, pointwise
from jaxnas.ops._drop_path import drop_path
from jaxnas.ops._mixture import mixture
from jaxnas.ops.blocks import (
    BatchNorm,
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
    from_linen,
)
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import he_fan_out, one_draw, torch_uniform
from jaxnas.ops.lowering import Lowering, by_hand
from jaxnas.ops.mbconv import ConvNormRelu6, MBConv
from jaxnas.ops.normalisation import Norm, batch_statistics, normalise
from jaxnas.ops.pooling import avg_pool, max_pool
from jaxnas.ops.preact import PreActConv, PreActSepConv, channel_shuffle

__all__ = [
    "BatchNorm",
    "Block",
    "Classifier",
    "ConvNorm",
    "ConvNormRelu6",
    "Cost",
    "DilConv",
    "FactorizedReduce",
    "Identity",
    "Lowering",
    "MBConv",
    "Norm",
    "Pool",
    "PreActConv",
    "PreActSepConv",
    "SepConv",
    "Style",
    "Zero",
    "avg_pool",
    "batch_statistics",
    "by_hand",
    "channel_shuffle",
    "conv",
    "depthwise_conv",
    "drop_path",
    "from_linen",
    "he_fan_out",
    "max_pool",
    "mixture",
    "normalise",
    "one_draw",
    "pointwise",
    "torch_uniform",
]
