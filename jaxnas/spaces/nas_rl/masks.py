"""Masks of an architecture on the canvas.

They are factors in [0, 1] for kernels, filters and connections, and the integer sizes that lie inside them.

Letters for shapes: `L` layers, `K` side of the largest kernel, `S` most filters.
"""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Paths
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan
from jaxnas.spaces.nas_rl.taps import InUse

__all__ = [
    "Masks",
    "Sizes",
    "all_masks",
    "gates",
    "masked_kernel",
    "masks_of",
    "most_filters",
    "option_weights",
    "sizes_of",
]


class Masks(NamedTuple):
    """Factors that are 0 or 1 where every decision has a single option of weight one.

    Attributes:
      area: the centred rectangle of each layer's kernel, `[L, K, K]`.
      filters: the filters that each layer has, which are the first ones, `[L, S]`.
      connected: the factor, 0 or 1 for one architecture, with which the output of layer `j` enters layer `i`, `[L, L]`;
        zero from the diagonal on.
      image: the factor, 0 or 1 for one architecture, with which the image enters each layer, `[L]`.
      outputs: the factor, 0 or 1 for one architecture, with which each layer's output enters the classifier, `[L]`.
    """

    area: jax.Array
    filters: jax.Array
    connected: jax.Array
    image: jax.Array
    outputs: jax.Array


class Sizes(NamedTuple):
    """Sizes beyond which weights are zero, as int32 arrays.

    Attributes:
      rows: number of rows of each layer's kernel, `[L]`.
      columns: number of columns of each layer's kernel, `[L]`.
      filters: number of the option that each layer chose for its filters, `[L]`.
      connected: whether layer `i` reads layer `j`, `[L, L]`.
      image: whether a layer reads the image, `[L]`.
    """

    rows: Any
    columns: Any
    filters: Any
    connected: Any
    image: Any

    def of_image(self, reader: int) -> InUse:
        """The part of a kernel of layer `reader` with which it reads the image."""
        on = self.image[reader]
        return InUse(self.rows[reader] * on, self.columns[reader] * on, 0, self.filters[reader])

    def of_layer(self, writer: int, reader: int) -> InUse:
        """The part of a kernel of layer `reader` with which it reads a convolution of layer `writer`."""
        on = 1 if writer == reader else self.connected[reader, writer]
        return InUse(self.rows[reader] * on, self.columns[reader] * on, self.filters[writer], self.filters[reader])


def most_filters(plan: LayerPlan) -> int:
    """The greatest number of filters `S` of a convolution."""
    return max(plan.filters) + plan.more_filters


def masks_of(plan: LayerPlan, paths: Paths) -> Masks:
    """The masks of some paths, differentiable in the weights of the options.

    Raises:
      UserError: an index of one option beside weights of all of them.
    """
    options = {
        kind: option_weights(paths.select(operator.itemgetter(kind)), leaf.shape[1])
        for kind, leaf in plan.choices.items()
    }
    # Each option is a row of zeros and ones: sides around the centre, and the first filters.
    most = max(plan.kernels)
    distance = np.abs(np.arange(most) - most // 2)
    sides = jnp.asarray(distance[None] <= np.array(plan.kernels)[:, None] // 2, plan.wide)
    counts = np.array(plan.filters)[:, None] + plan.more_filters
    filters = jnp.asarray(np.arange(most_filters(plan))[None] < counts, plan.wide)
    rows, columns = options["height"] @ sides, options["width"] @ sides
    # Connections: option 1 is to read, option 0 not to.
    apart, connected = (
        _matrix(plan, options["skip"][:, option] if plan.num_layers > 1 else None, rest)
        for option, rest in ((0, 1.0), (1, 0.0))
    )
    return Masks(
        area=rows[:, :, None] * columns[:, None, :],
        filters=options["filters"] @ filters,
        connected=connected,
        image=jnp.prod(apart, 1),  # rule 1: no connection to an earlier layer
        outputs=jnp.prod(apart, 0),  # rule 2: no connection from a later one
    )


def all_masks(plan: LayerPlan) -> Masks:
    """Masks that leave the whole canvas."""
    layers, side = plan.num_layers, max(plan.kernels)
    ones = lambda *shape: jnp.ones(shape, plan.wide)  # noqa: E731
    connected = jnp.tril(ones(layers, layers), -1)
    return Masks(ones(layers, side, side), ones(layers, most_filters(plan)), connected, ones(layers), ones(layers))


def sizes_of(plan: LayerPlan, paths: Paths) -> Sizes:
    """The sizes in use: those of an architecture for sparse paths with one option each, otherwise all of the canvas."""
    layers, options = plan.num_layers, paths.index
    one = options is not None and all(leaf.shape[-1] == 1 for leaf in jax.tree.leaves(options))
    if not one or paths.probe is not None:
        full = jnp.full(layers, max(plan.kernels), jnp.int32)
        widest = jnp.full(layers, int(np.argmax(plan.filters)), jnp.int32)
        connected, ones = jnp.tril(jnp.ones((layers, layers), jnp.int32), -1), jnp.ones(layers, jnp.int32)
        return Sizes(full, full, widest, connected, ones)
    chosen = {kind: leaf[:, 0] for kind, leaf in options.items()}
    sides = jnp.asarray(plan.kernels, jnp.int32)
    connected = _matrix(plan, chosen.get("skip"), 0, jnp.int32)
    image = jnp.all(connected == 0, 1).astype(jnp.int32)
    return Sizes(sides[chosen["height"]], sides[chosen["width"]], chosen["filters"], connected, image)


def gates(plan: LayerPlan, masks: Masks, layer: int, number: int) -> jax.Array:
    """The factors with which the image and each convolution before it enter a convolution, `[1 + n]`.

    Args:
      plan: settings of the space.
      masks: the masks of some paths.
      layer: number of the layer of the convolution.
      number: number of the convolution in its layer, which reads all those before it in the layer.
    """
    layers = jnp.repeat(masks.connected[layer, :layer], plan.convolutions)
    return jnp.concatenate([masks.image[layer][None], layers, jnp.ones(number, layers.dtype)])


def masked_kernel(plan: LayerPlan, kernel: jax.Array, masks: Masks, layer: int, number: int) -> jax.Array:
    """The kernel of a convolution, zero outside of the layer's rectangle and for what the layer does not read."""
    most = most_filters(plan)
    read = gates(plan, masks, layer, number)
    widths = np.array([kernel.shape[2] - (len(read) - 1) * most, *[most] * (len(read) - 1)])
    channels = jnp.repeat(read, widths, total_repeat_length=kernel.shape[2])
    return kernel * (masks.area[layer][:, :, None, None] * channels.reshape(1, 1, -1, 1))


def option_weights(paths: Paths, options: int) -> jax.Array:
    """The weights `[E, options]` of all options of one kind of decision; a probe has weights of value zero."""
    weight = paths.weight
    if paths.index is not None:
        if weight.shape != paths.index.shape:
            raise UserError(
                f"paths: weights of shape {weight.shape} beside an index of shape {paths.index.shape}, expected a "
                "weight for each option that runs: an option of a canvas is a mask, without an output of its own"
            )
        weight = jnp.sum(weight[..., None] * jax.nn.one_hot(paths.index, options, dtype=weight.dtype), -2)
    if paths.probe is not None:
        probed = option_weights(paths.probe, options)
        weight = weight + probed - jax.lax.stop_gradient(probed)
    return weight


def _matrix(plan: LayerPlan, pairs: jax.Array | None, rest: float, dtype: Any = None) -> jax.Array:
    """A value for each two layers as a matrix `[L, L]` of readers and writers, `rest` from the diagonal on."""
    matrix = jnp.full((plan.num_layers,) * 2, rest, dtype or plan.wide)
    return matrix if pairs is None else matrix.at[np.tril_indices(plan.num_layers, -1)].set(pairs)
