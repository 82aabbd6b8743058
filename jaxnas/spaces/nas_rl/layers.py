"""The convolutional space of NAS-RL: layers with a kernel, filters and connections to any of the earlier layers."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Arch, Key, Network, Params, Paths, SearchSpace
from jaxnas.errors import UserError
from jaxnas.ops import Lowering, Style
from jaxnas.spaces.nas_rl.canvas import canvas_apply, canvas_cut, canvas_init, canvas_used
from jaxnas.spaces.nas_rl.decoding import decode
from jaxnas.spaces.nas_rl.layer_network import LayerNetwork, layer_counts
from jaxnas.spaces.nas_rl.layer_notation import genotype, parse
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan
from jaxnas.spaces.parts.inherit import linen_network

__all__ = ["layer_plan", "nas_rl_space", "plan_of"]


def nas_rl_space(
    num_layers: int = 6,
    num_classes: int = 10,
    *,
    filters: Sequence[int] = (24, 36, 48, 64),
    kernels: Sequence[int] = (1, 3, 5, 7),
    strides: Sequence[int] | None = None,
    order: str = "conv_bn_relu",
    pooling: Sequence[int] | None = None,
    convolutions: int = 1,
    more_filters: int = 0,
    reference: int = 0,
    dtype: str = "float32",
    lowering: Lowering = "auto",
) -> SearchSpace:
    """The space of convolutional networks of Zoph and Le (2017, arXiv 1611.01578), section 3.3.

    A layer chooses the height and the width of its kernel and its number of filters, and connects to any of the earlier
    layers. Its inputs are concatenated along the channels.

    1. A layer without a connection reads the image.
    2. The outputs that no layer reads are all concatenated; after global average pooling they go to the classifier.
    3. Inputs of different sizes are padded with zeros to the largest.

    There are `(F K K)^L 2^(L (L - 1) / 2)` architectures of `L` layers with `F` numbers of filters and `K` sides of a
    kernel, and `S^(2 L)` times as many where one of `S` strides is chosen for rows and one for columns.

    The paper leaves open, and this space chooses: convolution, normalisation and ReLU in this order, which `order`
    changes; convolutions that keep the size of an image at stride 1; zeros of rule 3 below and at the right.

    The paper's variant with pooling predicts 13 layers, each a block of three densely connected ones with 6, 12, 24 or
    36 filters, and has poolings at layers 13 and 24 of the 39. It says no more of them. Here that variant is
    `nas_rl_space(13, filters=(6, 12, 24, 36), convolutions=3, pooling=(4, 8))`: the poolings stand between blocks,
    after 12 and 24 convolutions, and take the maximum over 3x3 pixels in steps of two. The output of a block is the
    concatenation of its convolutions. A pooling applies to every earlier output that a later layer reads, and to the
    image.

    Args:
      num_layers: number of predicted layers.
      num_classes: number of classes.
      filters: the numbers of filters from which a layer chooses.
      kernels: the odd heights, and widths, from which a layer chooses those of its kernel.
      strides: the strides from which a layer chooses, (1, 2, 3) in the paper; None for stride 1 without a choice.
      order: `"conv_bn_relu"` or `"conv_relu_bn"`: convolution, normalisation and ReLU.
      pooling: numbers of layers after which a pooling stands, ascending; None for no pooling. One that would stand
        after the last layer or beyond it is left out.
      convolutions: number of convolutions of a layer. From two on they are a block in which each reads the input of the
        block and all convolutions before it.
      more_filters: number of filters that every convolution has beside those that it chose; the paper gave 40 to the
        network that it found. `about.network` and `about.counts` take it, too.
      reference: number of examples at the head of a batch that give the statistics of normalisation; 0 for all of them.
      dtype: type of the computation, `"float32"` or `"bfloat16"`, beside weights in float32; or, for checking,
        `"float64"` throughout, which needs 64-bit JAX.
      lowering: how operations are written for the backend, see `jaxnas.ops.lowering`.

    Returns:
      The space, with `choices = {"filters": [L, F], "height": [L, K], "skip": [L (L - 1) / 2, 2], "width": [L, K]}`
      and, where strides are predicted, `"stride_height"` and `"stride_width"` of shape `[L, S]`. Rows of `"skip"` are
      the connections of layer 1 to layer 0, of layer 2 to layers 0 and 1, and so on; option 1 connects. A space of one
      layer has no `"skip"`. `derive` takes the greatest score of each decision. `about.genotype` is a text, see
      `jaxnas.spaces.nas_rl.layer_notation`.

    Raises:
      UserError: a size that is no whole number or below 1, fewer than two options of a decision or options that are no
        different whole numbers, an even kernel, another `order`, `dtype` or `lowering`.

    Example:
      >>> space = nas_rl_space(2)
      >>> space.about.size, space.about.genotype({"filters": [1, 2], "height": [1, 1], "skip": [1], "width": [1, 3]})
      (8192, '|3x3 36|3x7 48 from 0|')
    """
    plan = _plan(dict(locals()))
    plain, choices = vars(plan) | {"pooling": plan.pooling or None}, plan.choices

    def form(*, affine=True, momentum=0.9, eps=1e-5, running=True, reference=0, **changes) -> LayerNetwork:
        style = Style(affine, running, True, reference, momentum, eps, lowering)
        return LayerNetwork(dataclasses.replace(plan, **changes), style)

    def network(arch: Arch, **changes: Any) -> Network:
        module = form(**changes)

        def inherit(params: Params) -> tuple[dict[str, Any], jax.ShapeDtypeStruct]:
            weights = canvas_cut(plan, params, arch)
            channels = weights["layer0"]["conv0"]["kernel"].shape[2]
            return weights, jax.ShapeDtypeStruct((4, 32, 32, channels), jnp.float32)

        return linen_network(module.clone(network=decode(module.plan, arch)), inherit)

    def counts(arch: Arch, image_shape: Sequence[int], **changes: Any) -> dict[str, int]:
        module = form(**changes)
        return layer_counts(module.plan, module.style, arch, image_shape)

    about = About(
        name="nas-rl",
        operations=plan.operations,
        size=math.prod(leaf.shape[1] ** leaf.shape[0] for leaf in jax.tree.leaves(choices)),
        genotype=lambda arch: genotype(plan, arch_like(choices, arch)),
        parse=lambda text: parse(plan, text),
        network=network,
        counts=counts,
        config={name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()},
    )

    def apply(params: Params, paths: Paths, x: jax.Array, *, key: Key | None = None) -> jax.Array:
        del key  # nothing is random
        return canvas_apply(plan, params, paths, x)

    init, used = functools.partial(canvas_init, plan), functools.partial(canvas_used, plan)
    return SearchSpace(init, apply, used, greatest, choices, about)


def layer_plan(space: SearchSpace) -> LayerPlan:
    """The settings of a space from `nas_rl_space`.

    Raises:
      UserError: another space.

    Example:
      >>> layer_plan(nas_rl_space(8)).num_layers
      8
    """
    return plan_of(space.about)


def plan_of(about: About) -> LayerPlan:
    """The settings of a space from `nas_rl_space`, read from what the space says of itself.

    Raises:
      UserError: another space.
    """
    if about.name != "nas-rl" or about.config is None:
        raise UserError(f"space must be one of nas_rl_space, got {about.name!r}")
    return _plan(about.config)


def _plan(settings: dict[str, Any]) -> LayerPlan:
    """The settings of the factory in the form of a plan, in which no pooling is an empty sequence."""
    return LayerPlan(**settings | {"pooling": () if settings["pooling"] is None else settings["pooling"]})
