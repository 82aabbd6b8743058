"""Fast building blocks: plain functions, and the candidate operations as Linen modules over them."""

from jaxnas.ops._conv import Pair, conv, pair, pointwise
from jaxnas.ops._drop_path import drop_path
from jaxnas.ops._mixture import mixture
from jaxnas.ops.blocks import (
    Activation,
    BatchNorm,
    Block,
    Classifier,
    ConvNorm,
    DilConv,
    FactorizedReduce,
    Identity,
    Pool,
    SepConv,
    Zero,
)
from jaxnas.ops.depthwise import depthwise_conv
from jaxnas.ops.initialisers import he_fan_out, one_draw, torch_uniform
from jaxnas.ops.lowering import Lowering, by_hand
from jaxnas.ops.mbconv import ConvNormAct, MBConv, Squeeze, SqueezeExcite, rounded_width
from jaxnas.ops.normalisation import batch_statistics, normalise
from jaxnas.ops.pooling import avg_pool, max_pool
from jaxnas.ops.preact import PreActConv, PreActSepConv, channel_shuffle
from jaxnas.ops.style import Cost, Norm, Style, from_linen

__all__ = [
    "Activation",
    "BatchNorm",
    "Block",
    "Classifier",
    "ConvNorm",
    "ConvNormAct",
    "Cost",
    "DilConv",
    "FactorizedReduce",
    "Identity",
    "Lowering",
    "MBConv",
    "Norm",
    "Pair",
    "Pool",
    "PreActConv",
    "PreActSepConv",
    "SepConv",
    "Squeeze",
    "SqueezeExcite",
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
    "pair",
    "pointwise",
    "rounded_width",
    "torch_uniform",
]
