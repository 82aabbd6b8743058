"""How the members of one chunk run: side by side, one after the other, or spread over a mesh of devices."""

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
      UserError: an unknown strategy; a mesh for one that has no use for it.
    """
    if strategy not in ("auto", "vmap", "map", "shard"):
        raise UserError(f"strategy must be 'auto', 'vmap', 'map' or 'shard', got {strategy!r}")
    if mesh is not None and strategy not in ("auto", "shard"):
        raise UserError(f"a mesh needs strategy 'shard' or 'auto', got {strategy!r}")
    if strategy != "auto":
        return strategy
    if mesh is not None or jax.device_count() > 1:
        return "shard"
    return _alone()


def _alone() -> Strategy:
    return "map" if jax.default_backend() == "cpu" else "vmap"


def member_mesh() -> Mesh:
    """All devices of all processes in a row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def lift(train: Callable[[Any, Any], Any], strategy: Strategy, mesh: Mesh | None) -> Callable[[Tree, Tree], Tree]:
    """`(members, data) -> results` from `(member, data) -> result`, leaves of members and results with an axis `P`.

    Args:
      train: of one member.
      strategy: from `resolve`.
      mesh: for `"shard"`, of one axis.
    """
    if strategy == "vmap":
        return jax.vmap(train, (0, None))
    if strategy == "map":
        return lambda members, data: jax.lax.map(lambda member: train(member, data), members)
    return _over(mesh, lift(train, _alone(), None), shared=1)


def in_turn(strategy: Strategy) -> bool:
    """Whether the members on one device are trained one after the other."""
    return strategy == "map" or (strategy == "shard" and _alone() == "map")


def lift_some(train: Callable[[Any, Any], Any], strategy: Strategy, mesh: Mesh | None):
    """`lift` with the number of members as an argument: `(members, data, count) -> results`.

    Of the `P` members on each device only the first `count` are trained, and what stands after them in the results is
    zero. So one program, and one rounding, does for every number of members. Where members run side by side all of
    them are trained whatever `count` is.

    Args:
      train: of one member.
      strategy: from `resolve`.
      mesh: for `"shard"`, of one axis.
    """
    if not in_turn(strategy):
        lifted = lift(train, strategy, mesh)
        return lambda members, data, count: lifted(members, data)
    if strategy == "map":
        return lambda members, data, count: _first(train, members, data, count)
    return _over(mesh, functools.partial(_first, train), shared=2)


def _over(mesh: Mesh | None, run: Callable[..., Tree], *, shared: int) -> Callable[..., Tree]:
    """`run` on every device of a mesh with its own part of the members, and with the `shared` arguments that follow."""
    assert mesh is not None
    own, all_of_it = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    return jax.shard_map(run, mesh=mesh, in_specs=(own, *[all_of_it] * shared), out_specs=own, check_vma=False)


def _first(train: Callable[[Any, Any], Any], members: Tree, data: Tree, count: jax.Array) -> Tree:
    """The results of the first `count` members, one after the other."""

    def member(place: Any) -> Tree:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, place, keepdims=False), members)

    def put(place: jax.Array, results: Tree) -> Tree:
        result = train(member(place), data)
        return jax.tree.map(lambda all_of, one: all_of.at[place].set(one), results, result)

    size = len(jax.tree.leaves(members)[0])
    like = jax.eval_shape(lambda: train(member(0), data))
    zeros = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), like)
    return jax.lax.fori_loop(0, count, put, zeros)


def placed(tree: Tree, mesh: Mesh | None, *, split: bool) -> Tree:
    """Host arrays on the devices: split along the first axis over a mesh, or a copy on each device of it."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]) if split else PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree)
