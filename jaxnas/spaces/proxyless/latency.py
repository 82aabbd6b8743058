"""The blocks of the ProxylessNAS backbone as entries of its published latency tables."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.base import Part
from jaxnas.ops import Block, Classifier, MBConv, Style, Zero
from jaxnas.spaces.parts.pieces import Fixed
from jaxnas.spaces.parts.skeleton import visit_pieces
from jaxnas.spaces.proxyless.network import ProxylessConfig

__all__ = ["parts"]

Shape = tuple[int, ...]


def parts(
    config: ProxylessConfig, style: Style, image_shape: tuple[int, int, int]
) -> tuple[tuple[Part, ...], dict[str, Any]]:
    """The blocks of every network, and by kind of decision rows `[E][K]` of the candidates' blocks, None for `zero`.

    Keys are those of the tables that were published for this space.
    """
    fixed: list[Part] = []
    rows: dict[str, list[list[Part | None]]] = {}

    def visit(piece, x):
        shape = x.shape[1:]
        if isinstance(piece, Fixed):
            fixed.append(Part(_key(piece, shape), piece.block, shape))
            return
        # Every candidate of every place; a block that is left out takes no time.
        blocks = piece.group.blocks.values()
        row = [None if isinstance(block, Zero) else _bottleneck(block, shape, piece.shortcut) for block in blocks]
        rows.setdefault(piece.kind, []).extend([row] * len(piece.group.edges))

    visit_pieces(config, config.pieces(style), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), visit)
    return tuple(fixed), rows


class _WithShortcut(nn.Module):
    """`x + block(x)`."""

    block: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.block(x)


def _key(piece: Fixed, shape: Shape) -> str:
    if isinstance(piece.block, Classifier):
        return f"Logits-input:{_size(shape)}-output:{piece.block.num_classes}"
    if isinstance(piece.block, MBConv):
        return _bottleneck(piece.block, shape, shortcut=False).key
    name = {"stem": "Conv", "last": "Conv_1"}[piece.name]
    return f"{name}-input:{_size(shape)}-output:{_size(_after(piece.block, shape))}"


def _bottleneck(block: MBConv, shape: Shape, shortcut: bool) -> Part:
    # The form of the keys in the published tables.
    key = (
        f"expanded_conv-input:{_size(shape)}-output:{_size(_after(block, shape))}"
        f"-expand:{block.expand}-kernel:{block.kernel}-stride:{block.stride}-idskip:{int(shortcut)}"
    )
    return Part(key, _WithShortcut(block) if shortcut else block, shape)


def _after(block: Block, shape: Shape) -> Shape:
    return *block.grid(*shape[:2]), block.features


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))
