"""The program that trains the members of one call: compiled once, with architectures and steps as arguments."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnas.base import Tree
from jaxnas.devices import free_memory, wait
from jaxnas.errors import UserError
from jaxnas.population.entries import Entry
from jaxnas.population.member import Family, Member, MemberState, PopulationData, Recipe, Trained, member_training
from jaxnas.strategies import Strategy, in_turn, lift_some, placed

__all__ = ["Program", "make_program"]


def make_program(
    key: jax.Array,
    family: Family,
    entries: Entry,
    data: PopulationData,
    recipe: Recipe,
    strategy: Strategy,
    mesh: Mesh | None,
    chunk: int,
    keep_params: bool,
) -> "Program":
    """Traces the program of a population; the arguments are those of `train_population`."""
    recipe = recipe._replace(judge_at=tuple(recipe.judge_at))  # a key of the cache
    jitted = _jitted(family, recipe, strategy, mesh, keep_params)
    shared = placed((jax.random.key_data(key), data), mesh, split=False)
    # Shapes of the states of members in work: one for each device in turn, or one for each member of a call.
    first = jax.tree.map(lambda leaf: leaf[0], entries)
    state = jax.eval_shape(_first_state(family, recipe), first, shared)
    rows = (1 if mesh is None else mesh.size) if in_turn(strategy) else chunk
    carry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), state)
    return Program(jitted, entries, shared, carry, mesh, chunk)


@functools.lru_cache(maxsize=8)
def _jitted(family: Family, recipe: Recipe, strategy: Strategy, mesh: Mesh | None, keep_params: bool) -> Any:
    """The function that `Program` compiles; populations of the same family and recipe share it and what is compiled."""
    training = member_training(family, recipe)

    def one(entry: Entry, state: MemberState, shared: Tree) -> tuple[MemberState, Trained]:
        (key_data, data), (begin, end) = shared
        member = _as_member(entry, key_data)
        # Step 0 draws first weights; a later one goes on where the call before stopped.
        state = jax.lax.cond(begin == 0, lambda: training.init(member, data), lambda: state)
        state = training.advance(member, state, data, begin, end)
        return state, state.trained if keep_params else state.trained._replace(params=None)

    return jax.jit(lift_some(one, strategy, mesh), donate_argnums=1)


@functools.lru_cache(maxsize=8)
def _first_state(family: Family, recipe: Recipe) -> Callable[[Entry, Tree], MemberState]:
    """`(entry, (key, data)) -> state` before the first step; one function, so that JAX traces it once for all calls."""
    training = member_training(family, recipe)
    return lambda entry, shared: training.init(_as_member(entry, shared[0]), shared[1])


def _as_member(entry: Entry, key_data: jax.Array) -> Member:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(key_data), entry.name), entry.seed)
    return Member(key, entry.arch, entry.rates)


class Program:
    """Trains some steps of some members.

    Args:
      jitted: `(entries[chunk], carry, (shared, (begin, end)), count) -> (carry, trained[chunk])`, from `_jitted`.
      entries: the entries of all members, on the host.
      shared: the key and the data, on the devices.
      carry: shapes of the states of members in work.
      mesh: the mesh over which members are spread, or None.
      chunk: number of members in one call.

    Attributes:
      rows: the largest number of members in work between two calls.
      found: shapes of the results of a call, leaves `[chunk, ...]`.
    """

    def __init__(self, jitted: Any, entries: Entry, shared: Tree, carry: Tree, mesh: Mesh | None, chunk: int):
        self._jitted = jitted
        self._entries, self._shared, self._carry, self._mesh, self._chunk = entries, shared, carry, mesh, chunk
        self._compiled: Any = None
        self.rows = jax.tree.leaves(carry)[0].shape[0]
        _, self.found = jax.eval_shape(self._jitted, *self._arguments(np.arange(chunk), carry, 0, 0, 0))

    def carry(self) -> Tree:
        """Room on the devices for the states of members in work."""
        spread = None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names[0]))
        zeros = lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._carry)  # noqa: E731
        return jax.jit(zeros, out_shardings=spread)()

    def compile(self, compile_fn: Callable[[Any], Any]) -> None:
        """Compiles the program.

        Raises:
          UserError: a chunk needs more memory than a device has.
        """
        arguments = self._arguments(np.arange(self._chunk), self._carry, 0, 0, 0)
        self._compiled = compile_fn(self._jitted.lower(*arguments))
        _check_memory(self._compiled, self._chunk, 1 if self._mesh is None else self._mesh.size)

    def run(self, members: np.ndarray, carry: Tree, each: int, begin: int, end: int) -> tuple[Tree, Trained]:
        """Does the steps `begin .. end - 1` of members.

        Args:
          members: numbers of the members, `[chunk]`; on each device `each` of them count where members run in turn.
          carry: states of the members in work; it is used up.
          each: number of members on each device.
          begin: steps that the members have done; 0 starts from first weights.
          end: steps that the members are to have done afterwards.

        Returns:
          The states of the members in work, and the results, both still on the devices.
        """
        carry, result = self._compiled(*self._arguments(members, carry, each, begin, end))
        wait(result.good)
        return carry, result

    def fetch(self, result: Trained) -> list[np.ndarray]:
        """Leaves of the results on this host; without a mesh every process has trained all members itself."""
        if self._mesh is not None and jax.process_count() > 1:
            result = multihost_utils.process_allgather(result, tiled=True)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(result)]

    def _arguments(self, members: np.ndarray, carry: Tree, each: int, begin: int, end: int) -> tuple[Any, ...]:
        """The arguments of the compiled function; a number beyond the last member stands for the first."""
        there = np.where(members < len(self._entries.name), members, 0)
        entries = placed(jax.tree.map(lambda leaf: leaf[there], self._entries), self._mesh, split=True)
        return entries, carry, (self._shared, (begin, end)), each


def _check_memory(compiled: Any, chunk: int, devices: int) -> None:
    """Raises `UserError` for a chunk that needs more memory than a device has, and says which chunk would fit."""
    sizes, available = compiled.memory_analysis(), free_memory()
    if sizes is None or available is None:
        return
    # All that the program holds at once; donated arguments share their memory with results.
    # The arguments, data and states, lie on the device already; the states are overwritten by those that come out.
    needed = sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    if needed > available:
        fitting = int(chunk / devices * available / needed) * devices
        advice = f"chunk={fitting} would fit" if fitting else "not even one member fits"
        raise UserError(
            f"chunk={chunk}: needs {needed / 2**30:.2f} GiB on each device, which has {available / 2**30:.2f}; {advice}"
        )
