"""The order in which a controller writes the layers of a network, and architectures that are cut off after a layer."""

import numpy as np

from jaxnas.base import Arch, SearchSpace
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl.layers import layer_plan

__all__ = ["nas_rl_prefix", "nas_rl_tokens"]


def nas_rl_tokens(space: SearchSpace) -> tuple[tuple[str, int | tuple[int, ...]], ...]:
    """The order in which a controller writes an architecture, for `jaxnas.policies.controller(space.choices, tokens)`.

    Layer after layer: height and width of the kernel, the two strides where they are predicted, the number of filters,
    and the anchor point with the connections to all earlier layers. Every layer has the same number of tokens, four or
    six, so a controller of `length=tokens_per_layer * d` writes the first `d` layers.

    Args:
      space: a space from `nas_rl_space`.

    Returns:
      Pairs of a token's kind and the place of its decision, see `jaxnas.policies.tokens.Token`.

    Raises:
      UserError: another space.

    Example:
      >>> from jaxnas.spaces.nas_rl import nas_rl_space
      >>> nas_rl_tokens(nas_rl_space(2))[4:]
      (('height', 3), ('width', 6), ('filters', 1), ('skip', (4,)))

    References:
      Zoph and Le, 2017, arXiv 1611.01578, figures 2 and 4.
    """
    num_layers = layer_plan(space).num_layers
    # Where the rows of each kind begin among all decisions.
    starts, start = {}, 0
    for kind, leaf in sorted(space.choices.items()):
        starts[kind], start = start, start + leaf.shape[0]
    kinds = [kind for kind in ("height", "width", "stride_height", "stride_width", "filters") if kind in starts]
    tokens: list[tuple[str, int | tuple[int, ...]]] = []
    for i in range(num_layers):
        first = starts.get("skip", 0) + i * (i - 1) // 2
        tokens += [(kind, starts[kind] + i) for kind in kinds]
        tokens.append(("skip", tuple(range(first, first + i))))
    return tuple(tokens)


def nas_rl_prefix(arch: Arch, num_layers: int) -> Arch:
    """The first layers of an architecture, as an architecture of the space that is so deep.

    Args:
      arch: leaves `[..., E]`; leading axes, such as that of a population, stay.
      num_layers: number of layers to keep, from 1 to all.

    Raises:
      UserError: a number of layers that the architecture does not have.

    Example:
      >>> nas_rl_prefix({"filters": [0, 1, 2], "height": [0, 0, 0], "skip": [1, 0, 1], "width": [3, 3, 3]}, 2)["skip"]
      array([1])
    """
    arch = {kind: np.asarray(leaf) for kind, leaf in arch.items()}
    depth = arch["filters"].shape[-1]
    if not 1 <= num_layers <= depth:
        raise UserError(f"num_layers must be from 1 to {depth}, the layers of the architecture, got {num_layers}")
    rows = {kind: num_layers for kind in arch} | {"skip": num_layers * (num_layers - 1) // 2}
    return {kind: leaf[..., : rows[kind]] for kind, leaf in arch.items() if rows[kind]}
