"""The CIFAR-10 space of ProxylessNAS: a PyramidNet whose 3x3 convolutions are trees of operations to be chosen."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Arch, SearchSpace
from jaxnas.dtypes import compute_dtype, in_weight_dtype, wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops import BatchNorm, Classifier, Lowering, Style, from_linen, one_draw
from jaxnas.spaces.parts.cell import CellGraph, apply_cell, edge_params, group_of, init_cell, output_like, used_cell
from jaxnas.spaces.parts.inherit import linen_network
from jaxnas.spaces.proxyless.tree_network import (
    EDGES,
    OPERATIONS,
    Entry,
    Exit,
    TreeCell,
    TreeConfig,
    TreeNetwork,
    cost_tables,
    operation,
    stem,
)

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
      blocks: cells of every stage.
      stages: the grid is halved between two of them.
      stem_channels: of the first convolution.
      alpha: by how much the inner width of the cells grows from `stem_channels` to the last cell.
      bottleneck: factor from a cell's inner to its outer width.
      groups: of the convolution at the root; inner widths are rounded down to a multiple of it.
      num_classes: number of classes.
      operations: the candidates.
      drop_path: probability of dropping the output of an edge, per example, when `apply` is given a key. What is kept
        is divided by `1 - drop_path`, where the released code multiplies by it outside of training.
      reference: normalise with the statistics of the first `reference` examples of a batch instead of all of them.
      dtype: of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking, `"float64"`
        throughout, which needs 64-bit JAX.
      lowering: see `jaxnas.ops.lowering`.

    Returns:
      The space, with `choices = {"edges": [12 * blocks * stages, K]}`, cell after cell. `derive` takes the greatest
      score of each. The stand-alone network takes `cell_drop`, the mean probability of leaving a cell out.

    Raises:
      UserError: a size below one, an unknown operation, another `dtype`; in `init`, a grid that cannot be halved.
    """
    config = TreeConfig(blocks, stages, stem_channels, alpha, bottleneck, groups, num_classes, tuple(operations))
    compute = compute_dtype(dtype)
    if not 0.0 <= drop_path < 1.0:
        raise UserError(f"drop_path must lie in [0, 1), got {drop_path}")
    style = Style(affine=True, reference=reference, lowering=lowering)
    cells = [(cell, *_parts(cell, config, style, drop_path)) for cell in config.cells]
    first = from_linen(stem(config, style))
    last, head = from_linen(BatchNorm(1, 1, style)), from_linen(Classifier(num_classes, bias=0.0))

    def init(key, x):
        key_stem, key_last, key_head, *keys = jax.random.split(key, 3 + len(cells))
        params: dict[str, Any] = {"stem": first.init(key_stem, x), "cells": []}
        x = output_like(first, params["stem"], x)
        for (cell, entry, graph, leave), key_cell in zip(cells, keys, strict=True):
            key_entry, key_edges, key_exit = jax.random.split(key_cell, 3)
            own = {"entry": entry.init(key_entry, x)}
            shapes = jax.eval_shape(entry.apply, own["entry"], x)
            branches = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            own["edges"] = init_cell(key_edges, graph, {"edges": branches[0]})
            own["exit"] = leave.init(key_exit, (branches, branches))
            params["cells"].append(own)
            x = cell.shortcut(x)
        return {**params, "last": last.init(key_last, x), "classifier": head.init(key_head, x)}

    def apply(params, paths, x, *, key=None):
        x = first.apply(params["stem"], x.astype(compute))
        for (cell, entry, graph, leave), own in zip(cells, params["cells"], strict=True):
            branches = entry.apply(own["entry"], x)
            chosen = paths.select(lambda tree, cell=cell: tree["edges"][cell.rows])
            key_cell = None if key is None else jax.random.fold_in(key, cell.number)
            *_, left, right = apply_cell(graph, own["edges"], chosen, branches, key_cell)
            x = cell.shortcut(x) + leave.apply(own["exit"], (branches, (left, right)))
        return head.apply(params["classifier"], jax.nn.relu(last.apply(params["last"], x)))

    def used(params, paths):
        mask = jax.tree.map(lambda leaf: True, {**params, "cells": [{**own, "edges": {}} for own in params["cells"]]})
        for (cell, _, graph, _), own, seen in zip(cells, params["cells"], mask["cells"], strict=True):
            chosen = paths.select(lambda tree, cell=cell: tree["edges"][cell.rows])
            seen["edges"] = used_cell(graph, own["edges"], chosen)
        return mask

    choices = {"edges": jax.ShapeDtypeStruct((config.rows, len(config.operations)), wide_dtype(compute))}
    graphs = [graph for _, _, graph, _ in cells]
    settings = {"drop_path": drop_path, "reference": reference, "dtype": dtype, "lowering": lowering}
    about = _about(config, style, graphs, choices, settings)
    return SearchSpace(in_weight_dtype(one_draw(init), compute), apply, used, greatest, choices, about)


def _parts(cell: TreeCell, config: TreeConfig, style: Style, drop_path: float):
    """What a cell consists of: `(entry, graph, exit)`."""
    blocks = {name: operation(name, cell.inner, style) for name in config.operations}
    group = group_of(blocks, tuple(range(len(EDGES))))
    graph = CellGraph(EDGES, 2, {"edges": group}, drop_path, scanned=style.lowering != "lax")
    return from_linen(Entry(cell, style)), graph, from_linen(Exit(cell, style))


def _about(config: TreeConfig, style: Style, graphs, choices, settings) -> About:
    def genotype(arch: Arch) -> list[list[str]]:
        names = [config.operations[k] for k in arch_like(choices, arch)["edges"]]
        return [names[cell.rows] for cell in config.cells]

    def parse(genotype: Sequence[Sequence[str]]) -> Arch:
        if len(genotype) != len(config.cells):
            raise UserError(f"genotype: expected {len(config.cells)} cells, got {len(genotype)}")
        for number, own in enumerate(genotype):
            if len(own) != len(EDGES):
                raise UserError(f"genotype: cell {number} has {len(own)} operations, expected {len(EDGES)}")
            for name in own:
                if name not in config.operations:
                    raise UserError(
                        f"genotype: cell {number} has {name!r}, accepted are {', '.join(config.operations)}"
                    )
        return arch_like(choices, {"edges": [config.operations.index(name) for own in genotype for name in own]})

    def costs(image_shape, *, momentum=0.9, cell_drop=0.0):
        del momentum, cell_drop  # cost nothing
        return cost_tables(config, style, image_shape)

    def network(arch, *, momentum=0.9, cell_drop=0.0):
        least = (len(config.cells) + 1) / (2 * len(config.cells))
        if not 0.0 <= cell_drop < least:
            raise UserError(f"cell_drop must lie in [0, {least:g}), so that the last cell may run, got {cell_drop}")
        stand_alone = dataclasses.replace(style, running=True, reference=0, momentum=momentum)
        names = tuple(name for own in genotype(arch) for name in own)
        return linen_network(
            TreeNetwork(config, names, stand_alone, cell_drop), lambda params: _inherit(config, graphs, names, params)
        )

    sizes = dataclasses.asdict(config)
    sizes["stem_channels"] = sizes.pop("stem")
    return About(
        name="proxyless-tree",
        operations={"edges": config.operations},
        size=len(config.operations) ** config.rows,
        costs=costs,
        genotype=genotype,
        parse=parse,
        network=network,
        config={**sizes, "operations": list(config.operations), **settings},
    )


def _inherit(config: TreeConfig, graphs: Sequence[CellGraph], names: Sequence[str], params: Any):
    named = {"stem": params["stem"], "classifier": params["classifier"], "last_norm": params["last"]["norm"]}
    for cell, graph, own in zip(config.cells, graphs, params["cells"], strict=True):
        named |= {f"cell{cell.number}_{part}": own[part] for part in ("entry", "exit")}
        for edge, name in enumerate(names[cell.rows]):
            weights = edge_params(graph, own["edges"], edge, name)
            if weights:
                named[f"cell{cell.number}_edge{edge}_{name}"] = weights
    return named, jax.ShapeDtypeStruct((4, 32, 32, params["stem"]["kernel"].shape[2]), jnp.float32)
