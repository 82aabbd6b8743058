"""One edge of the small NAS-Bench-201 network: the operation that an index names, on images `[C, H, W, B]`.

`switch` runs that operation alone and is for loops over architectures; under `vmap` it would run all five. `kernel`
runs one convolution for any of them, whose weights the index selects, and is for `vmap`.
"""

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.base import Op, Params
from jaxnas.ops import batch_last
from jaxnas.spaces.nasbench201.network import OPERATIONS

__all__ = ["Choice", "edge", "operations"]

Choice = Literal["switch", "kernel"]


def operations(blocks: Mapping[str, Op], reference: int = 0) -> dict[str, Op]:
    """The five operations on `[C, H, W, B]`.

    Args:
      blocks: the operations on `[B, H, W, C]`, by name; those that are returned take their weights.
      reference: number of examples that give the statistics of normalisation, see `batch_last.standardised`.
    """
    return {name: op._replace(apply=_apply(name, reference)) for name, op in blocks.items()}


def _apply(name: str, reference: int):
    def apply(params, x, *, key=None):
        del key
        return _forward(name, reference, params, x)[0]

    return apply


def _forward(name: str, reference: int, params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output, and the image that the backward pass needs again, in the shape of `x`."""
    if name == "none":
        return jnp.zeros_like(x), x
    if name == "skip_connect":
        return x, x
    if name == "avg_pool_3x3":
        return batch_last.avg_pool(x), x
    # ReLU, convolution, normalisation, whose input is seen again.
    h = batch_last.conv(jax.nn.relu(x), params["kernel"])
    return batch_last.norm(h, **params["norm"], reference=reference), h


def _backward(name: str, reference: int, params: Params, x: jax.Array, seen: jax.Array, g: jax.Array):
    """Gradients of the operation's parameters and of `x`."""
    if name == "none":
        return params, jnp.zeros_like(g)
    if name == "skip_connect":
        return params, g
    if name == "avg_pool_3x3":
        return params, batch_last.avg_pool_pull(g)
    # Back through normalisation, convolution and ReLU, whose output is computed again.
    to_h, to_scale, to_bias = batch_last.norm_pull(seen, params["norm"]["scale"], g, reference)
    kernel = batch_last.conv_to_kernel(jax.nn.relu(x), to_h, params["kernel"].shape[0])
    to_x = jnp.where(x > 0, batch_last.conv_to_input(to_h, params["kernel"]), 0)
    return {"kernel": kernel, "norm": {"scale": to_scale, "bias": to_bias}}, to_x


def edge(choice: Choice, reference: int, index: jax.Array, params: dict[str, Params], x: jax.Array) -> jax.Array:
    """The operation number `index` on `x`.

    Args:
      choice: `"switch"` or `"kernel"`, the two forms that the module describes.
      reference: number of examples that give the statistics of normalisation, see `batch_last.standardised`.
      index: int32 scalar, the operation's place in `OPERATIONS`.
      params: weights of all operations by name.
      x: images `[C, H, W, B]`.
    """
    return (_switch if choice == "switch" else _kernel)(reference, index, params, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _switch(reference, index, params, x):
    return _switch_forward(reference, index, params, x)[0]


def _switch_forward(reference, index, params, x):
    branches = [lambda params, x, name=name: _forward(name, reference, params[name], x) for name in OPERATIONS]
    y, seen = lax.switch(index, branches, params, x)
    return y, (index, params, x, seen)


def _switch_backward(reference, residuals, g):
    # A branch has gradients for all weights, which are zero for operations that did not run.
    def branch(name):
        def pull(params, x, seen, g):
            to_weights, to_x = _backward(name, reference, params[name], x, seen, g)
            return {**jax.tree.map(jnp.zeros_like, params), name: to_weights}, to_x

        return pull

    index, *rest = residuals
    return None, *lax.switch(index, [branch(name) for name in OPERATIONS], *rest, g)


_switch.defvjp(_switch_forward, _switch_backward)


def _kernel(reference, index, params, x):
    """Nothing, identity, 1x1, 3x3 and pool are one 3x3 convolution; ReLU and normalisation are selected, too."""
    # Kernel: zeros, a one in the centre, the 1x1 weights in the centre, the 3x3 weights, ones.
    one, three = params["nor_conv_1x1"], params["nor_conv_3x3"]
    identity = jnp.eye(x.shape[0], dtype=x.dtype)
    centre = jnp.zeros((3, 3, 1, 1), x.dtype).at[1, 1].set(1)
    kernels = {
        "none": jnp.zeros_like(three["kernel"]),
        "skip_connect": centre * identity[None, None],
        "nor_conv_1x1": centre * one["kernel"],
        "nor_conv_3x3": three["kernel"],
        "avg_pool_3x3": jnp.broadcast_to(identity[None, None], three["kernel"].shape),
    }
    kernel = lax.select_n(index, *(kernels[name] for name in OPERATIONS))
    # ReLU before and normalisation after are for the convolutions; a pool divides by its valid pixels.
    convolves = (index == OPERATIONS.index("nor_conv_1x1")) | (index == OPERATIONS.index("nor_conv_3x3"))
    h = batch_last.conv(jnp.where(convolves, jax.nn.relu(x), x), kernel)
    learned = jax.tree.map(
        lambda small, large: jnp.where(index == OPERATIONS.index("nor_conv_1x1"), small, large),
        one["norm"],
        three["norm"],
    )
    divided = jnp.where(index == OPERATIONS.index("avg_pool_3x3"), h * batch_last.pool_shares(h), h)
    return jnp.where(convolves, batch_last.norm(h, **learned, reference=reference), divided)
