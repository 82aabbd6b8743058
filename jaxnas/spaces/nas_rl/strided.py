"""The canvas of NAS-RL's convolutional space where strides are predicted: images of any size at its top left corner.

A stride is a linear map along one axis that takes every `s`-th pixel to the front and is zero behind the last one. The
same map makes the rows in use after the stride of those in use before it, so the size of an image is a vector of zeros
and ones that depends on the architecture, and the program does not. The zeros around a smaller image are those with
which rule 3 pads it.

Letters for shapes: `B` images, `H` rows, `W` columns, `C` channels, `F` filters.
"""

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Params, Paths
from jaxnas.dtypes import compute_dtype, wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops import conv, max_pool, normalise
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan
from jaxnas.spaces.nas_rl.masks import gates, masked_kernel, masks_of, option_weights

__all__ = ["Placed", "strided_apply"]


class Placed(NamedTuple):
    """Images at the top left corner of a canvas.

    Attributes:
      pixels: `[B, H, W, C]`, zero outside of the rows and columns in use.
      rows: `[H]`, 1 for the rows in use, which are the first ones, and 0 behind them.
      columns: `[W]`, the same for columns.
    """

    pixels: jax.Array
    rows: jax.Array
    columns: jax.Array

    @property
    def area(self) -> jax.Array:
        """`[1, H, W, 1]`, 1 for the pixels in use."""
        return (self.rows[:, None] * self.columns[None])[None, :, :, None]


def strided_apply(plan: LayerPlan, params: Params, paths: Paths, x: jax.Array, *, eps: float = 1e-5) -> jax.Array:
    """Logits `[B, num_classes]` of any paths through the canvas of a space whose strides are predicted.

    Weights of strides mix the linear maps of the strides, and with them the rows and columns in use.

    Args:
      plan: settings of the space, with strides.
      params: weights of the canvas, from `jaxnas.spaces.nas_rl.canvas.canvas_init`.
      paths: paths as `SearchSpace.apply` takes them.
      x: images `[B, H, W, C]`.
      eps: number above zero that normalisation adds to the variance.

    Raises:
      UserError: a batch in which some architecture of the space would leave fewer than four values per channel to
        normalise over. The program cannot know which architecture it is given, so it asks this of all of them, also
        where the network of one architecture alone would take the batch.
    """
    _check_batch(plan, x)
    masks = masks_of(plan, paths)
    down, across = (
        option_weights(paths.select(operator.itemgetter(kind)), len(plan.strides or ()))
        for kind in ("stride_height", "stride_width")
    )
    full = [jnp.ones(side, plan.wide) for side in x.shape[1:3]]
    images = [Placed(x.astype(compute_dtype(plan.dtype)), *full)]
    for i in range(plan.num_layers):
        if i in plan.pooling:
            images = [_pooled(plan, image) for image in images]
        # Rule 3: the largest height and width among the images that the layer reads.
        read = gates(plan, masks, i, 0)
        grid = [_largest(read, [image[axis] for image in images]) for axis in (1, 2)]
        steps = [_steps(plan, weights[i], len(side)) for weights, side in zip((down, across), grid, strict=True)]
        rows, columns = (step @ side for step, side in zip(steps, grid, strict=True))
        near = [image.pixels for image in images]
        for c in range(plan.convolutions):
            weights = params[f"layer{i}"][f"conv{c}"]
            kernel = masked_kernel(plan, weights["kernel"], masks, i, c)
            y = conv(jnp.concatenate(near, -1), kernel, lowering=plan.lowering)
            if c == 0:
                # The first convolution has the strides; the others read the pixels that the strides meet.
                y = _strided(steps, y)
                near = [_strided(steps, pixels) for pixels in near] if plan.convolutions > 1 else near
            y = jax.nn.relu(y) if plan.order == "conv_relu_bn" else y
            placed = _normalised(plan, weights["norm"], Placed(y, rows, columns), eps)
            y = jax.nn.relu(placed.pixels) if plan.order == "conv_bn_relu" else placed.pixels
            y = y * (placed.area * masks.filters[i].reshape(1, 1, 1, -1)).astype(y.dtype)
            images.append(Placed(y, rows, columns))
            near.append(y)
    return _classified(plan, params, masks.outputs, images[1:])


def _check_batch(plan: LayerPlan, x: jax.Array) -> None:
    """Raises `UserError` if the largest strides leave too few values for the statistics of a batch."""
    most = max(plan.strides or (1,)) ** plan.num_layers * 2 ** plan.stage(plan.num_layers)
    least = len(x[: plan.reference or None]) * math.prod(-(-side // most) for side in x.shape[1:3])
    if least < 4:
        raise UserError(f"batch normalisation needs B*H*W >= 4, got {least} behind the largest strides of the space")


def _largest(read: jax.Array, sides: Sequence[jax.Array]) -> jax.Array:
    """The rows, or columns, in use in any of several images, each counted as much as it is read."""
    return jnp.max(jnp.stack(sides) * read[:, None], 0)


def _steps(plan: LayerPlan, weights: jax.Array, side: int) -> jax.Array:
    """The linear map `[side, side]` of a stride, mixed with the weights of the strides."""
    maps = np.zeros((len(plan.strides or ()), side, side))
    for k, stride in enumerate(plan.strides or ()):
        taken = np.arange(0, side, stride)
        maps[k, np.arange(len(taken)), taken] = 1
    return jnp.tensordot(weights, jnp.asarray(maps, weights.dtype), 1)


def _strided(steps: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """Images after the linear maps of rows and columns."""
    rows, columns = (step.astype(x.dtype) for step in steps)
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision="highest")


def _pooled(plan: LayerPlan, image: Placed) -> Placed:
    """The maximum over 3x3 pixels in steps of two; what is not in use takes no part."""
    smaller = Placed(image.pixels, image.rows[::2], image.columns[::2])
    seen = jnp.where(image.area > 0, image.pixels, -jnp.inf)
    pixels = max_pool(seen, stride=2, lowering=plan.lowering)
    return smaller._replace(pixels=jnp.where(smaller.area > 0, pixels, 0))


def _normalised(plan: LayerPlan, norm: Params, image: Placed, eps: float) -> Placed:
    """Batch normalisation with the moments of the pixels in use."""
    counted = image.pixels[: plan.reference or None].astype(wide_dtype(image.pixels.dtype))
    area = image.area.astype(counted.dtype)
    total = jnp.sum(area) * len(counted)
    mean = jnp.sum(counted * area, (0, 1, 2)) / total
    variance = jnp.sum(jnp.square(counted - mean.reshape(1, 1, 1, -1)) * area, (0, 1, 2)) / total
    y = normalise(image.pixels, mean, variance, eps)
    scale, bias = (norm[name].astype(y.dtype).reshape(1, 1, 1, -1) for name in ("scale", "bias"))
    return image._replace(pixels=y * scale + bias)


def _classified(plan: LayerPlan, params: Params, outputs: jax.Array, images: Sequence[Placed]) -> jax.Array:
    """Logits: the mean over the largest image that no layer reads, padding included, then a dense layer."""
    gates = jnp.repeat(outputs, plan.convolutions)
    rows, columns = (_largest(gates, [image[axis] for image in images]) for axis in (1, 2))
    sums = jnp.stack([jnp.sum(image.pixels.astype(plan.wide), (1, 2)) for image in images], 1)
    pooled = sums * gates.reshape(1, -1, 1) / (jnp.sum(rows) * jnp.sum(columns))
    dense = params["classifier"]
    return pooled.reshape(len(pooled), -1) @ dense["kernel"] + dense["bias"][None]
