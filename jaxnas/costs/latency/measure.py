"""Measures the blocks of a space, or whole networks, on the device at hand."""

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
MOST_VALUES = 2**28  # of a batch of images, a gibibyte in float32


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


def milliseconds_in_turn(
    programs: Sequence[Callable[[], Any]], *, rounds: int = ROUNDS, repeats: int = 30, warm: int = 5
) -> np.ndarray:
    """Times programs one after the other, in several rounds, so that a slow minute of the machine hits all alike.

    Args:
      programs: compiled, with their arguments.
      rounds: how often each has its turn.
      repeats: timed calls in a turn.
      warm: calls before those.

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
      image_shape: `(H, W, C)` of the images.
      batch_size: images at a time.
      rounds: turns of each block; the median of their medians counts.
      repeats: timed calls in a turn.
      dtype: of the images and of the computation, see `jaxnas.dtypes.compute_dtype`.
      on_compiled: `(number, of how many, part)` after each compilation.

    Raises:
      UserError: a space that does not name its blocks, a number below one, another `dtype`, a batch of more than a
        gibibyte.
    """
    compute = compute_dtype(dtype)
    _check_sizes(image_shape, batch_size, rounds, repeats)
    parts = {part.key: part for part in _every(*space_parts(space, image_shape))}
    programs = []
    for number, part in enumerate(parts.values(), start=1):
        programs += _pair(part, batch_size, compute)
        if on_compiled is not None:
            on_compiled(number, len(parts), part)
    times = milliseconds_in_turn(programs, rounds=rounds, repeats=repeats)
    own = np.median(times[:, ::2] - times[:, 1::2], axis=0)
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
    return LatencyTable({key: max(float(value), 1e-6) for key, value in zip(parts, own, strict=True)}, about)


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
      space: with stand-alone networks.
      archs: the architectures.
      image_shape: `(H, W, C)` of the images.
      batch_size: images at a time.
      rounds: turns of each network, see `milliseconds_in_turn`.
      repeats: timed calls in a turn.

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


def _every(fixed: Iterable[Part], choices: Any) -> Iterable[Part]:
    yield from fixed
    for rows in choices.values():
        for row in rows:
            yield from (part for part in row if part is not None)
