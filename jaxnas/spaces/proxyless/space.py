"""The ProxylessNAS space: a chain of inverted bottlenecks, kernel and expansion of each to be chosen, and its depth."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Params, Paths, SearchSpace
from jaxnas.dtypes import compute_dtype, in_weight_dtype, wide_dtype
from jaxnas.ops import Block, Classifier, Lowering, Style, from_linen, one_draw
from jaxnas.spaces.parts.cell import CellGraph, EdgeGroup, edge_params, init_cell, output_like, used_cell
from jaxnas.spaces.parts.choice import mixed_op
from jaxnas.spaces.parts.inherit import linen_network
from jaxnas.spaces.proxyless.costs import cost_tables, parts
from jaxnas.spaces.proxyless.genotype import genotype, parse
from jaxnas.spaces.proxyless.network import (
    ZERO,
    Place,
    ProxylessConfig,
    ProxylessNetwork,
    candidates,
    choices_of,
    first_block,
    last_conv,
    operation,
    places,
    stem,
)

__all__ = ["BlockRun", "block_runs", "proxyless_space"]


class BlockRun(NamedTuple):
    """Blocks in a row with the same shapes and operations, over which the supernet scans."""

    places: tuple[Place, ...]
    graph: CellGraph

    @property
    def rows(self) -> np.ndarray:
        """Which decisions of their kind."""
        return np.array([place.row for place in self.places])

    @property
    def kind(self) -> str:
        """`entry` or `inner`."""
        return self.places[0].kind


def proxyless_space(
    widths: Sequence[int] = (24, 40, 80, 96, 192, 320),
    blocks: Sequence[int] = (4, 4, 4, 4, 4, 1),
    strides: Sequence[int] = (2, 2, 2, 1, 2, 1),
    *,
    stem_channels: int = 32,
    stem_stride: int = 2,
    first_channels: int = 16,
    last_channels: int = 1280,
    num_classes: int = 1000,
    kernels: Sequence[int] = (3, 5, 7),
    expansions: Sequence[int] = (3, 6),
    width_multiplier: float = 1.0,
    reference: int = 0,
    dtype: str = "float32",
    lowering: Lowering = "auto",
) -> SearchSpace:
    """The space of ProxylessNAS (Cai, Zhu and Han, 2019, arXiv 1812.00332); by default the one for ImageNet.

    A convolution, a fixed block, then stages of searchable blocks. A block is one of the inverted bottlenecks `3x3_e3`,
    `3x3_e6`, `5x5_e3`, ...; where input and output have the same shape it has a shortcut around the choice, and the
    choice has one more operation, `zero`, which leaves the block out. With small strides and widths the same space
    takes images of any size.

    Args:
      widths: output channels of every stage.
      blocks: searchable blocks of every stage.
      strides: of the first block of every stage.
      stem_channels: of the first convolution.
      stem_stride: of the first convolution.
      first_channels: of the fixed block.
      last_channels: of the 1x1 convolution before the classifier.
      num_classes: number of classes.
      kernels: sides of the depthwise convolutions to choose from.
      expansions: expansion factors to choose from.
      width_multiplier: of all widths, which are then rounded to multiples of eight.
      reference: normalise with the statistics of the first `reference` examples of a batch instead of all of them.
      dtype: of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking, `"float64"`
        throughout, which needs 64-bit JAX.
      lowering: see `jaxnas.ops.lowering`.

    Returns:
      The space, with `choices = {"entry": [n, K], "inner": [m, K + 1]}`: the blocks without and with a shortcut, in
      their order; a kind without blocks has no entry. `derive` takes the greatest score of each.

    Raises:
      UserError: a size below one, an even kernel, fewer than two candidates, stages of different number.
    """
    config = ProxylessConfig(
        tuple(widths),
        tuple(blocks),
        tuple(strides),
        stem_channels,
        stem_stride,
        first_channels,
        last_channels,
        num_classes,
        tuple(kernels),
        tuple(expansions),
        width_multiplier,
    )
    compute = compute_dtype(dtype)
    style = Style(affine=True, reference=reference, momentum=0.9, eps=1e-3, lowering=lowering)
    runs = block_runs(config, style)
    fixed = {name: from_linen(block) for name, block in _fixed(config, style).items()}
    head = from_linen(Classifier(config.num_classes, bias=0.0))

    def init(key, x):
        keys = iter(jax.random.split(key, len(runs) + len(fixed) + 1))
        params: dict[str, Any] = {}
        for name in ("stem", "first"):
            params[name] = fixed[name].init(next(keys), x)
            x = output_like(fixed[name], params[name], x)
        params["runs"] = []
        for run in runs:
            params["runs"].append(init_cell(next(keys), run.graph, {"blocks": x})["blocks"])
            name, op = next(iter(run.graph.groups["blocks"].ops.items()))
            x = output_like(op, jax.tree.map(lambda leaf: leaf[0], params["runs"][-1][name]), x)
        params["last"] = fixed["last"].init(next(keys), x)
        x = output_like(fixed["last"], params["last"], x)
        return {**params, "classifier": head.init(next(keys), x)}

    def apply(params, paths, x, *, key=None):
        del key  # nothing in this space is random
        x = x.astype(compute)
        x = fixed["first"].apply(params["first"], fixed["stem"].apply(params["stem"], x))
        for run, own in zip(runs, params["runs"], strict=True):
            x = _apply_run(run, own, paths.select(lambda tree, run=run: tree[run.kind][run.rows]), x)
        return head.apply(params["classifier"], fixed["last"].apply(params["last"], x))

    def used(params, paths):
        mask = jax.tree.map(lambda leaf: True, {**params, "runs": []})
        for run, own in zip(runs, params["runs"], strict=True):
            chosen = paths.select(lambda tree, run=run: tree[run.kind][run.rows])
            mask["runs"].append(used_cell(run.graph, {"blocks": own}, chosen)["blocks"])
        return mask

    choices = {kind: shape.update(dtype=wide_dtype(compute)) for kind, shape in choices_of(config).items()}
    settings = {"dtype": dtype, "reference": reference, "lowering": lowering}
    about = _about(config, style, runs, choices, settings)
    return SearchSpace(in_weight_dtype(one_draw(init), compute), apply, used, greatest, choices, about)


def _fixed(config: ProxylessConfig, style: Style) -> dict[str, Block]:
    return {"stem": stem(config, style), "first": first_block(config, style), "last": last_conv(config, style)}


def block_runs(config: ProxylessConfig, style: Style) -> tuple[BlockRun, ...]:
    """Blocks with a shortcut that follow one another are one run; the others stand alone."""

    def together(place):
        return (place.kind, place.features) if place.kind == "inner" else ("entry", place.row)

    runs = []
    for _, group in itertools.groupby(places(config), together):
        members = tuple(group)
        first = members[0]
        ops = {
            name: from_linen(operation(name, first.features, first.stride, style))
            for name in candidates(config, first.kind)
        }
        edges = tuple((i, i + 1) for i in range(len(members)))
        runs.append(BlockRun(members, CellGraph(edges, 1, {"blocks": EdgeGroup(ops, tuple(range(len(members))))})))
    return tuple(runs)


def _apply_run(run: BlockRun, params: Params, paths: Paths, x: jax.Array) -> jax.Array:
    """Scans over the blocks of a run; a single block is no scan."""
    ops = run.graph.groups["blocks"].ops
    rows = tuple(params[name] for name in ops), paths

    def body(x, row):
        own, chosen = row
        y = mixed_op(tuple(ops.values()), own, chosen, x)
        return (x + y if run.kind == "inner" else y), None

    if len(run.places) == 1:
        return body(x, jax.tree.map(lambda leaf: leaf[0], rows))[0]
    return jax.lax.scan(body, x, rows)[0]


def _about(config, style, runs, choices, settings) -> About:
    def costs(image_shape, *, momentum=0.9, dropout=0.0):
        del momentum, dropout  # cost nothing
        return cost_tables(config, style, image_shape)

    def network(arch, *, momentum=0.9, dropout=0.0):
        stand_alone = dataclasses.replace(style, running=True, reference=0, momentum=momentum)
        names = tuple(genotype(config, arch_like(choices, arch)))
        return linen_network(
            ProxylessNetwork(config, names, stand_alone, dropout), lambda params: _inherit(runs, names, params)
        )

    return About(
        name="proxyless",
        operations={kind: candidates(config, kind) for kind in choices},
        size=int(np.prod([shape.shape[1] ** shape.shape[0] for shape in choices.values()], dtype=object)),
        costs=costs,
        genotype=lambda arch: genotype(config, arch_like(choices, arch)),
        parse=functools.partial(parse, config),
        network=network,
        parts=lambda image_shape: parts(config, dataclasses.replace(style, running=True, train=False), image_shape),
        config={
            "widths": list(config.widths),
            "blocks": list(config.blocks),
            "strides": list(config.strides),
            "stem_channels": config.stem,
            "stem_stride": config.stem_stride,
            "first_channels": config.first,
            "last_channels": config.last,
            "num_classes": config.num_classes,
            "kernels": list(config.kernels),
            "expansions": list(config.expansions),
            "width_multiplier": config.width_multiplier,
            **settings,
        },
    )


def _inherit(runs: Sequence[BlockRun], names: Sequence[str], params: Params):
    named = {name: params[name] for name in ("stem", "first", "last", "classifier")}
    number = 0
    for run, own in zip(runs, params["runs"], strict=True):
        for row in range(len(run.places)):
            name = names[number]
            if name != ZERO:
                named[f"block{number}_{name}"] = edge_params(run.graph, {"blocks": own}, row, name)
            number += 1
    channels = params["stem"]["kernel"].shape[2]
    return named, jax.ShapeDtypeStruct((4, 64, 64, channels), jnp.float32)
