"""The cell space of DARTS, and the variant that SNAS searches.

A network is a stem, a chain of cells and a classifier. A cell sees the two cells before it; each of its four nodes sums
one edge from every earlier node; each edge is one of eight operations. All normal cells share one architecture, all
reduction cells, at one and two thirds of the depth, another.

DARTS (Liu et al., 2019, arXiv 1806.09055) keeps two edges per node and never `none`. SNAS (Xie et al., 2019,
arXiv 1812.09926) keeps all fourteen edges, allows `none`, and normalises pools in its final network too.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Arch, SearchSpace, Tree
from jaxnas.dtypes import compute_dtype, in_weight_dtype, wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops import Classifier, Lowering, Style, from_linen, one_draw
from jaxnas.spaces.darts.costs import cost_tables
from jaxnas.spaces.darts.genotype import genotype, parse
from jaxnas.spaces.darts.network import (
    PRIMITIVES,
    CellPlan,
    DartsConfig,
    DartsNetwork,
    cell_plans,
    edges,
    operation,
    stem,
)
from jaxnas.spaces.parts.cell import CellGraph, apply_cell, edge_params, group_of, init_cell, used_cell
from jaxnas.spaces.parts.checks import reference_examples
from jaxnas.spaces.parts.inherit import linen_network

__all__ = ["PRIMITIVES", "DartsConfig", "darts_space", "snas_space"]


def darts_space(
    channels: int = 16,
    cells: int = 8,
    num_classes: int = 10,
    *,
    nodes: int = 4,
    stem_multiplier: int = 3,
    operations: Sequence[str] = PRIMITIVES,
    drop_path: float = 0.0,
    lowering: Lowering = "auto",
    dtype: str = "float32",
    reference: int = 0,
) -> SearchSpace:
    """The cell space of DARTS (arXiv 1806.09055, section 2.1).

    `derive` keeps, per node, the two incoming edges with the greatest softmax weight of an operation other than
    `none` (`none` stays in the softmax), and on each its best operation; dropped edges are `none` in the architecture.

    Args:
      channels: of the first cell.
      cells: depth of the network.
      num_classes: number of classes.
      nodes: intermediate nodes per cell.
      stem_multiplier: width of the stem in `channels`.
      operations: candidates of every edge; must contain `none`.
      drop_path: probability of dropping the output of an edge, per example, when `apply` is given a key.
      lowering: `"lax"` evaluates edge by edge with plain `lax` operations, the plain form.
      dtype: of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking, `"float64"`
        throughout, which needs 64-bit JAX.
      reference: normalise with the statistics of the first `reference` examples of a batch instead of all of them. With
        training examples there, other examples are judged independently of each other, by one program for every
        architecture.

    Returns:
      The space, with `choices = {"normal": [E, K], "reduce": [E, K]}`.

    Raises:
      UserError: a size below one, an unknown operation, `operations` without `none`.
    """
    if "none" not in operations:
        raise UserError(f"operations must contain 'none', which stands for a dropped edge, got {list(operations)}")
    config = DartsConfig(channels, cells, num_classes, nodes, stem_multiplier, tuple(operations))
    none = config.operations.index("none")
    size = math.prod(math.comb(2 + i, 2) * (len(operations) - 1) ** 2 for i in range(nodes)) ** 2
    return _space("darts", config, _two_edges(nodes, none), size, drop_path, lowering, dtype, reference)


def snas_space(
    channels: int = 16,
    cells: int = 8,
    num_classes: int = 10,
    *,
    nodes: int = 4,
    stem_multiplier: int = 3,
    operations: Sequence[str] = PRIMITIVES,
    drop_path: float = 0.0,
    lowering: Lowering = "auto",
    dtype: str = "float32",
    reference: int = 0,
) -> SearchSpace:
    """The cell space of SNAS (arXiv 1812.09926, section 2.1): every edge keeps the best of all its operations.

    Arguments, result and errors as in `darts_space`, except that `operations` need not contain `none`.
    """
    config = DartsConfig(channels, cells, num_classes, nodes, stem_multiplier, tuple(operations))
    size = len(operations) ** (2 * len(edges(nodes)))
    return _space("snas", config, greatest, size, drop_path, lowering, dtype, reference)


def _two_edges(nodes: int, none: int) -> Callable[[Tree], Arch]:
    incoming = [[row for row, (_, target) in enumerate(edges(nodes)) if target == 2 + i] for i in range(nodes)]

    def derive_cell(scores):
        weights = jax.nn.softmax(scores, -1).at[:, none].set(-1.0)
        best = jnp.max(weights, -1)
        arch = jnp.full(best.shape, none, jnp.int32)
        for rows in incoming:
            kept = jnp.array(rows)[jnp.argsort(-best[jnp.array(rows)], stable=True)[:2]]
            arch = arch.at[kept].set(jnp.argmax(weights[kept], -1).astype(jnp.int32))
        return arch

    return lambda scores: jax.tree.map(derive_cell, scores)


def _graph(plan: CellPlan, config: DartsConfig, style: Style, drop_path: float) -> CellGraph:
    groups = {}
    for stride in (2, 1):
        rows = tuple(row for row, (source, _) in enumerate(edges(config.nodes)) if plan.stride(source) == stride)
        blocks = {name: operation(name, plan.features, stride, style, True) for name in config.operations}
        if rows:
            groups[f"stride{stride}"] = group_of(blocks, rows)
    return CellGraph(edges(config.nodes), 2, groups, drop_path, scanned=style.lowering != "lax")


def _space(name, config, derive, size, drop_path, lowering, dtype, reference) -> SearchSpace:
    reference_examples(reference)
    style = Style(lowering=lowering, reference=reference)
    compute = compute_dtype(dtype)
    if not 0.0 <= drop_path < 1.0:
        raise UserError(f"drop_path must lie in [0, 1), got {drop_path}")
    plans = list(cell_plans(config))
    graphs = [_graph(plan, config, style, drop_path) for plan in plans]
    entries = [tuple(from_linen(block) for block in plan.preprocess(style)) for plan in plans]
    first, classifier = from_linen(stem(config, style)), from_linen(Classifier(config.num_classes))

    def init(key, x):
        key_stem, key_head, *keys = jax.random.split(key, 2 + len(plans))
        params = {"stem": first.init(key_stem, x), "cells": []}
        before = last = jax.eval_shape(first.apply, params["stem"], x)
        for plan, graph, entry, key_cell in zip(plans, graphs, entries, keys, strict=True):
            key_0, key_1, key_edges = jax.random.split(key_cell, 3)
            zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in (before, last)]
            cell = {"pre0": entry[0].init(key_0, zeros[0]), "pre1": entry[1].init(key_1, zeros[1])}
            batch, height, width, _ = last.shape
            out = (batch, -(-height // 2), -(-width // 2)) if plan.reduction else (batch, height, width)
            examples = {
                "stride2": jnp.zeros((batch, height, width, plan.features)),
                "stride1": jnp.zeros((*out, plan.features)),
            }
            params["cells"].append({**cell, "edges": init_cell(key_edges, graph, examples)})
            before, last = last, jax.ShapeDtypeStruct((*out, config.nodes * plan.features), x.dtype)
        params["classifier"] = classifier.init(key_head, jnp.zeros(last.shape))
        return params

    def apply(params, paths, x, *, key=None):
        before = last = first.apply(params["stem"], x.astype(compute))
        for i, (plan, graph, entry) in enumerate(zip(plans, graphs, entries, strict=True)):
            cell = params["cells"][i]
            inputs = [entry[0].apply(cell["pre0"], before), entry[1].apply(cell["pre1"], last)]
            own = paths.select(lambda tree, kind=plan.kind: tree[kind])
            key_cell = None if key is None else jax.random.fold_in(key, i)
            before, last = last, jnp.concatenate(apply_cell(graph, cell["edges"], own, inputs, key_cell), -1)
        return classifier.apply(params["classifier"], last)

    def used(params, paths):
        mask = jax.tree.map(lambda leaf: True, {**params, "cells": [{**c, "edges": {}} for c in params["cells"]]})
        for i, (plan, graph) in enumerate(zip(plans, graphs, strict=True)):
            own = paths.select(lambda tree, kind=plan.kind: tree[kind])
            mask["cells"][i]["edges"] = used_cell(graph, params["cells"][i]["edges"], own)
        return mask

    shape = (len(edges(config.nodes)), len(config.operations))
    choices = {kind: jax.ShapeDtypeStruct(shape, wide_dtype(compute)) for kind in ("normal", "reduce")}
    settings = {"drop_path": drop_path, "lowering": lowering, "dtype": dtype, "reference": reference}
    about = _about(name, config, graphs, choices, size, settings)
    return SearchSpace(in_weight_dtype(one_draw(init), compute), apply, used, derive, choices, about)


def _about(name, config, graphs, choices, size, settings) -> About:
    pool_norm = name == "snas"

    def costs(image_shape, *, affine=True, auxiliary=False, momentum=0.9, **changes):
        del momentum  # costs nothing
        grown = dataclasses.replace(config, **{"pool_norm": pool_norm, **changes})
        return cost_tables(grown, Style(affine=affine), image_shape, auxiliary=auxiliary)

    def network(arch, *, affine=True, auxiliary=False, momentum=0.9, **changes):
        arch = arch_like(choices, arch)
        own = dataclasses.replace(config, **{"pool_norm": pool_norm, **changes})
        style = Style(affine=affine, running=True, momentum=momentum, lowering=settings["lowering"])
        normal, reduce = (tuple(arch[kind].tolist()) for kind in ("normal", "reduce"))
        return linen_network(
            DartsNetwork(own, normal, reduce, style, auxiliary), lambda p: _inherit(graphs, config, arch, p)
        )

    sizes = dataclasses.asdict(config) | {"operations": list(config.operations)}
    del sizes["pool_norm"]
    return About(
        name=name,
        operations={kind: config.operations for kind in choices},
        size=size,
        costs=costs,
        genotype=lambda arch: genotype(config, arch_like(choices, arch), keep_none=name == "snas"),
        parse=functools.partial(parse, config),
        network=network,
        edges={kind: edges(config.nodes) for kind in choices},
        config={**sizes, **settings},
    )


def _inherit(graphs, config, arch, params):
    named = {"stem": params["stem"], "classifier": params["classifier"]}
    for i, (plan, graph) in enumerate(zip(cell_plans(config), graphs, strict=True)):
        cell = params["cells"][i]
        named |= {f"cell{i}_pre0": cell["pre0"], f"cell{i}_pre1": cell["pre1"]}
        for edge, k in enumerate(arch[plan.kind]):
            name = config.operations[k]
            named[f"cell{i}_edge{edge}_{name}"] = edge_params(graph, cell["edges"], edge, name)
    channels = params["stem"]["kernel"].shape[2]
    return named, jax.ShapeDtypeStruct((4, 32, 32, channels), jnp.float32)
