"""Initial weights, all of a network's in one draw.

XLA takes about half a second of processor time to compile each call of the random generator on CPU, and a supernet has
a hundred weights. So the initialiser below is written as `bound * noise` with the noise left open, and `one_draw` fills
it in for all weights at once.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["one_draw", "torch_uniform"]

_noise: contextvars.ContextVar[jax.Array | None] = contextvars.ContextVar("noise", default=None)


def torch_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """Initialiser uniform in `+-1 / sqrt(fan_in)`, PyTorch's default for convolutions and dense layers."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        noise = _noise.get()
        if noise is not None:
            return jnp.broadcast_to(bound * noise.astype(dtype), shape)
        # Drawn flat: on CPU XLA compiles a draw of several axes ten times as long.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


def one_draw(init: Callable[..., Any]) -> Callable[..., Any]:
    """The same `init(key, x) -> params`, with the noise of every `torch_uniform` in it from a single draw.

    The distribution is that of `init`, the numbers are others. Weights with other initialisers stay as they are.
    """

    @jax.jit
    def with_noise(noise, key, x):
        with _open_noise(noise):
            return init(key, x)

    def drawn(key, x):
        key_noise, key = jax.random.split(key)
        base, top = (with_noise(jnp.float32(value), key, x) for value in (0.0, 1.0))
        leaves, treedef = jax.tree.flatten(base)
        ends = [sum(leaf.size for leaf in leaves[: i + 1]) for i in range(len(leaves))]
        noise = jax.random.uniform(key_noise, (ends[-1] if ends else 0,), jnp.float32, -1.0, 1.0)
        filled = [
            low + (high - low) * noise[end - low.size : end].reshape(low.shape).astype(low.dtype)
            if jnp.issubdtype(low.dtype, jnp.floating)
            else low
            for low, high, end in zip(leaves, jax.tree.leaves(top), ends)
        ]
        return jax.tree.unflatten(treedef, filled)

    return drawn


@contextlib.contextmanager
def _open_noise(noise: jax.Array) -> Iterator[None]:
    token = _noise.set(noise)
    try:
        yield
    finally:
        _noise.reset(token)
