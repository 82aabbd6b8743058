"""The cell space of NAS-Bench-201, also known as the topology space of NATS-Bench.

A network is a stem, three stages of equal cells with a residual block between them, and a classifier. A cell has four
nodes and six edges; a node sums its incoming edges, each of which is one of five operations, and the last node is the
output. All cells share one architecture, so there are 5^6 = 15,625 of them, all trained and recorded (Dong and Yang,
2020, arXiv 2001.00326).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Params, Paths, SearchSpace
from jaxnas.dtypes import compute_dtype, in_weight_dtype, wide_dtype
from jaxnas.ops import Classifier, Lowering, Style, by_hand, from_linen, one_draw
from jaxnas.spaces.nasbench201.costs import cost_tables
from jaxnas.spaces.nasbench201.genotype import genotype, parse
from jaxnas.spaces.nasbench201.network import (
    EDGES,
    OPERATIONS,
    NasBench201Config,
    NasBench201Network,
    last_norm,
    operation,
    reduction,
    stem,
)
from jaxnas.spaces.parts.cell import CellGraph, apply_cell, edge_params, group_of, init_cell, used_cell
from jaxnas.spaces.parts.checks import reference_examples
from jaxnas.spaces.parts.inherit import linen_network

__all__ = ["EDGES", "OPERATIONS", "NasBench201Config", "nasbench201_space"]


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
      channels: of the first stage.
      cells: per stage.
      num_classes: number of classes.
      operations: candidates of every edge, in order; an index into the benchmark's tables needs the default ones.
      lowering: `"lax"` evaluates cell by cell and edge by edge with plain `lax` operations, the plain form.
      dtype: of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking, `"float64"`
        throughout, which needs 64-bit JAX.
      reference: normalise with the statistics of the first `reference` examples of a batch instead of all of them, so
        that the others are judged independently of each other.

    Returns:
      The space, with `choices = {"cell": [6, K]}`. Its images need sides divisible by four.

    Raises:
      UserError: a size below one, fewer than two operations or an unknown one, another `dtype` or `lowering`.
    """
    config = NasBench201Config(channels, cells, num_classes, tuple(operations))
    reference_examples(reference)
    style = Style(lowering=lowering, reference=reference)
    by_hand(lowering)  # refuses an unknown one
    return _space(config, style, compute_dtype(dtype))


def _space(config: NasBench201Config, style: Style, compute: Any) -> SearchSpace:
    graphs = [_graph(config, features, style) for features in config.widths]
    entries = [from_linen(reduction(features, style)) for features in config.widths[1:]]
    first, head = from_linen(stem(config, style)), from_linen(_Head(config.num_classes, style))

    def init(key, x):
        key_stem, key_head, *keys = jax.random.split(key, 2 + len(graphs))
        params = {"stem": first.init(key_stem, x), "reductions": [], "stages": []}
        x = _zeros(first.apply, params["stem"], x)
        for stage, (graph, key_stage) in enumerate(zip(graphs, keys, strict=True)):
            key_entry, key_cells = jax.random.split(key_stage)
            if stage:
                params["reductions"].append(entries[stage - 1].init(key_entry, x))
                x = _zeros(entries[stage - 1].apply, params["reductions"][-1], x)
            keys_cells = jax.random.split(key_cells, config.cells)
            params["stages"].append(jax.vmap(init_cell, in_axes=(0, None, None))(keys_cells, graph, {"edges": x}))
        return {**params, "head": head.init(key_head, x)}

    def apply(params, paths, x, *, key=None):
        del key  # nothing in this space is random
        own = paths.select(lambda tree: tree["cell"])
        x = first.apply(params["stem"], x.astype(compute))
        for stage, graph in enumerate(graphs):
            if stage:
                x = entries[stage - 1].apply(params["reductions"][stage - 1], x)
            x = _run_stage(graph, config.cells, params["stages"][stage], own, x)
        return head.apply(params["head"], x)

    def used(params, paths):
        own = paths.select(lambda tree: tree["cell"])
        mask = jax.tree.map(lambda leaf: True, {**params, "stages": []})
        for graph, cells in zip(graphs, params["stages"], strict=True):
            one_cell = used_cell(graph, jax.tree.map(lambda leaf: leaf[0], cells), own)
            mask["stages"].append(jax.tree.map(lambda leaf: leaf[None], one_cell))
        return mask

    choices = {"cell": jax.ShapeDtypeStruct((len(EDGES), len(config.operations)), wide_dtype(compute))}
    about = _about(config, style, compute, graphs, choices)
    return SearchSpace(in_weight_dtype(one_draw(init), compute), apply, used, greatest, choices, about)


class _Head(nn.Module):
    """Normalisation, ReLU, global average pooling and a dense layer."""

    num_classes: int
    style: Style

    @nn.compact
    def __call__(self, x):
        x = jax.nn.relu(last_norm(self.style).clone(name="norm", parent=self)(x))
        return Classifier(self.num_classes, name="classifier")(x)


def _graph(config: NasBench201Config, features: int, style: Style) -> CellGraph:
    blocks = {name: operation(name, features, style) for name in config.operations}
    return CellGraph(EDGES, 1, {"edges": group_of(blocks, tuple(range(len(EDGES))))}, scanned=style.lowering != "lax")


def _zeros(apply_fn, params: Params, x: jax.Array) -> jax.Array:
    shape = jax.eval_shape(apply_fn, params, x)
    return jnp.zeros(shape.shape, shape.dtype)


def _run_stage(graph: CellGraph, cells: int, params: Params, paths: Paths, x: jax.Array) -> jax.Array:
    """Runs the cells of one stage, whose parameters are stacked on the leading axis."""

    def body(x, cell):
        return apply_cell(graph, cell, paths, [x])[-1], None

    if graph.scanned:
        return lax.scan(body, x, params, length=cells)[0]
    for i in range(cells):
        x, _ = body(x, jax.tree.map(lambda leaf, i=i: leaf[i], params))
    return x


def _about(config, style, compute, graphs, choices) -> About:
    def costs(image_shape, *, affine=True, momentum=0.9, **changes):
        del momentum  # costs nothing
        return cost_tables(dataclasses.replace(config, **changes), Style(affine=affine), image_shape)

    def network(arch, *, affine=True, momentum=0.9, **changes):
        cell = tuple(arch_like(choices, arch)["cell"].tolist())
        own = Style(affine=affine, running=True, momentum=momentum, lowering=style.lowering)
        module = NasBench201Network(dataclasses.replace(config, **changes), cell, own)
        return linen_network(module, lambda params: _inherit(config, graphs, cell, params))

    settings = dataclasses.asdict(config) | {"operations": list(config.operations)}
    return About(
        name="nasbench201",
        operations={"cell": config.operations},
        size=len(config.operations) ** len(EDGES),
        costs=costs,
        genotype=lambda arch: genotype(config.operations, arch_like(choices, arch)),
        parse=functools.partial(parse, config.operations),
        network=network,
        edges={"cell": EDGES},
        config=settings | {"lowering": style.lowering, "dtype": compute.name, "reference": style.reference},
    )


def _inherit(config: NasBench201Config, graphs, cell: tuple[int, ...], params: Params):
    named = {"stem": params["stem"], **params["head"]}
    for stage, graph in enumerate(graphs):
        if stage:
            named[f"reduce{stage}"] = params["reductions"][stage - 1]
        for i in range(config.cells):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], params["stages"][stage])
            for edge, k in enumerate(cell):
                name = config.operations[k]
                place = f"cell{stage * config.cells + i}_edge{edge}_{name}"
                named[place] = edge_params(graph, own, edge, name)
    channels = params["stem"]["kernel"].shape[2]
    return named, jax.ShapeDtypeStruct((4, 32, 32, channels), jnp.float32)
