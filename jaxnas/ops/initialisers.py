"""Initial weights, all of a network's in one draw.

XLA takes about half a second of processor time to compile each call of the random generator on CPU, and a supernet has
a hundred weights. So the initialisers below are written as a factor of noise that is left open, and `one_draw` fills it
in for all weights at once.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["he_fan_out", "one_draw", "torch_uniform"]


class _Noise(NamedTuple):
    """What stands for a draw: from the uniform distribution in +-1, and from the standard normal one."""

    uniform: jax.Array
    normal: jax.Array


_noise: contextvars.ContextVar[_Noise | None] = contextvars.ContextVar("noise", default=None)


def torch_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """Initialiser uniform in `+-1 / sqrt(fan_in)`, PyTorch's default for convolutions and dense layers."""
    return _scaled(1.0 / math.sqrt(fan_in), "uniform")


def he_fan_out(fan_out: int) -> Callable[..., jax.Array]:
    """Normal initialiser of standard deviation `sqrt(2 / fan_out)` (He et al., 2015, arXiv 1502.01852).

    Args:
      fan_out: `h * w * features` for a convolution, and in the code of ProxylessNAS for a depthwise one, too.
    """
    return _scaled(math.sqrt(2.0 / fan_out), "normal")


def _scaled(factor: float, kind: str) -> Callable[..., jax.Array]:
    def init(key, shape, dtype=jnp.float32):
        noise = _noise.get()
        if noise is not None:
            return jnp.broadcast_to(factor * getattr(noise, kind).astype(dtype), shape)
        # Drawn flat: on CPU XLA compiles a draw of several axes ten times as long.
        flat = (math.prod(shape),)
        drawn = jax.random.normal(key, flat, dtype) if kind == "normal" else jax.random.uniform(key, flat, dtype, -1, 1)
        return factor * drawn.reshape(shape)

    return init


def one_draw(init: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `init(key, x) -> params` in which the noise of every initialiser of this module comes from one draw.

    The distribution is that of `init`, the numbers are others. Weights with other initialisers stay as they are.
    """

    @jax.jit
    def with_noise(noise, key, x):
        with _open_noise(_Noise(*noise)):
            return init(key, x)

    def drawn(key, x):
        key_noise, key = jax.random.split(key)
        # Each weight is linear in both noises: three calls give its offset and its two slopes.
        units = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
        base, *tops = (with_noise(tuple(map(jnp.float32, unit)), key, x) for unit in units)
        # One draw for all weights, of which each takes its part.
        leaves, treedef = jax.tree.flatten(base)
        ends = [sum(leaf.size for leaf in leaves[: i + 1]) for i in range(len(leaves))]
        uniform = jax.random.uniform(key_noise, (ends[-1] if ends else 0,), jnp.float32, -1.0, 1.0)
        # The uniform draw serves both kinds; the normal one is its quantile.
        filled = []
        for low, end, *high in zip(leaves, ends, *map(jax.tree.leaves, tops), strict=True):
            if jnp.issubdtype(low.dtype, jnp.floating):
                part = uniform[end - low.size : end].reshape(low.shape)
                noises = part, math.sqrt(2) * jax.lax.erf_inv(part)
                low = low + sum(((top - low) * noise).astype(low.dtype) for top, noise in zip(high, noises))
            filled.append(low)
        return jax.tree.unflatten(treedef, filled)

    return drawn


@contextlib.contextmanager
def _open_noise(noise: _Noise) -> Iterator[None]:
    token = _noise.set(noise)
    try:
        yield
    finally:
        _noise.reset(token)
