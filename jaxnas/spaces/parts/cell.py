"""A cell: a directed acyclic graph whose every edge is a choice among the same operations.

Parameters of like edges are stacked and the cell scans over its edges, so that the program holds each operation once
however many edges there are. `scanned=False` writes every edge out instead, the plain form against which the scan is
tested.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Op, Params, Paths
from jaxnas.errors import UserError
from jaxnas.ops._drop_path import drop_path
from jaxnas.ops._mixture import mixture
from jaxnas.ops.blocks import Block, from_linen
from jaxnas.ops.calls import recomputed
from jaxnas.spaces.parts.choice import mixed_op

__all__ = ["CellGraph", "EdgeGroup", "apply_cell", "edge_params", "group_of", "init_cell", "output_like", "used_cell"]

Mixture = Callable[[jax.Array, Sequence[Params], jax.Array], jax.Array]


class EdgeGroup(NamedTuple):
    """Edges with the same candidate operations.

    Attributes:
      ops: the candidates by name, in the order of the choice array's last axis. They take no key.
      edges: which rows of the cell's choice array belong to the group.
      mixture: `(weight[K], params, x) -> y`, the weighted sum of all candidates in a form that keeps little for the
        backward pass; None for the sum itself.
    """

    ops: dict[str, Op]
    edges: tuple[int, ...]
    mixture: Mixture | None = None


class CellGraph(NamedTuple):
    """The graph of one cell.

    Attributes:
      edges: `(source, target)` per row of the choice array, sorted by target; nodes count on after the inputs.
      num_inputs: how many nodes are inputs.
      groups: every edge once. A group's sources must be inputs or complete after the groups before it.
      drop_path: probability of dropping the output of an edge, per example, when a key is given.
      scanned: whether to scan over edges; see above.
    """

    edges: tuple[tuple[int, int], ...]
    num_inputs: int
    groups: dict[str, EdgeGroup]
    drop_path: float = 0.0
    scanned: bool = True

    @property
    def num_nodes(self) -> int:
        """Nodes of the cell, inputs included."""
        return 1 + max(target for _, target in self.edges)


def group_of(blocks: Mapping[str, Block], edges: tuple[int, ...]) -> EdgeGroup:
    """The group whose candidates are the blocks of those names, with the faster form of their mixture."""
    return EdgeGroup(
        {name: from_linen(block) for name, block in blocks.items()}, edges, mixture(tuple(blocks.values()))
    )


def init_cell(key: jax.Array, graph: CellGraph, examples: dict[str, jax.Array]) -> Params:
    """Initialises every operation of every edge: `{group: {operation: leaves [E, ...]}}`.

    Args:
      key: a typed key.
      graph: the cell.
      examples: for each group an input of its operations.
    """
    params: dict[str, Any] = {}
    for number, (name, group) in enumerate(graph.groups.items()):
        key_group = jax.random.fold_in(key, number)
        params[name] = {}
        for k, (op_name, op) in enumerate(group.ops.items()):
            keys = jax.random.split(jax.random.fold_in(key_group, k), len(group.edges))
            params[name][op_name] = jax.vmap(op.init, in_axes=(0, None))(keys, examples[name])
    return params


def output_like(op: Op, params: Params, x: jax.Array) -> jax.Array:
    """Zeros of the shape and dtype that an operation gives for `x`, as an example for what comes after it."""
    shape = jax.eval_shape(op.apply, params, x)
    return jnp.zeros(shape.shape, shape.dtype)


def edge_params(graph: CellGraph, params: Params, edge: int, operation: str) -> Params:
    """The parameters of one operation of one edge."""
    name, row = _home(graph, edge)
    return jax.tree.map(lambda leaf: leaf[row], params[name][operation])


def apply_cell(
    graph: CellGraph, params: Params, paths: Paths, inputs: Sequence[jax.Array], key: jax.Array | None = None
) -> list[jax.Array]:
    """Runs the cell and returns its nodes after the inputs; a node is the sum of its incoming edges.

    Args:
      graph: the cell.
      params: from `init_cell`.
      paths: of this cell, leaves `[E, K]` or `[E, k]`.
      inputs: `num_inputs` arrays `[B, H, W, C]`.
      key: turns drop path on.
    """
    keys = None if key is None or not graph.drop_path else jax.random.split(key, len(graph.edges))
    if not graph.scanned:
        return _edge_by_edge(graph, params, paths, inputs, keys)
    return _scan(graph, params, paths, inputs, keys)


def used_cell(graph: CellGraph, params: Params, paths: Paths) -> Any:
    """Which weights took part: a tree like `params` of bools `[E, 1, ...]`."""
    used: dict[str, Any] = {}
    for name, group in graph.groups.items():
        ids = np.array(group.edges)
        used[name] = {}
        for k, op_name in enumerate(group.ops):
            runs = paths.weight[ids] != 0
            runs = runs[:, k] if paths.index is None else jnp.any(runs & (paths.index[ids] == k), -1)
            used[name][op_name] = jax.tree.map(
                lambda leaf, runs=runs: runs.reshape(runs.shape + (1,) * (leaf.ndim - 1)), params[name][op_name]
            )
    return used


def _home(graph: CellGraph, edge: int) -> tuple[str, int]:
    for name, group in graph.groups.items():
        if edge in group.edges:
            return name, group.edges.index(edge)
    raise UserError(f"edge must lie in 0..{len(graph.edges) - 1}, got {edge}")


def _add(total: jax.Array | None, y: jax.Array) -> jax.Array:
    return y if total is None else total + y


def _edge_by_edge(graph, params, paths, inputs, keys):
    nodes = [*inputs, *[None] * (graph.num_nodes - graph.num_inputs)]
    for edge, (source, target) in enumerate(graph.edges):
        name, row = _home(graph, edge)
        own = [jax.tree.map(lambda leaf, row=row: leaf[row], params[name][k]) for k in graph.groups[name].ops]
        chosen = paths.select(lambda leaf, edge=edge: leaf[edge])
        y = mixed_op(tuple(graph.groups[name].ops.values()), own, chosen, nodes[source])
        nodes[target] = _add(nodes[target], y if keys is None else drop_path(keys[edge], y, graph.drop_path))
    return nodes[graph.num_inputs :]


def _mixture(group: EdgeGroup) -> Mixture:
    ops = tuple(group.ops.values())
    return group.mixture or recomputed(lambda weight, params, x: mixed_op(ops, params, Paths(None, weight), x))


def _scan(graph, params, paths, inputs, keys):
    """Scans over edges; the carry holds the nodes, so an edge reads what the edges before it have summed."""
    name, first = next(iter(graph.groups.items()))
    op_name, op = next(iter(first.ops.items()))
    own = jax.tree.map(lambda leaf: leaf[0], params[name][op_name])
    out = jax.eval_shape(op.apply, own, inputs[0])
    given = jnp.stack(inputs)
    rest = jnp.zeros((graph.num_nodes - graph.num_inputs, *out.shape), out.dtype)
    same = given.shape[1:] == out.shape
    nodes = jnp.concatenate(
        [given.astype(out.dtype) if same else jnp.zeros((len(inputs), *out.shape), out.dtype), rest]
    )
    for name, group in graph.groups.items():
        ids = np.array(group.edges)
        ends = np.array([graph.edges[edge] for edge in group.edges], np.int32)
        outside = not same and bool((ends[:, 0] < graph.num_inputs).all())

        ops = tuple(group.ops.values())
        dense = _mixture(group) if paths.index is None and paths.probe is None else None

        def body(nodes, row, outside=outside, ops=ops, dense=dense):
            (source, target), own, chosen, key = row
            x = jax.lax.dynamic_index_in_dim(given if outside else nodes, source, keepdims=False)
            y = dense(chosen.weight, own, x) if dense else mixed_op(ops, own, chosen, x)
            y = y if key is None else drop_path(key, y, graph.drop_path)
            return nodes.at[target].add(y), None

        own = tuple(params[name][op_name] for op_name in group.ops)
        chosen = paths.select(lambda leaf, ids=ids: leaf[ids])
        rows = ((jnp.asarray(ends[:, 0]), jnp.asarray(ends[:, 1])), own, chosen, None if keys is None else keys[ids])
        nodes, _ = jax.lax.scan(body, nodes, rows)
    return list(nodes[graph.num_inputs :])
