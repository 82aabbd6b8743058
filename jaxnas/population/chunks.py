"""Trains a population call by call through one compiled program, and keeps what is done."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxnas.base import Arch, Params, Tree
from jaxnas.checkpoint import Checkpoints
from jaxnas.errors import UserError
from jaxnas.population.entries import fingerprint, make_entries
from jaxnas.population.member import Family, PopulationData, Recipe, Trained
from jaxnas.population.program import Program, make_program
from jaxnas.strategies import Strategy, in_turn, member_mesh, resolve

__all__ = ["Population", "train_population"]


class Population(NamedTuple):
    """What became of `P` members that were judged `J` times, as numpy arrays.

    Attributes:
      score: by part of the data the mean of `Recipe.score`, by default the accuracy, `[P, J]`; NaN after a step that
        was not finite, and by default for logits that are not.
      loss: mean training loss since the judgement before, `[P, J]`; NaN after a step that was not finite.
      good: whether every loss, every gradient and all weights and moments were finite, `[P]`.
      seconds: wall time of the calls that trained the member, divided by their members, `[P]`; compilation left out.
      params: weights, leaves `[P, ...]`; None unless they were asked for.
    """

    score: dict[str, Any]
    loss: np.ndarray
    good: np.ndarray
    seconds: np.ndarray
    params: Params | None


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
    save_seconds: float = 30.0,
    on_chunk: Callable[[float, float], None] | None = None,
    seconds: float = 5.0,
    compile_fn: Callable[[Any], Any] = lambda lowered: lowered.compile(),
) -> Population:
    """Trains every architecture from first weights, with a key and, if wanted, rates for each.

    A member's key is made from `key`, its architecture and its seed. So its result is one and the same in whatever
    slot, chunk or process it is trained: bit for bit within one strategy and chunk size, to rounding across strategies.

    Args:
      key: the key of the population.
      family: the networks, for example `family_of(space)`.
      archs: the architectures, leaves `[P, E]`.
      data: the examples to learn from and to be judged on.
      recipe: how every member is trained.
      choices: `SearchSpace.choices`, to refuse architectures outside of the space before anything starts.
      rates: what `recipe.tx` makes the members' optimisers of: any pytree whose leaves have a leading axis `P`, such as
        `[P]` learning rates, or a dictionary of several settings. Not given where `recipe.tx` is a transformation.
      seeds: whole numbers from 0, `[P]`, to train one architecture several times; all 0 if not given.
      strategy: how members of one call run; see `jaxnas.population.resolve`.
      chunk: the most members in one call of the program, a multiple of the number of devices; by default 32 for each
        of them. Where members of a device are trained one after the other, a call has as many as fit into `seconds`.
        Where they run side by side, or several processes have to agree, every call has `chunk` members, the last one
        being filled up with copies.
      mesh: a mesh of one axis for `"shard"`; all devices of all processes if not given.
      keep_params: whether the weights of all members are returned. They are part of every checkpoint then.
      directory: where checkpoints are kept. The same call with the same directory goes on from there, on as many
        devices and processes as there are then.
      save_seconds: time between two checkpoints; several processes save after every call.
      on_chunk: `(members done, seconds of the call)` after every call; members in training count by the share of their
        steps. If it raises, what is done is saved.
      seconds: aimed time of one call, in which a long training does a part of its steps. Several processes have to
        agree on their calls, so there a call does all steps.
      compile_fn: `(lowered) -> compiled`, for compiler options, a progress bar and the like.

    Raises:
      UserError: an architecture outside of the space, lengths that do not fit, rates without a `recipe.tx` for them,
        a chunk that cannot be split over the devices, more memory than a device has, or a directory with another
        population.

    Example:
      >>> import jax, numpy as np, optax
      >>> from jaxnas.population import Family, PopulationData, Recipe, train_population
      >>> line = Family(lambda key, arch, x: jax.numpy.zeros((2, 2)), lambda w, arch, x: x @ w)
      >>> examples = np.eye(2, dtype=np.float32), np.array([0, 1])
      >>> data = PopulationData(examples, {"train": examples})
      >>> archs = {"choice": np.array([[0], [1]])}
      >>> found = train_population(jax.random.key(0), line, archs, data, Recipe(optax.sgd(0.1), 20, 2))
      >>> found.score["train"].tolist()
      [[1.0], [1.0]]
    """
    entries = make_entries(archs, rates, seeds, choices)
    if (rates is None) != isinstance(recipe.tx, optax.GradientTransformation):
        raise UserError("rates are for a recipe.tx that is a function of them, and such a recipe.tx needs rates")
    strategy = resolve(strategy, mesh)
    mesh = (mesh or member_mesh()) if strategy == "shard" else None
    size, devices = len(entries.name), 1 if mesh is None else mesh.size
    chunk = min(32 * devices, -(-size // devices) * devices) if chunk is None else chunk
    if chunk < 1 or chunk % devices:
        raise UserError(f"chunk must be a multiple of {devices}, the number of devices, got {chunk}")
    # The program, and how the members are cut into its calls.
    program = make_program(key, family, entries, data, recipe, strategy, mesh, chunk, keep_params)
    cuts = _Cuts(size, devices, chunk // devices, recipe.steps, in_turn(strategy))
    meta = {"population": fingerprint(key, entries, data, recipe)}
    alone = jax.process_count() == 1
    # Goes on from a checkpoint, and compiles only where something is left to do.
    with Checkpoints(directory) if directory is not None else contextlib.nullcontext() as checkpoints:
        work = _restored(checkpoints, program, cuts, meta)

        def save() -> None:
            if checkpoints is not None:
                more = {"in_work": program.rows if work.begin else 0}
                checkpoints.save(work.done * recipe.steps + work.begin, work.state(), {**meta, **more})

        if work.done < size:
            if checkpoints is not None:
                checkpoints.acquire()
            program.compile(compile_fn)
            _train(program, cuts, work, seconds if alone else None, save, save_seconds if alone else 0.0, on_chunk)
    return Population(seconds=work.seconds, **work.found._asdict())


class _Cuts(NamedTuple):
    """How `size` members are cut into calls of at most `most` on each device, one after the other if `turns`."""

    size: int
    devices: int
    most: int
    steps: int
    turns: bool

    def next(self, done: int, begin: int, allowed: int) -> tuple[int, int]:
        """The next call: how many members on each device, and up to which step.

        Args:
          done: number of members that are finished.
          begin: steps that the members in work have done.
          allowed: number of steps that the call may do on each device, one after the other.
        """
        # Side by side all members of the call take every step together.
        if not self.turns:
            return self.most, min(begin + allowed, self.steps)
        # A long training is cut: one member on each device does a part of its steps.
        if begin or allowed < 2 * self.steps:
            return 1, min(begin + allowed, self.steps)
        # Short trainings: as many whole members as the allowed steps cover.
        left = -(-(self.size - done) // self.devices)
        return min(allowed // self.steps, self.most, left), self.steps


@dataclasses.dataclass
class _Work:
    """What is done of a population, written in place.

    Attributes:
      found: results of the members, zeros for those that are not done.
      seconds: `Population.seconds`.
      carry: states of the members in work, on the devices.
      done: number of members that are finished.
      begin: steps that the members in work have done.
      spent: seconds that the members in work have taken so far.
    """

    found: Trained
    seconds: np.ndarray
    carry: Tree
    done: int = 0
    begin: int = 0
    spent: float = 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; states of members only while they are in work."""
        carry = self.carry if self.begin else None
        return {"found": self.found, "seconds": self.seconds, "spent": np.array(self.spent), "carry": carry}


def _restored(checkpoints: Checkpoints | None, program: Program, cuts: _Cuts, meta: dict[str, Any]) -> _Work:
    """What the newest checkpoint holds, or the start.

    Members in work go on where they were on as many devices as before, and start anew on other ones.
    """
    found = jax.tree.map(lambda leaf: np.zeros((cuts.size, *leaf.shape[1:]), leaf.dtype), program.found)
    work = _Work(found, np.zeros(cuts.size), program.carry())

    def like(meta: dict[str, Any]) -> dict[str, Any]:
        rows = meta["in_work"]
        if rows == program.rows:
            return {**work.state(), "carry": work.carry}
        resized = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), work.carry)
        return {**work.state(), "carry": resized if rows else None}

    saved = None if checkpoints is None else checkpoints.restore(like, check_meta=meta)
    if saved is None:
        return work
    number, state, meta = saved
    work.done, begin = divmod(number, cuts.steps)
    work.found, work.seconds = jax.tree.map(np.array, (state["found"], state["seconds"]))
    if meta["in_work"] == program.rows:
        work.begin, work.spent, work.carry = begin, float(state["spent"]), state["carry"]
    return work


def _train(
    program: Program,
    cuts: _Cuts,
    work: _Work,
    aim: float | None,
    save: Callable[[], None],
    every: float,
    on_chunk: Callable[[float, float], None] | None,
) -> None:
    """Call after call until all is done; saves every so many seconds, at the end, and when `on_chunk` raises."""
    saved = time.monotonic()
    allowed, longest = (cuts.size * cuts.steps if aim is None else 1), 0
    while work.done < cuts.size:
        # The next call: members `done .. done + count - 1`, the steps `begin .. end - 1`.
        each, end = cuts.next(work.done, work.begin, allowed)
        count = min(each * cuts.devices, cuts.size - work.done)
        # Device d trains the members done + d * each onwards; their rows stand at d * most.
        places = (np.arange(cuts.devices)[:, None] * cuts.most + np.arange(each)).ravel()[:count]
        members = np.full(cuts.devices * cuts.most, work.done)
        members[places] = np.arange(work.done, work.done + count)
        started = time.monotonic()
        work.carry, result = program.run(members, work.carry, each, work.begin, end)
        passed = time.monotonic() - started
        steps = (each if cuts.turns else 1) * (end - work.begin)
        work.begin, work.spent = end, work.spent + passed

        # Members that have done all their steps give their results.
        if end == cuts.steps:
            for into, leaf in zip(jax.tree.leaves(work.found), program.fetch(result), strict=True):
                into[work.done : work.done + count] = leaf[places]
            work.seconds[work.done : work.done + count] = work.spent / count
            work.done, work.begin, work.spent = work.done + count, 0, 0.0
        if aim is not None:
            longest = max(longest, steps)
            allowed = max(1, min(int(steps * aim / max(passed, 1e-6)), 4 * longest))

        due = work.done == cuts.size or time.monotonic() - saved >= every
        if due:
            save()
            saved = time.monotonic()
        try:
            if on_chunk is not None:
                on_chunk(work.done + count * work.begin / cuts.steps, passed)
        except BaseException:
            if not due:
                save()
            raise
