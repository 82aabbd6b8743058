"""Trains a population chunk by chunk, through one compiled program, and keeps what is done."""

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxnas.architectures import arch_like
from jaxnas.base import Arch, Params, Tree
from jaxnas.checkpoint import Checkpoints
from jaxnas.errors import UserError
from jaxnas.population.member import Family, Member, PopulationData, Recipe, Trained, train_member
from jaxnas.population.strategies import Strategy, in_turn, lift_some, member_mesh, placed, resolve

__all__ = ["Population", "train_population"]

SAVE_SECONDS = 30.0  # between two checkpoints


class Population(NamedTuple):
    """What became of `P` members, as numpy arrays; `J` judgements.

    Attributes:
      score: by part of the data the mean of `Recipe.score`, by default the accuracy, `[P, J]`; NaN after a step that
        was not finite, and by default for logits that are not.
      loss: `[P, J]`, mean training loss in nats since the judgement before, NaN after a step that was not finite.
      good: `[P]`, whether every loss, every gradient and all weights and moments were finite.
      seconds: `[P]`, wall time of the call that trained the member, divided by its members; compilation left out.
      params: weights, leaves `[P, ...]`; None unless they were asked for.
    """

    score: dict[str, Any]
    loss: np.ndarray
    good: np.ndarray
    seconds: np.ndarray
    params: Params | None


class _Entry(NamedTuple):
    """What a program needs to know of a member; `name` and `seed` make its key."""

    name: Any
    seed: Any
    arch: Arch
    rates: Tree


def train_population(
    key: jax.Array,
    family: Family,
    archs: Arch,
    data: PopulationData,
    recipe: Recipe,
    *,
    choices: Tree | None = None,
    rates: Tree = None,
    seeds: np.ndarray | None = None,
    strategy: Strategy = "auto",
    chunk: int | None = None,
    mesh: Mesh | None = None,
    keep_params: bool = False,
    directory: str | Path | None = None,
    on_chunk: Callable[[int, float], None] | None = None,
    seconds: float = 5.0,
    compiler_options: dict[str, Any] | None = None,
) -> Population:
    """Trains every architecture from its own first weights, each with its own key and, if wanted, learning rate.

    A member's key is made from `key`, its architecture and its seed. So its result is one and the same in whatever
    slot, chunk or process it is trained: bit for bit within one strategy and chunk size, to rounding across strategies.

    Args:
      key: of the population.
      family: the networks, for example `family_of(space)`.
      archs: leaves `[P, E]`.
      data: what to learn from and be judged on.
      recipe: how.
      choices: `SearchSpace.choices`, to refuse architectures outside of the space before anything starts.
      rates: what `recipe.tx` makes the members' optimisers of: any pytree whose leaves have a leading axis `P`, such as
        `[P]` learning rates, or a dictionary of several settings. Not given where `recipe.tx` is a transformation.
      seeds: `[P]` whole numbers from 0, to train one architecture several times; 0 if not given.
      strategy: see `jaxnas.population.resolve`.
      chunk: the most members in one call of the program, a multiple of the number of devices; by default 32 for each
        of them. Where members of a device are trained one after the other, a call has as many as fit into `seconds`.
        Where they run side by side, or several processes have to agree, every call has `chunk` members, the last one
        being filled up with copies.
      mesh: for `"shard"`, of one axis; all devices of all processes if not given.
      keep_params: return the weights of all members. They are part of every checkpoint then.
      directory: where to save; the same call with the same directory goes on from there, on as many devices and
        processes as there are then.
      on_chunk: `(members done, seconds of the call)` after every call. If it raises, what is done is saved.
      seconds: aimed time of one call.
      compiler_options: for `jax.jit`.

    Raises:
      UserError: an architecture outside of the space, lengths that do not fit, a chunk that cannot be split over the
        devices, more memory than a device has; a directory with another population.
    """
    entries = _entries(archs, rates, seeds, choices)
    if (rates is None) != isinstance(recipe.tx, optax.GradientTransformation):
        raise UserError("rates are for a recipe.tx that is a function of them, and such a recipe.tx needs rates")
    strategy = resolve(strategy, mesh)
    mesh = (mesh or member_mesh()) if strategy == "shard" else None
    size, devices = len(entries.name), 1 if mesh is None else mesh.size
    chunk = min(32 * devices, -(-size // devices) * devices) if chunk is None else chunk
    if chunk < 1 or chunk % devices:
        raise UserError(f"chunk must be a multiple of {devices}, the number of devices, got {chunk}")
    train = train_member(family, recipe)

    def one(entry: _Entry, shared: tuple[jax.Array, PopulationData]) -> Trained:
        own = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(shared[0]), entry.name), entry.seed)
        trained = train(Member(own, entry.arch, entry.rates), shared[1])
        return trained if keep_params else trained._replace(params=None)

    shared = placed((jax.random.key_data(key), data), mesh, split=False)
    program = jax.jit(lift_some(one, strategy, mesh), compiler_options=compiler_options)
    like = jax.eval_shape(program, _rows(entries, np.arange(chunk)), shared, 0)

    def compiled() -> Callable[[np.ndarray, int], Trained]:
        run = program.lower(placed(_rows(entries, np.arange(chunk)), mesh, split=True), shared, 0).compile()
        _check_memory(run, chunk, devices)
        return lambda members, count: _fetched(
            run(placed(_rows(entries, members), mesh, split=True), shared, count), mesh
        )

    found = jax.tree.map(lambda leaf: np.zeros((size, *leaf.shape[1:]), leaf.dtype), like)
    state = {"found": found._asdict(), "seconds": np.zeros(size)}
    meta = {"population": _fingerprint(key, entries, data, recipe)}
    by_time = in_turn(strategy) and jax.process_count() == 1
    with Checkpoints(directory) if directory is not None else contextlib.nullcontext() as checkpoints:
        saved = None if checkpoints is None else checkpoints.restore(state, check_meta=meta)
        first, state = (0, state) if saved is None else (saved[0], jax.tree.map(np.array, saved[1]))
        if checkpoints is not None and first < size:
            checkpoints.own()
        calls = _each_call(compiled, state, first, chunk, devices, seconds if by_time else None)
        every = SAVE_SECONDS if by_time else 0.0

        def save(done: int) -> None:
            if checkpoints is not None:
                checkpoints.save(done, state, meta)

        _saved(calls, size, save, every, on_chunk)
    return Population(seconds=state["seconds"], **state["found"])


def _saved(calls: Iterator[tuple[int, float]], size: int, save: Callable[[int], None], every: float, on_chunk) -> None:
    """Goes through the calls; saves every so many seconds, after the last call, and when `on_chunk` raises."""
    last = time.monotonic()
    for done, passed in calls:
        due = done == size or time.monotonic() - last >= every
        if due:
            save(done)
            last = time.monotonic()
        try:
            if on_chunk is not None:
                on_chunk(done, passed)
        except BaseException:
            if not due:
                save(done)
            raise


def _each_call(
    compiled, state: dict[str, Any], done: int, chunk: int, devices: int, aim: float | None
) -> Iterator[tuple[int, float]]:
    """Writes the results of call after call into `state`; yields how many members are done and the call's seconds."""
    size, most = len(state["seconds"]), chunk // devices
    run = compiled() if done < size else None
    each = most if aim is None else 1  # members on each device
    while run is not None and done < size:
        each = min(each, -(-(size - done) // devices))
        count = min(each * devices, size - done)
        # Device d trains the members done + d * each onwards; their rows stand at d * most.
        places = (np.arange(devices)[:, None] * most + np.arange(each)).ravel()[:count]
        members = np.full(chunk, done)
        members[places] = np.arange(done, done + count)
        started = time.monotonic()
        result = run(members, each)
        passed = time.monotonic() - started
        for into, leaf in zip(jax.tree.leaves(state["found"]), jax.tree.leaves(result._asdict()), strict=True):
            into[done : done + count] = leaf[places]
        state["seconds"][done : done + count] = passed / count
        done += count
        if aim is not None:
            each = max(1, min(int(each * aim / max(passed, 1e-6)), 4 * each, most))
        yield done, passed


def _entries(archs: Arch, rates, seeds, choices) -> _Entry:
    size = len(jax.tree.leaves(archs)[0])
    if not size:
        raise UserError("archs: there is no architecture to train")
    if choices is not None:
        for i in range(size):
            arch_like(choices, jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], archs))
    archs = jax.tree.map(lambda leaf: np.asarray(leaf, np.int32), archs)
    rates = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), rates)
    for leaf in jax.tree.leaves(rates):
        if leaf.shape[:1] != (size,):
            raise UserError(f"rates must have leaves with a leading axis of {size}, got shape {leaf.shape}")
    seeds = np.zeros(size, np.uint32) if seeds is None else np.asarray(seeds, np.uint32)
    if seeds.shape != (size,):
        raise UserError(f"seeds must have shape ({size},), got {seeds.shape}")
    leaves = jax.tree.leaves(archs)
    names = [zlib.crc32(b"".join(leaf[i].tobytes() for leaf in leaves)) for i in range(size)]
    return _Entry(np.array(names, np.uint32), seeds, archs, rates)


def _rows(entries: _Entry, members: np.ndarray) -> _Entry:
    """The entries of some members; a number beyond the last one stands for the first."""
    return jax.tree.map(lambda leaf: leaf[np.where(members < len(entries.name), members, 0)], entries)


def _fingerprint(key: jax.Array, entries: _Entry, data: PopulationData, recipe: Recipe) -> list[int]:
    """Tells one population from another, as far as arrays and numbers do."""
    crc = zlib.crc32(str(jax.tree.structure(entries)).encode())
    for leaf in jax.tree.leaves((jax.random.key_data(key), entries, data)):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return [crc, recipe.steps, recipe.batch_size, *recipe.moments]


def _fetched(tree: Tree, mesh: Mesh | None) -> Tree:
    """All results on this host; without a mesh every process has trained all members itself."""
    if mesh is not None and jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def _check_memory(compiled: Any, chunk: int, devices: int) -> None:
    """Refuses a chunk that needs more than a device has, and says which would fit."""
    sizes = compiled.memory_analysis()
    available = _available()
    if sizes is None or available is None:
        return
    needed = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    if needed > available:
        fitting = int(chunk / devices * available / needed) * devices
        advice = f"chunk={fitting} would fit" if fitting else "not even one member fits"
        raise UserError(
            f"chunk={chunk}: needs {needed / 2**30:.2f} GiB on each device, which has {available / 2**30:.2f}; {advice}"
        )


def _available() -> int | None:
    """Bytes that a device of this process has left, None where it does not say."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    return None
