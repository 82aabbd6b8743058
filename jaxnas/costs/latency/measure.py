"""Measures the blocks of a space, or whole networks, on the device at hand."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, Part, SearchSpace
from jaxnas.costs.latency.table import LatencyTable, space_parts
from jaxnas.dtypes import compute_dtype
from jaxnas.errors import UserError

__all__ = ["measure_networks", "measure_space", "median_milliseconds", "milliseconds_in_turn"]

ROUNDS = 5
MOST_VALUES = 2**28  # the most numbers in a batch of images, a gibibyte in float32


def median_milliseconds(run: Callable[..., Any], *args: Any, repeats: int = 30, warm: int = 5) -> float:
    """Median wall time of a compiled program, each call waited for.

    Args:
      run: the compiled program.
      *args: the program's arguments, on the device already.
      repeats: the number of timed calls, at least 1.
      warm: the number of calls before those, which are not timed.

    Example:
      >>> median_milliseconds(jax.jit(jnp.sin), jnp.ones(8), repeats=3) > 0
      True
    """
    for _ in range(warm):
        jax.block_until_ready(run(*args))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def milliseconds_in_turn(
    programs: Sequence[Callable[[], Any]], *, rounds: int = ROUNDS, repeats: int = 30, warm: int = 5
) -> np.ndarray:
    """Times programs one after the other, in several rounds, so that a slow minute of the machine hits all alike.

    Args:
      programs: compiled programs without arguments.
      rounds: number of turns of each program, at least 1.
      repeats: the number of timed calls in a turn, at least 1.
      warm: the number of calls at the beginning of a turn that are not timed.

    Returns:
      The median milliseconds of every turn, `[rounds, len(programs)]`.

    Raises:
      UserError: a number below one.
    """
    _check_turns(rounds, repeats)
    return np.array(
        [[median_milliseconds(run, repeats=repeats, warm=warm) for run in programs] for _ in range(rounds)], np.float64
    ).reshape(rounds, len(programs))


def measure_space(
    space: SearchSpace,
    image_shape: tuple[int, int, int],
    *,
    batch_size: int = 1,
    rounds: int = ROUNDS,
    repeats: int = 30,
    dtype: str = "float32",
    on_compiled: Callable[[int, int, Part], None] | None = None,
) -> LatencyTable:
    """Compiles and times every distinct block of a space by itself.

    A block is run as in a deployed network, its normalisation with running averages. The time of a call that does
    nothing is taken off, as blocks inside of a network are not called one by one.

    Args:
      space: a space that names its blocks.
      image_shape: the shape of one image, `(H, W, C)`.
      batch_size: the number of images in a call, at least 1.
      rounds: number of turns of each block; the median over the medians of the turns counts.
      repeats: the number of timed calls in a turn, at least 1.
      dtype: the type of the images and of the computation, a name that `jaxnas.dtypes.compute_dtype` takes.
      on_compiled: `(number, of how many, part)`, called after each compilation.

    Raises:
      UserError: a space that does not name its blocks, a number below one, another `dtype`, a batch of more than a
        gibibyte.
    """
    compute = compute_dtype(dtype)
    _check_sizes(image_shape, batch_size, rounds, repeats)
    # Blocks of equal key are one block.
    fixed, choices = space_parts(space, image_shape)
    rows = itertools.chain.from_iterable(choices.values())
    parts = {part.key: part for part in (*fixed, *itertools.chain.from_iterable(rows)) if part is not None}
    # All programs are compiled before the first one is timed.
    programs = []
    for number, part in enumerate(parts.values(), start=1):
        programs += _pair(part, batch_size, compute)
        if on_compiled is not None:
            on_compiled(number, len(parts), part)
    times = milliseconds_in_turn(programs, rounds=rounds, repeats=repeats)
    # Programs stand in pairs: a block, and the call of nothing whose time is taken off.
    block_times = np.median(times[:, ::2] - times[:, 1::2], axis=0)
    device = jax.devices()[0]
    about = {
        "space": space.about.name,
        "image_shape": list(image_shape),
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "batch": batch_size,
        "dtype": dtype,
        "rounds": rounds,
        "repeats": repeats,
        "statistic": "median of the rounds' medians",
    }
    return LatencyTable({key: max(float(value), 1e-6) for key, value in zip(parts, block_times, strict=True)}, about)


def measure_networks(
    space: SearchSpace,
    archs: Iterable[Arch],
    image_shape: tuple[int, int, int],
    *,
    batch_size: int = 1,
    rounds: int = ROUNDS,
    repeats: int = 30,
) -> np.ndarray:
    """Milliseconds of the stand-alone networks of architectures, each compiled and called as one program.

    Args:
      space: a space that has stand-alone networks.
      archs: the architectures to measure.
      image_shape: the shape of one image, `(H, W, C)`.
      batch_size: the number of images in a call, at least 1.
      rounds: number of turns of each network, at least 1; see `milliseconds_in_turn`.
      repeats: the number of timed calls in a turn, at least 1.

    Returns:
      The medians of the turns, `[rounds, number of architectures]`; `np.median(..., axis=0)` is one for each.

    Raises:
      UserError: a number below one, a batch of more than a gibibyte.
    """
    _check_sizes(image_shape, batch_size, rounds, repeats)
    programs = [_network(space, arch, image_shape, batch_size) for arch in archs]
    return milliseconds_in_turn(programs, rounds=rounds, repeats=repeats)


def _check_sizes(image_shape: Sequence[int], batch_size: int, rounds: int, repeats: int) -> None:
    """Raises `UserError` for numbers that cannot be measured, before anything is compiled."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise UserError(f"image_shape must be H, W, C of at least 1 each, got {tuple(image_shape)}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size * math.prod(image_shape) > MOST_VALUES:
        raise UserError(f"{batch_size} images of {tuple(image_shape)} are more than {MOST_VALUES} values")
    _check_turns(rounds, repeats)


def _check_turns(rounds: int, repeats: int) -> None:
    if rounds < 1 or repeats < 1:
        raise UserError(f"rounds and repeats must be at least 1, got {rounds} and {repeats}")


def _network(space: SearchSpace, arch: Arch, image_shape: tuple[int, int, int], batch_size: int) -> Callable[[], Any]:
    network = space.about.network(arch)  # type: ignore[misc]
    x = jnp.zeros((batch_size, *image_shape), jnp.float32)
    example = jax.ShapeDtypeStruct((max(batch_size, 4), *image_shape), jnp.float32)
    variables = _ones(jax.eval_shape(network.init, jax.random.key(0), example))
    return _compiled(lambda variables, x: network.apply(variables, x)[0], variables, x)


def _pair(part: Part, batch_size: int, dtype: Any) -> list[Callable[[], Any]]:
    """The program of a block and one that does nothing to the same input."""
    x = jnp.zeros((batch_size, *part.input_shape), dtype)
    example = jax.ShapeDtypeStruct((max(batch_size, 4), *part.input_shape), dtype)
    variables = _ones(jax.eval_shape(part.module.init, jax.random.key(0), example))
    return [_compiled(part.module.apply, variables, x), _compiled(lambda x: x[:1, :1, :1, :1], x)]


def _compiled(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    program = jax.jit(function).lower(*args).compile()
    return lambda: program(*args)


def _ones(shapes: Any) -> Any:
    """Weights whose values do not matter; ones, so that nothing is a denormal number."""
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
