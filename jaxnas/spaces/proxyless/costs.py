"""What the blocks of the ProxylessNAS backbone cost, and the keys of its published latency tables."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxnas.base import CostTable, Part
from jaxnas.ops import Classifier, Cost, MBConv, Style
from jaxnas.spaces.proxyless.network import (
    Place,
    ProxylessConfig,
    bottleneck,
    candidates,
    choices_of,
    first_block,
    last_conv,
    operation,
    places,
    stem,
)

__all__ = ["cost_tables", "parts"]

Grid = tuple[int, int]


def cost_tables(config: ProxylessConfig, style: Style, image_shape: tuple[int, int, int]) -> dict[str, CostTable]:
    """Parameters and multiply-adds of the stand-alone network, as the papers count them."""
    grid, channels = image_shape[:2], image_shape[2]
    total = stem(config, style).cost(channels, *grid)
    total += first_block(config, style).cost(config.scaled(config.stem), *_strided(grid, config.stem_stride))
    tables = {kind: np.zeros((*shape.shape, 2), np.int64) for kind, shape in choices_of(config).items()}
    for place, own in _grids(config, grid):
        for k, name in enumerate(candidates(config, place.kind)):
            block = operation(name, place.features, place.stride, style)
            tables[place.kind][place.row, k] = block.cost(place.features_in, *own)
    last, features = _last(config, grid)
    total += last_conv(config, style).cost(features, *last) + Classifier(config.num_classes).cost(config.head)
    return {
        name: CostTable(getattr(total, name), {kind: table[..., i] for kind, table in tables.items()})
        for i, name in enumerate(Cost._fields)
    }


def parts(
    config: ProxylessConfig, style: Style, image_shape: tuple[int, int, int]
) -> tuple[tuple[Part, ...], dict[str, Any]]:
    """See `About.parts`; keys as in the tables that were published for this space."""
    grid, channels = image_shape[:2], image_shape[2]
    first = first_block(config, style)
    begin = _block_part(first, _strided(grid, config.stem_stride), config.scaled(config.stem), shortcut=False)
    rows: dict[str, list[list[Part | None]]] = {kind: [] for kind in choices_of(config)}
    for place, own in _grids(config, grid):
        shortcut = place.kind == "inner"
        made = [bottleneck(name, place.features, place.stride, style) for name in config.operations]
        row: list[Part | None] = [_block_part(block, own, place.features_in, shortcut=shortcut) for block in made]
        rows[place.kind].append([*row, None] if shortcut else row)
    return (_stem_part(config, style, grid, channels), begin, *_head_parts(config, style, *_last(config, grid))), rows


def _grids(config: ProxylessConfig, grid: Grid) -> Iterator[tuple[Place, Grid]]:
    """Every searchable block with the grid of its input."""
    grid = _strided(grid, config.stem_stride)
    for place in places(config):
        yield place, grid
        grid = _strided(grid, place.stride)


def _last(config: ProxylessConfig, grid: Grid) -> tuple[Grid, int]:
    """Grid and channels after the last searchable block."""
    *_, (place, own) = _grids(config, grid)
    return _strided(own, place.stride), place.features


def _strided(grid: Grid, stride: int) -> Grid:
    return -(-grid[0] // stride), -(-grid[1] // stride)


class _WithShortcut(nn.Module):
    """`x + block(x)`."""

    block: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.block(x)


def _stem_part(config: ProxylessConfig, style: Style, grid: Grid, channels: int) -> Part:
    block = stem(config, style)
    key = f"Conv-input:{_size(grid, channels)}-output:{_size(_strided(grid, block.stride), block.features)}"
    return Part(key, block, (*grid, channels))


def _block_part(block: MBConv, grid: Grid, channels: int, *, shortcut: bool) -> Part:
    key = (
        f"expanded_conv-input:{_size(grid, channels)}-output:{_size(_strided(grid, block.stride), block.features)}"
        f"-expand:{block.expand}-kernel:{block.kernel}-stride:{block.stride}-idskip:{int(shortcut)}"
    )
    return Part(key, _WithShortcut(block) if shortcut else block, (*grid, channels))


def _head_parts(config: ProxylessConfig, style: Style, grid: Grid, channels: int) -> tuple[Part, Part]:
    """The 1x1 convolution, and the classifier with its pooling."""
    last = last_conv(config, style)
    conv = f"Conv_1-input:{_size(grid, channels)}-output:{_size(grid, last.features)}"
    logits = f"Logits-input:{_size(grid, last.features)}-output:{config.num_classes}"
    classifier = Classifier(config.num_classes)
    return Part(conv, last, (*grid, channels)), Part(logits, classifier, (*grid, last.features))


def _size(grid: Grid, channels: int) -> str:
    return f"{grid[0]}x{grid[1]}x{channels}"
