"""The cell space of NAS-Bench-201, also known as the topology space of NATS-Bench.

A network is a stem, three stages of equal cells with a residual block between them, and a classifier. A cell has four
nodes and six edges; a node sums its incoming edges, each of which is one of five operations, and the last node is the
output. All cells share one architecture, so there are 5^6 = 15,625 of them, all trained and recorded (Dong and Yang,
2020, arXiv 2001.00326).
"""

import dataclasses
import functools
from collections.abc import Sequence

from jaxnas.architectures import arch_like
from jaxnas.base import SearchSpace
from jaxnas.ops import Lowering, Style
from jaxnas.spaces.nasbench201.genotype import genotype, parse
from jaxnas.spaces.nasbench201.network import EDGES, OPERATIONS, NasBench201Config
from jaxnas.spaces.parts.skeleton import StandAlone, assemble

__all__ = ["nasbench201_space"]


def nasbench201_space(
    channels: int = 16,
    cells: int = 5,
    num_classes: int = 10,
    *,
    operations: Sequence[str] = OPERATIONS,
    lowering: Lowering = "auto",
    dtype: str = "float32",
    reference: int = 0,
) -> SearchSpace:
    """The cell space of NAS-Bench-201 (arXiv 2001.00326, section 2.1).

    `derive` keeps the best of all operations on every edge, `none` included. The genotype is the benchmark's string,
    `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: per node and source one operation.

    The cells of a stage are equal in shape: their weights lie stacked on a leading axis and `apply` scans over them,
    so that the program holds three cells however many the network has.

    Differs from the release: a convolution never has a bias, where the search network of the authors has one before a
    normalisation without scale and offset, which removes it again. Normalisation outside the cells uses the statistics
    of the batch like the one inside, where the authors keep running averages for it.

    Args:
      channels: width of the first stage.
      cells: number of cells in every stage.
      num_classes: number of classes.
      operations: candidates of every edge, in order; an index into the benchmark's tables needs the default ones.
      lowering: `"lax"` evaluates cell by cell and edge by edge with plain `lax` operations; see `jaxnas.ops.lowering`.
      dtype: type of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking,
        `"float64"` throughout, which needs 64-bit JAX.
      reference: number of examples at the head of a batch that give the statistics of normalisation, so that the others
        are judged independently of each other; 0 for all of them.

    Returns:
      The space, with `choices = {"cell": [6, K]}`. Its images need sides divisible by four.

    Raises:
      UserError: a size below one, fewer than two operations or an unknown one, another `dtype` or `lowering`.

    Example:
      >>> space = nasbench201_space(channels=4, cells=1)
      >>> space.about.genotype({"cell": [3, 1, 2, 4, 0, 3]})
      '|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|'
    """
    settings = dict(locals())
    config = NasBench201Config(channels, cells, num_classes, tuple(operations))

    def form(*, affine=True, momentum=0.9, **changes):
        style = Style(affine=affine, running=True, momentum=momentum, lowering=lowering)
        return StandAlone(dataclasses.replace(config, **changes), style)

    space = assemble("nasbench201", config, Style(lowering=lowering, reference=reference), form, settings)
    # The notation of the benchmark, and the form of the supernet.
    about = space.about._replace(
        genotype=lambda arch: genotype(config.operations, arch_like(space.choices, arch)),
        parse=functools.partial(parse, config.operations),
        edges={"cell": EDGES},
        supernet={"affine": False},
    )
    return space._replace(about=about)
