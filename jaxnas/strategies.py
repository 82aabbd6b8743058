"""How many members of a population or many architectures run: side by side, in turn, or spread over devices."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnas.base import Tree
from jaxnas.errors import UserError

__all__ = ["Strategy", "in_turn", "lift", "lift_some", "member_mesh", "placed", "resolve"]

Strategy = Literal["auto", "vmap", "map", "shard"]
AXIS = "members"


def resolve(strategy: Strategy, mesh: Mesh | None = None) -> Strategy:
    """What `"auto"` means here: `"shard"` with several devices, else `"map"` on a CPU and `"vmap"` elsewhere.

    On a CPU a loop over members beat `vmap` at every size that was tried (`benchmarks/results`).

    Raises:
      UserError: an unknown strategy, or a mesh for a strategy that has no use for it.
    """
    if strategy not in ("auto", "vmap", "map", "shard"):
        raise UserError(f"strategy must be 'auto', 'vmap', 'map' or 'shard', got {strategy!r}")
    if mesh is not None and strategy not in ("auto", "shard"):
        raise UserError(f"a mesh needs strategy 'shard' or 'auto', got {strategy!r}")
    if strategy != "auto":
        return strategy
    return "shard" if mesh is not None or jax.device_count() > 1 else _on_one_device()


def _on_one_device() -> Strategy:
    return "map" if jax.default_backend() == "cpu" else "vmap"


def in_turn(strategy: Strategy) -> bool:
    """Whether the members on one device run one after the other."""
    return "map" in (strategy, _on_one_device() if strategy == "shard" else None)


def member_mesh() -> Mesh:
    """All devices of all processes in a row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def lift(fn: Callable[[Any, Any], Any], strategy: Strategy, mesh: Mesh | None = None) -> Callable[[Tree, Tree], Tree]:
    """Turns `(member, data) -> result` into `(members, data) -> results`.

    Leaves of members and results have a leading axis `P`. The data are the same for all of them.

    Args:
      fn: a pure function of one member.
      strategy: how members run, as `resolve` returns it.
      mesh: a mesh of one axis over which `"shard"` spreads the members; `P` is a multiple of its size.
    """
    strategy = resolve(strategy, mesh)
    if strategy == "vmap":
        return jax.vmap(fn, (0, None))
    if strategy == "map":
        return lambda members, data: jax.lax.map(lambda member: fn(member, data), members)
    return _over(mesh, lift(fn, _on_one_device()), split=1, shared=1)


def lift_some(fn: Callable[[Any, Any, Any], tuple[Any, Any]], strategy: Strategy, mesh: Mesh | None = None):
    """Turns `(member, carry, data) -> (carry, result)` into `(members, carry, data, count) -> (carry, results)`.

    Where members run in turn, only the first `count` members on each device do, and zeros stand after them in the
    results: one program, and one rounding, serves every number of members. The carry goes from one to the next and has
    a leading axis of the number of devices. Where members run side by side, all of them run whatever `count` is, and
    each has a carry: its leading axis is `P`.

    Args:
      fn: a pure function of one member.
      strategy: how members run, as `resolve` returns it.
      mesh: a mesh of one axis over which `"shard"` spreads the members.
    """

    def side_by_side(members: Tree, carry: Tree, data: Tree, count: jax.Array) -> tuple[Tree, Tree]:
        del count
        return jax.vmap(fn, (0, 0, None))(members, carry, data)

    run = functools.partial(_first, fn) if in_turn(strategy) else side_by_side
    return run if mesh is None else _over(mesh, run, split=2, shared=2)


def _over(mesh: Mesh | None, run: Callable[..., Tree], *, split: int, shared: int) -> Callable[..., Tree]:
    """Runs on every device of a mesh with its part of the first `split` arguments and all of the `shared` rest."""
    mesh = member_mesh() if mesh is None else mesh
    part, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    specs = (*[part] * split, *[whole] * shared)
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=part, check_vma=False)


def _first(fn: Callable[..., Any], members: Tree, carry: Tree, data: Tree, count: jax.Array) -> tuple[Tree, Tree]:
    """Runs the first `count` members, one after the other."""

    def member(place: Any) -> Tree:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, place, keepdims=False), members)

    # One member after the other: its result goes to its place, its carry to the next.
    def put(place: jax.Array, both: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        carry, results = both
        carry, result = fn(member(place), carry, data)
        return carry, jax.tree.map(lambda rows, row: rows.at[place].set(row), results, result)

    # The carry without its axis of devices, and zeros where no member runs.
    size = len(jax.tree.leaves(members)[0])
    carry = jax.tree.map(lambda leaf: leaf[0], carry)
    _, like = jax.eval_shape(lambda: fn(member(0), carry, data))
    zeros = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), like)
    carry, results = jax.lax.fori_loop(0, count, put, (carry, zeros))
    return jax.tree.map(lambda leaf: leaf[None], carry), results


def placed(tree: Tree, mesh: Mesh | None, *, split: bool) -> Tree:
    """Host arrays on the devices: split along the first axis over a mesh, or a copy on each device of it."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]) if split else PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree)
