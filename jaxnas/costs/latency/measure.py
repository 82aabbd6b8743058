"""Measures the blocks of a space, or a whole network, on the device at hand."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, Part, SearchSpace
from jaxnas.costs.latency.table import LatencyTable, space_parts

__all__ = ["measure_network", "measure_space", "median_milliseconds"]


def median_milliseconds(run: Callable[..., Any], *args: Any, repeats: int = 30, warm: int = 5) -> float:
    """Median wall time of a compiled program, each call waited for.

    Args:
      run: the program.
      *args: of the program, on the device already.
      repeats: timed calls.
      warm: calls before that.
    """
    for _ in range(warm):
        jax.block_until_ready(run(*args))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def measure_space(
    space: SearchSpace,
    image_shape: tuple[int, int, int],
    *,
    batch_size: int = 1,
    repeats: int = 30,
    dtype: str = "float32",
    on_part: Callable[[int, int, Part, float], None] | None = None,
) -> LatencyTable:
    """Compiles and times every distinct block of a space by itself.

    A block is run as in a deployed network, its normalisation with running averages. The time of a call that does
    nothing is taken off, as blocks inside of a network are not called one by one.

    Args:
      space: a space that names its blocks.
      image_shape: `(H, W, C)` of the images.
      batch_size: images at a time.
      repeats: timed calls of each block; the median counts.
      dtype: of the images and of the computation.
      on_part: `(number, of how many, part, milliseconds)` after every block.

    Raises:
      ValueError: a space that does not name its blocks, a batch below one.
    """
    if batch_size < 1 or repeats < 1:
        raise ValueError(f"batch_size and repeats must be at least 1, got {batch_size} and {repeats}")
    parts = {part.key: part for part in _every(*space_parts(space, image_shape))}
    entries = {}
    for number, (key, part) in enumerate(parts.items(), start=1):
        entries[key] = _measured(part, batch_size, repeats, jnp.dtype(dtype))
        if on_part is not None:
            on_part(number, len(parts), part, entries[key])
    device = jax.devices()[0]
    about = {
        "space": space.about.name,
        "image_shape": list(image_shape),
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "batch": batch_size,
        "dtype": dtype,
        "repeats": repeats,
        "statistic": "median",
    }
    return LatencyTable(entries, about)


def measure_network(
    space: SearchSpace, arch: Arch, image_shape: tuple[int, int, int], *, batch_size: int = 1, repeats: int = 30
) -> float:
    """Milliseconds of the whole stand-alone network of an architecture, compiled and called as one program."""
    network = space.about.network(arch)  # type: ignore[misc]
    x = jnp.zeros((batch_size, *image_shape), jnp.float32)
    variables = _ones(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((max(batch_size, 4), *image_shape))))
    program = jax.jit(lambda variables, x: network.apply(variables, x)[0]).lower(variables, x).compile()
    return median_milliseconds(program, variables, x, repeats=repeats)


def _measured(part: Part, batch_size: int, repeats: int, dtype: Any) -> float:
    shape = (batch_size, *part.input_shape)
    x = jnp.zeros(shape, dtype)
    example = jax.ShapeDtypeStruct((max(batch_size, 4), *part.input_shape), dtype)
    variables = _ones(jax.eval_shape(part.module.init, jax.random.key(0), example))
    program = jax.jit(part.module.apply).lower(variables, x).compile()
    nothing = jax.jit(lambda x: x[:1, :1, :1, :1]).lower(x).compile()
    floor = median_milliseconds(nothing, x, repeats=repeats)
    return max(median_milliseconds(program, variables, x, repeats=repeats) - floor, 1e-6)


def _ones(shapes: Any) -> Any:
    """Weights whose values do not matter; ones, so that nothing is a denormal number."""
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)


def _every(fixed: Iterable[Part], choices: Any) -> Iterable[Part]:
    yield from fixed
    for rows in choices.values():
        for row in rows:
            yield from (part for part in row if part is not None)
