"""A cell: a directed acyclic graph whose every edge is a choice among the same operations.

Parameters of like edges are stacked and the cell scans over its edges, so that the program holds each operation once
however many edges there are. `scanned=False` writes every edge out instead, the plain form against which the scan is
tested.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Op, Params, Paths
from jaxnas.errors import UserError
from jaxnas.ops._drop_path import drop_path
from jaxnas.ops._mixture import mixture
from jaxnas.ops.blocks import Block
from jaxnas.ops.calls import recomputed
from jaxnas.ops.style import from_linen
from jaxnas.spaces.parts.choice import mixed_op

__all__ = [
    "CellGraph",
    "EdgeGroup",
    "apply_cell",
    "edge_params",
    "group_of",
    "home",
    "init_cell",
    "init_group",
    "used_cell",
    "used_group",
]

Mixture = Callable[[jax.Array, Sequence[Params], jax.Array], jax.Array]


class EdgeGroup(NamedTuple):
    """Edges with the same candidate operations.

    Attributes:
      ops: the candidates by name, in the order of the choice array's last axis. They take no key.
      edges: the rows of the cell's choice array that belong to the group.
      blocks: the Linen modules of the candidates, by the same names, where they have any.
    """

    ops: dict[str, Op]
    edges: tuple[int, ...]
    blocks: Mapping[str, Block] = MappingProxyType({})


class CellGraph(NamedTuple):
    """The graph of one cell.

    Attributes:
      edges: `(source, target)` per row of the choice array, sorted by target; nodes count on after the inputs.
      num_inputs: number of inputs, which are the first nodes.
      groups: the edges by name of their group, every edge in one. The sources of a group must be inputs, or complete
        after the groups before it.
      drop_path: probability of dropping the output of an edge, per example, when a key is given.
      scanned: whether to scan over edges; False writes every edge out.
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
    """The group whose candidates are the blocks of those names."""
    return EdgeGroup({name: from_linen(block) for name, block in blocks.items()}, edges, blocks)


def init_cell(key: jax.Array, graph: CellGraph, examples: dict[str, jax.Array]) -> Params:
    """Initialises every operation of every edge: `{group: {operation: leaves [E, ...]}}`.

    Args:
      key: a typed key.
      graph: the cell.
      examples: an input `[B, H, W, C]` of the operations of each group.
    """
    groups = enumerate(graph.groups.items())
    return {name: init_group(jax.random.fold_in(key, i), group, examples[name]) for i, (name, group) in groups}


def init_group(key: jax.Array, group: EdgeGroup, x: jax.Array) -> Params:
    """Initialises every operation of every edge of one group, for inputs like `x`: `{operation: leaves [E, ...]}`."""
    params = {}
    for k, (name, op) in enumerate(group.ops.items()):
        keys = jax.random.split(jax.random.fold_in(key, k), len(group.edges))
        params[name] = jax.vmap(op.init, in_axes=(0, None))(keys, x)
    return params


def edge_params(graph: CellGraph, params: Params, edge: int, operation: str) -> Params:
    """The parameters of one operation of one edge."""
    name, row = home(graph, edge)
    return jax.tree.map(lambda leaf: leaf[row], params[name][operation])


def apply_cell(
    graph: CellGraph, params: Params, paths: Paths, inputs: Sequence[jax.Array], key: jax.Array | None = None
) -> list[jax.Array]:
    """Runs the cell and returns its nodes after the inputs; a node is the sum of its incoming edges.

    Args:
      graph: the cell.
      params: weights that `init_cell` gave.
      paths: paths of this cell, leaves `[E, K]` or `[E, k]`.
      inputs: `num_inputs` arrays `[B, H, W, C]`.
      key: key that turns drop path on.
    """
    keys = None if key is None or not graph.drop_path else jax.random.split(key, len(graph.edges))  # one an edge
    if not graph.scanned:
        return _edge_by_edge(graph, params, paths, inputs, keys)
    return _scan(graph, params, paths, inputs, keys)


def used_cell(graph: CellGraph, params: Params, paths: Paths) -> Any:
    """Which weights took part: a tree like `params` of bools `[E, 1, ...]`."""
    return {name: used_group(group, params[name], paths) for name, group in graph.groups.items()}


def used_group(group: EdgeGroup, params: Params, paths: Paths) -> Any:
    """Which weights of one group took part; `paths` has the rows of the whole choice array."""
    ids, used = np.array(group.edges), {}
    for k, name in enumerate(group.ops):
        runs = paths.weight[ids] != 0  # an operation with weight zero has no gradient either
        runs = runs[:, k] if paths.index is None else jnp.any(runs & (paths.index[ids] == k), -1)
        used[name] = jax.tree.map(
            lambda leaf, runs=runs: runs.reshape(runs.shape + (1,) * (leaf.ndim - 1)), params[name]
        )
    return used


def home(graph: CellGraph, edge: int) -> tuple[str, int]:
    """The group that an edge belongs to, and its place there."""
    for name, group in graph.groups.items():
        if edge in group.edges:
            return name, group.edges.index(edge)
    raise UserError(f"edge must lie in 0..{len(graph.edges) - 1}, got {edge}")


def _edge_by_edge(graph, params, paths, inputs, keys):
    nodes = dict(enumerate(inputs))
    for edge, (source, target) in enumerate(graph.edges):
        # The plain form: every edge with its operations, added to its target.
        ops = graph.groups[home(graph, edge)[0]].ops
        weights = [edge_params(graph, params, edge, name) for name in ops]
        chosen = paths.select(lambda leaf, edge=edge: leaf[edge])
        y = mixed_op(tuple(ops.values()), weights, chosen, nodes[source])
        y = y if keys is None else drop_path(keys[edge], y, graph.drop_path)
        nodes[target] = nodes[target] + y if target in nodes else y
    return [nodes[node] for node in range(graph.num_inputs, graph.num_nodes)]


def _mixture(group: EdgeGroup) -> Mixture:
    """The weighted sum of all candidates, in a form that keeps little for the backward pass."""
    ops = tuple(group.ops.values())
    fast = mixture(tuple(group.blocks.values())) if group.blocks else None
    return fast or recomputed(lambda weight, params, x: mixed_op(ops, params, Paths(None, weight), x))


def _scan(graph, params, paths, inputs, keys):
    """Scans over edges; the carry holds the nodes, so an edge reads what the edges before it have summed."""
    # Nodes: the inputs, where they have the shape of what operations give, and zeros to be summed into.
    name, first = next(iter(graph.groups.items()))
    op_name, op = next(iter(first.ops.items()))
    out = jax.eval_shape(op.apply, jax.tree.map(lambda leaf: leaf[0], params[name][op_name]), inputs[0])
    given = jnp.stack(inputs)
    rest = jnp.zeros((graph.num_nodes - graph.num_inputs, *out.shape), out.dtype)
    same = given.shape[1:] == out.shape
    head = given.astype(out.dtype) if same else jnp.zeros((len(inputs), *out.shape), out.dtype)
    nodes = jnp.concatenate([head, rest])

    # Groups, one scan each: an edge adds its weighted operations to its target.
    for name, group in graph.groups.items():
        # An edge reads the inputs themselves where their shape differs from that of the nodes.
        ids = np.array(group.edges)
        ends = np.array([graph.edges[edge] for edge in group.edges], np.int32)
        outside = not same and bool((ends[:, 0] < graph.num_inputs).all())

        ops = tuple(group.ops.values())
        dense = _mixture(group) if paths.index is None and paths.probe is None else None

        def body(nodes, row, outside=outside, ops=ops, dense=dense):
            (source, target), weights, chosen, key = row
            x = jax.lax.dynamic_index_in_dim(given if outside else nodes, source, keepdims=False)
            y = dense(chosen.weight, weights, x) if dense else mixed_op(ops, weights, chosen, x)
            y = y if key is None else drop_path(key, y, graph.drop_path)
            return nodes.at[target].add(y), None

        # Rows of the scan: ends, weights, paths and keys of the edges.
        weights = tuple(params[name][op_name] for op_name in group.ops)
        chosen = paths.select(lambda leaf, ids=ids: leaf[ids])
        rows = tuple(jnp.asarray(column) for column in ends.T), weights, chosen, None if keys is None else keys[ids]
        nodes, _ = jax.lax.scan(body, nodes, rows)
    return list(nodes[graph.num_inputs :])
