"""The weighted sum of an edge's candidate operations, evaluated together.

Most candidates end in a normalisation. All of them are normalised, weighted and summed in one pass over what they give,
and the gradient of that takes one sum per operation and channel, which serves the input and the weight.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.ops.blocks import Block, NormalisedBlock
from jaxnas.ops.calls import barrier, not_inlined, recomputed
from jaxnas.ops.lowering import by_hand
from jaxnas.ops.normalisation import merged, pull, row_mean, row_slope, row_statistics
from jaxnas.ops.style import Style, from_linen

__all__ = ["mix_normalised", "mixture"]


@functools.cache
def mixture(blocks: tuple[Block, ...]) -> Callable[..., jax.Array] | None:
    """`(weight[K], params, x) -> sum_k weight[k] * blocks[k](x)`, which keeps only its arguments for the backward pass.

    None where the blocks are better run one by one: where the backend does it well itself, and where a normalisation
    is not the plain one of a supernet: learned, with running averages, or with the statistics of a part of the batch.
    Equal blocks give the same function, so that the cells of a network which are alike are traced once.
    """
    style = blocks[0].style
    if not by_hand(style.lowering) or any(block.style != Style(lowering=style.lowering) for block in blocks):
        return None
    # Blocks that end in a normalisation run without it; it is done together.
    ends = [k for k, block in enumerate(blocks) if isinstance(block, NormalisedBlock) and block.normalised]
    ops = [from_linen(block.clone(normalised=False) if k in ends else block) for k, block in enumerate(blocks)]

    def apply(weight, params, x):
        # Operations that end in a normalisation are normalised, weighted and summed together, the others one by one.
        ys = [op.apply(weights, x) for op, weights in zip(ops, params, strict=True)]
        terms = [weight[k].astype(x.dtype) * y for k, y in enumerate(ys) if k not in ends]
        if ends:
            terms.append(mix_normalised(style.eps, weight[np.array(ends)], tuple(ys[k] for k in ends)))
        return functools.reduce(jnp.add, terms)

    return recomputed(apply)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mix_normalised(eps: float, weight: jax.Array, xs: tuple[jax.Array, ...]) -> jax.Array:
    """`sum_k weight[k] * (x_k - mean(x_k)) / sqrt(variance(x_k) + eps)` per channel.

    Args:
      eps: number above zero that is added to the variances.
      weight: factors `[K]` of the operations.
      xs: outputs of the operations, `K` arrays `[B, H, W, C]`.

    Returns:
      The sum `[B, H, W, C]`.
    """
    return _mix_forward(eps, weight, xs)[0]


def _mix_forward(eps, weight, xs):
    channels = xs[0].shape[-1]
    rows = tuple(map(merged, xs))
    means, variances = zip(*(row_statistics(channels, x) for x in rows), strict=True)
    scales = tuple(lax.rsqrt(variance + eps) for variance in variances)
    y = _weighted(weight, rows, means, scales).reshape(xs[0].shape)
    return y, barrier((weight, rows, means, scales))


@not_inlined
def _weighted(weight, xs, means, scales):
    wide = means[0].dtype
    terms = [(x.astype(wide) - m) * (s * w) for w, x, m, s in zip(weight, xs, means, scales, strict=True)]
    return functools.reduce(jnp.add, terms).astype(xs[0].dtype)


def _mix_backward(eps, residuals, g):
    weight, xs, means, scales = residuals
    shape, channels = g.shape, g.shape[-1]
    g = merged(g)
    offset = row_mean(channels, g)
    to_weight, to_xs = [], []
    # With n_k = (x_k - mean) s_k: dL/dw_k = <g, n_k> and dL/dx_k = w_k s_k (g - mean(g) - n_k mean(g n_k)).
    for w, x, mean, scale in zip(weight, xs, means, scales, strict=True):
        slope = row_slope(channels, x, mean, g)
        to_weight.append(jnp.sum((slope * scale)[0, 0, :channels]) * (g.size // channels))
        to_xs.append(pull(x, g, mean, w * scale, offset, slope * jnp.square(scale)).reshape(shape))
    return jnp.stack(to_weight).astype(weight.dtype), tuple(to_xs)


mix_normalised.defvjp(_mix_forward, _mix_backward)
