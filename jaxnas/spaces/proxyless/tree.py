"""The CIFAR-10 space of ProxylessNAS: a PyramidNet whose 3x3 convolutions are trees of operations to be chosen."""

import dataclasses
from collections.abc import Sequence

from jaxnas.architectures import arch_like
from jaxnas.base import Arch, SearchSpace
from jaxnas.errors import UserError
from jaxnas.ops import Lowering, Style
from jaxnas.spaces.parts.skeleton import assemble
from jaxnas.spaces.proxyless.tree_network import EDGES, OPERATIONS, TreeConfig, TreeNetwork

__all__ = ["proxyless_tree_space"]


def proxyless_tree_space(
    blocks: int = 18,
    stages: int = 3,
    *,
    stem_channels: int = 16,
    alpha: float = 84.0,
    bottleneck: int = 4,
    groups: int = 2,
    num_classes: int = 10,
    operations: Sequence[str] = OPERATIONS,
    drop_path: float = 0.0,
    reference: int = 0,
    dtype: str = "float32",
    lowering: Lowering = "auto",
) -> SearchSpace:
    """The CIFAR-10 space of ProxylessNAS (Cai, Zhu and Han, 2019, arXiv 1812.00332, section 4.1).

    The backbone is a PyramidNet of bottlenecks (Han, Kim and Kim, 2017, arXiv 1610.02915): cells whose width grows
    from one to the next. In place of its 3x3 convolution a cell has a tree of depth three (Cai et al., 2018, arXiv
    1806.02639): a grouped 3x3 convolution gives two branches, each branch splits in two and each of these in two again,
    and all that comes back is added. The twelve edges below the branches are chosen, in every cell anew, from
    separable convolutions `sep_conv_{3x3,5x5,7x7}`, `dil_conv_3x3`, `identity`, `avg_pool_3x3` and `max_pool_3x3`.

    Args:
      blocks: number of cells in every stage.
      stages: number of stages; the grid is halved between two of them.
      stem_channels: channels of the first convolution.
      alpha: by how much the inner width of the cells grows from `stem_channels` to the last cell, at least 0.
      bottleneck: factor from a cell's inner to its outer width.
      groups: groups of the convolution at the root; inner widths are rounded down to a multiple of them.
      num_classes: number of classes.
      operations: the candidates of every edge, in order.
      drop_path: probability of dropping the output of an edge, per example, when `apply` is given a key. What stays
        is divided by `1 - drop_path`, where the released code multiplies by it outside of training.
      reference: number of examples at the head of a batch that give the statistics of normalisation; 0 for all of them.
      dtype: type of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking,
        `"float64"` throughout, which needs 64-bit JAX.
      lowering: how operations are written for the backend, see `jaxnas.ops.lowering`.

    Returns:
      The space, with `choices = {"edges": [12 * blocks * stages, K]}`, cell after cell. `derive` takes the greatest
      score of each. The stand-alone network takes `cell_drop`, the mean probability of leaving a cell out.

    Raises:
      UserError: a size below one, an unknown operation, another `dtype`; in `init`, a grid that cannot be halved.

    Example:
      >>> space = proxyless_tree_space(blocks=1, stages=1, operations=["identity", "sep_conv_3x3"])
      >>> space.about.genotype({"edges": [0, 1] * 6})[0][:3]
      ['identity', 'sep_conv_3x3', 'identity']
    """
    settings = dict(locals())
    config = TreeConfig(blocks, stages, stem_channels, alpha, bottleneck, groups, num_classes, tuple(operations))
    style = Style(affine=True, reference=reference, lowering=lowering)
    alone = dataclasses.replace(style, running=True, reference=0)

    def form(*, momentum=0.9, cell_drop=0.0):
        # The last of L cells stays out with probability 2 L cell_drop / (L + 1), which must stay below one.
        least = (len(config.cells) + 1) / (2 * len(config.cells))
        if not 0.0 <= cell_drop < least:
            raise UserError(f"cell_drop must lie in [0, {least:g}), so that the last cell may run, got {cell_drop}")
        return TreeNetwork(config, dataclasses.replace(alone, momentum=momentum), cell_drop=cell_drop)

    def genotype(arch: Arch) -> list[list[str]]:
        names = [config.operations[k] for k in arch_like(space.choices, arch)["edges"]]
        return [names[cell.rows] for cell in config.cells]

    def parse(genotype: Sequence[Sequence[str]]) -> Arch:
        _check(config, genotype)
        edges = [config.operations.index(name) for cell in genotype for name in cell]
        return arch_like(space.choices, {"edges": edges})

    space = assemble("proxyless-tree", config, style, form, settings)
    return space._replace(about=space.about._replace(genotype=genotype, parse=parse))


def _check(config: TreeConfig, genotype: Sequence[Sequence[str]]) -> None:
    """Raises `UserError` unless a genotype lists known operations for all edges of all cells."""
    if len(genotype) != len(config.cells):
        raise UserError(f"genotype: expected {len(config.cells)} cells, got {len(genotype)}")
    for number, cell in enumerate(genotype):
        if len(cell) != len(EDGES):
            raise UserError(f"genotype: cell {number} has {len(cell)} operations, expected {len(EDGES)}")
        for name in cell:
            if name not in config.operations:
                raise UserError(f"genotype: cell {number} has {name!r}, accepted are {', '.join(config.operations)}")
