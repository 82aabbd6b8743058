"""Cells of choices as pieces of a network: a single cell, or equal cells in a row."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxnas.base import Params, Paths, Tree
from jaxnas.ops import Block, Cost, drop_path
from jaxnas.spaces.parts.graph import CellGraph, apply_cell, edge_params, home, init_cell, used_cell
from jaxnas.spaces.parts.pieces import Decisions, sizes_of

__all__ = ["Cell", "Stack"]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A graph of choices. It takes the list of its inputs and returns the list of its other nodes.

    Attributes:
      kind: the entry of `SearchSpace.choices` that holds the decisions.
      graph: nodes, edges and their candidates.
      number: place of the cell in the network, from 0; its edges have the names `cell{number}_edge{i}`.
      rows: the rows of the entry that belong to the edges; None for all of them, shared with cells of that kind.
      spared: classes of blocks that drop path leaves alone in a stand-alone network.
    """

    kind: str
    graph: CellGraph
    number: int = 0
    rows: slice | None = None
    spared: tuple[type[Block], ...] = ()

    @property
    def decisions(self) -> Decisions:
        """The decisions of the cell, one for each edge."""
        end = len(self.graph.edges) if self.rows is None else self.rows.stop
        return Decisions(self.kind, end, tuple(next(iter(self.graph.groups.values())).ops))

    def init(self, key: jax.Array, inputs: list[jax.Array]) -> Params:
        """Draws weights `{group: {candidate: leaves [edges, ...]}}`."""
        nodes = self._nodes(inputs)
        # All edges of a group see images of one shape, that of its first edge's source.
        first = {name: self.graph.edges[group.edges[0]][0] for name, group in self.graph.groups.items()}
        return init_cell(key, self.graph, {name: nodes[source] for name, source in first.items()})

    def apply(
        self, params: Params, paths: Paths, inputs: list[jax.Array], *, key: jax.Array | None = None, rate: float = 0.0
    ) -> list[jax.Array]:
        """Runs the cell; with a key the output of an edge is dropped with probability `rate`."""
        key = None if key is None else jax.random.fold_in(key, self.number)  # cells of one network drop differently
        return apply_cell(self.graph._replace(drop_path=rate), params, self._rows_of(paths), inputs, key)

    def used(self, params: Params, paths: Paths) -> Tree:
        """Bools `[edges, 1, ...]` for every weight."""
        return used_cell(self.graph, params, self._rows_of(paths))

    def alone(self, module: Any, arch: Mapping[str, Any], rate: Any, inputs: list[jax.Array]) -> list[jax.Array]:
        """Runs the chosen block of every edge as a child of `module`, and drops its output with probability `rate`."""
        # A node is the sum of its incoming edges.
        nodes: dict[int, jax.Array] = dict(enumerate(inputs))
        for edge, (source, target) in enumerate(self.graph.edges):
            name, place = self._chosen(arch, edge)
            block = self._blocks(edge)[name]
            y = block.clone(name=place, parent=module)(nodes[source])
            if rate is not None and not isinstance(block, self.spared):
                y = drop_path(module.make_rng("dropout"), y, rate)
            nodes[target] = nodes[target] + y if target in nodes else y
        return [nodes[node] for node in range(self.graph.num_inputs, self.graph.num_nodes)]

    def inherit(self, params: Params, arch: Mapping[str, Any]) -> dict[str, Params]:
        """The weights of the chosen blocks under their names in a stand-alone network."""
        chosen = [(edge, *self._chosen(arch, edge)) for edge in range(len(self.graph.edges))]
        return {place: edge_params(self.graph, params, edge, name) for edge, name, place in chosen}

    def output(self, inputs: list[jax.Array]) -> list[jax.Array]:
        """Zeros like the nodes after the inputs."""
        return self._nodes(inputs)[self.graph.num_inputs :]

    def count(self, inputs: list[jax.Array], tables: dict[str, np.ndarray]) -> Cost:
        """Adds what every candidate costs on every edge to the tables; a cell has no fixed costs."""
        nodes, rows = self._nodes(inputs), self.rows or slice(None)
        table = tables[self.kind][rows]
        for edge, (source, _) in enumerate(self.graph.edges):
            table[edge] += [block.cost(*sizes_of(nodes[source])) for block in self._blocks(edge).values()]
        return Cost(0, 0)

    def _rows_of(self, paths: Paths) -> Paths:
        """The paths of this cell's edges."""
        return paths.select(lambda tree: tree[self.kind] if self.rows is None else tree[self.kind][self.rows])

    def _blocks(self, edge: int) -> Mapping[str, Block]:
        return self.graph.groups[home(self.graph, edge)[0]].blocks

    def _chosen(self, arch: Mapping[str, Any], edge: int) -> tuple[str, str]:
        """The name of the chosen candidate of an edge and of its weights in a stand-alone network."""
        name = tuple(self._blocks(edge))[arch[self.kind][self.rows or slice(None)][edge]]
        return name, f"cell{self.number}_edge{edge}_{name}"

    def _nodes(self, inputs: list[jax.Array]) -> list[jax.Array]:
        """The inputs, and zeros like the nodes after them."""
        nodes = dict(enumerate(inputs))
        for edge, (source, target) in enumerate(self.graph.edges):
            # Any block of an edge into a node shows what the node looks like.
            if target not in nodes:
                nodes[target] = next(iter(self._blocks(edge).values())).output(nodes[source])
        return [nodes[node] for node in range(self.graph.num_nodes)]


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """Equal cells of one input in a row; each passes its last node on. Their weights lie stacked on a leading axis.

    Attributes:
      cell: the first cell.
      length: number of cells.
    """

    cell: Cell
    length: int

    @property
    def decisions(self) -> Decisions:
        """The decisions of one cell, which all cells share."""
        return self.cell.decisions

    def init(self, key: jax.Array, x: jax.Array) -> Params:
        """Draws weights `{group: {candidate: leaves [cells, edges, ...]}}`."""
        return jax.vmap(self.cell.init, in_axes=(0, None))(jax.random.split(key, self.length), [x])

    def apply(
        self, params: Params, paths: Paths, x: jax.Array, *, key: jax.Array | None = None, rate: float = 0.0
    ) -> jax.Array:
        """Scans over the cells, or writes them out where the edges of a cell are written out, too."""
        rows = params, None if key is None else jax.random.split(key, self.length)

        def body(x, row):
            weights, key = row
            return self.cell.apply(weights, paths, [x], key=key, rate=rate)[-1], None

        # One program for all cells, unless edges are written out, too.
        if self.cell.graph.scanned:
            return lax.scan(body, x, rows, length=self.length)[0]
        for i in range(self.length):
            x, _ = body(x, jax.tree.map(lambda leaf, i=i: leaf[i], rows))
        return x

    def used(self, params: Params, paths: Paths) -> Tree:
        """Bools `[1, edges, 1, ...]` for every weight."""
        first = jax.tree.map(lambda leaf: leaf[0], params)
        return jax.tree.map(lambda leaf: leaf[None], self.cell.used(first, paths))

    def alone(self, module: Any, arch: Mapping[str, Any], rate: Any, x: jax.Array) -> jax.Array:
        """Runs the chosen blocks of every cell as children of `module`."""
        return functools.reduce(lambda x, cell: cell.alone(module, arch, rate, [x])[-1], self._cells(), x)

    def inherit(self, params: Params, arch: Mapping[str, Any]) -> dict[str, Params]:
        """The weights of the chosen blocks under their names in a stand-alone network."""
        found: dict[str, Params] = {}
        for i, cell in enumerate(self._cells()):
            found |= cell.inherit(jax.tree.map(lambda leaf, i=i: leaf[i], params), arch)
        return found

    def output(self, x: jax.Array) -> jax.Array:
        """Zeros like the last node of the last cell."""
        return self.cell.output([x])[-1]

    def count(self, x: jax.Array, tables: dict[str, np.ndarray]) -> Cost:
        """Adds what every candidate costs on every edge of every cell to the tables."""
        for cell in self._cells():
            cell.count([x], tables)
        return Cost(0, 0)

    def _cells(self) -> list[Cell]:
        return [dataclasses.replace(self.cell, number=self.cell.number + i) for i in range(self.length)]
