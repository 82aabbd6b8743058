"""What supernets are made of: fixed blocks, choices in a row, cells of choices.

Every piece offers the same five functions, from which `jaxnas.spaces.parts.skeleton` makes a whole space: it
initialises its weights, runs inside a supernet, runs alone, counts its costs and hands over its weights. Two more say
what it looks like from outside: its output, and the decisions that it leaves open.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from jaxnas.base import Op, Params, Paths, Tree
from jaxnas.ops import Block, Cost, Zero, drop_path, from_linen
from jaxnas.spaces.parts.cell import (
    CellGraph,
    EdgeGroup,
    apply_cell,
    edge_params,
    home,
    init_cell,
    init_group,
    used_cell,
    used_group,
)
from jaxnas.spaces.parts.choice import mixed_op

__all__ = ["Cell", "Decisions", "Fixed", "Place", "Run", "Stack", "runs"]


class Decisions(NamedTuple):
    """Which decisions a piece leaves open.

    Attributes:
      kind: the entry of `SearchSpace.choices` that holds them.
      end: how many rows that entry needs at least.
      operations: names of the candidates.
    """

    kind: str
    end: int
    operations: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed:
    """A block that every network of the space has.

    Attributes:
      name: name of its weights in a stand-alone network.
      block: Linen module with `output(x)` and `cost(channels, height, width)`, as those of `jaxnas.ops` have.
    """

    name: str
    block: Any
    decisions: Decisions | None = None

    def init(self, key: jax.Array, x: Any) -> Params:
        """Draws the weights for inputs like `x`."""
        return from_linen(self.block).init(key, x)

    def apply(self, params: Params, paths: Paths, x: Any, *, key: Any = None, rate: float = 0.0) -> Any:
        """Runs the block with the weights of a supernet."""
        del paths, key, rate
        return from_linen(self.block).apply(params, x)

    def used(self, params: Params, paths: Paths) -> Tree:
        """All weights take part in every architecture."""
        del paths
        return jax.tree.map(lambda leaf: True, params)

    def alone(self, module: Any, arch: Mapping[str, Any], rate: Any, x: Any) -> Any:
        """Runs the block as a child of the Linen module of a stand-alone network."""
        del arch, rate
        return self.block.clone(name=self.name, parent=module)(x)

    def inherit(self, params: Params, arch: Mapping[str, Any]) -> dict[str, Params]:
        """The weights under their name in a stand-alone network."""
        del arch
        return {self.name: params}

    def output(self, x: Any) -> Any:
        """Zeros like the output for `x`."""
        return self.block.output(x)

    def count(self, x: Any, tables: dict[str, np.ndarray]) -> Cost:
        """What the block costs on inputs like `x`."""
        del tables
        return self.block.cost(*_sizes(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Choices in a row among the same candidates, over which the supernet scans.

    Attributes:
      kind: the entry of `SearchSpace.choices` that holds the decisions.
      group: the candidates, and the row of each place of the run in that entry.
      number: how many places the network has before this run; place `i` is `block{number + i}` there.
      shortcut: whether the input of every place is added to its output. `Zero` then leaves the place out.
      scanned: False writes the places out one by one, the plain form of the same function.
    """

    kind: str
    group: EdgeGroup
    number: int = 0
    shortcut: bool = False
    scanned: bool = True

    @property
    def decisions(self) -> Decisions:
        """One for each place."""
        return Decisions(self.kind, max(self.group.edges) + 1, tuple(self.group.ops))

    def init(self, key: jax.Array, x: jax.Array) -> Params:
        """Draws weights `{candidate: leaves [places, ...]}`."""
        return init_group(key, self.group, x)

    def apply(
        self, params: Params, paths: Paths, x: jax.Array, *, key: jax.Array | None = None, rate: float = 0.0
    ) -> jax.Array:
        """Runs all places; a single one is no scan."""
        del rate
        ops, rows = self.group.ops, np.array(self.group.edges)
        chosen = paths.select(lambda tree: tree[self.kind][rows])
        keys = None if key is None else jax.random.split(key, len(rows))
        scanned = tuple(params[name] for name in ops), chosen, keys

        def body(x, row):
            weights, chosen, key = row
            y = mixed_op(tuple(ops.values()), weights, chosen, x, key=key)
            return (x + y if self.shortcut else y), None

        if self.scanned and len(rows) > 1:
            return lax.scan(body, x, scanned)[0]
        for i in range(len(rows)):
            x, _ = body(x, jax.tree.map(lambda leaf, i=i: leaf[i], scanned))
        return x

    def used(self, params: Params, paths: Paths) -> Tree:
        """Bools `[places, 1, ...]` for every weight."""
        return used_group(self.group, params, paths.select(lambda tree: tree[self.kind]))

    def alone(self, module: Any, arch: Mapping[str, Any], rate: Any, x: jax.Array) -> jax.Array:
        """Runs the chosen block of every place as a child of `module`."""
        del rate
        for name, place in self.chosen(arch):
            block = self.group.blocks[name]
            if self.shortcut and isinstance(block, Zero):
                continue
            y = block.clone(name=place, parent=module)(x)
            x = x + y if self.shortcut else y
        return x

    def inherit(self, params: Params, arch: Mapping[str, Any]) -> dict[str, Params]:
        """The weights of the chosen blocks under their names in a stand-alone network."""
        chosen = enumerate(self.chosen(arch))
        return {place: jax.tree.map(lambda leaf, i=i: leaf[i], params[name]) for i, (name, place) in chosen}

    def output(self, x: jax.Array) -> jax.Array:
        """Zeros like the output for `x`."""
        return next(iter(self.group.blocks.values())).output(x)

    def count(self, x: jax.Array, tables: dict[str, np.ndarray]) -> Cost:
        """Enters what every candidate costs at every place; nothing here is fixed."""
        costs = [block.cost(*_sizes(x)) for block in self.group.blocks.values()]
        tables[self.kind][np.array(self.group.edges)] += np.array(costs)
        return Cost(0, 0)

    def chosen(self, arch: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Per place the name of the chosen candidate and of its weights in a stand-alone network."""
        names = tuple(self.group.ops)
        chosen = [names[arch[self.kind][row]] for row in self.group.edges]
        return [(name, f"block{self.number + i}_{name}") for i, name in enumerate(chosen)]


class Place(NamedTuple):
    """One choice of a chain of blocks.

    Attributes:
      kind: the entry of `SearchSpace.choices` that is to hold the decision.
      blocks: the candidates by name.
      shortcut: whether input and output have the same shape and the input is added to the output.
    """

    kind: str
    blocks: Mapping[str, Block]
    shortcut: bool


def runs(places: Iterable[Place]) -> list[Run]:
    """Joins places with a shortcut that follow one another and are equal into runs; other places stand alone.

    Example:
      >>> from jaxnas.ops import ConvNorm
      >>> blocks = {"1x1": ConvNorm(8), "3x3": ConvNorm(8, kernel=3)}
      >>> [run.group.edges for run in runs([Place("a", blocks, False), *[Place("b", blocks, True)] * 2])]
      [(0,), (0, 1)]
    """
    found: list[Run] = []
    numbered, ends = list(enumerate(places)), {}
    for _, members in itertools.groupby(numbered, lambda item: item[1] if item[1].shortcut else item[0]):
        (number, place), *rest = members
        start = ends.get(place.kind, 0)
        ends[place.kind] = start + 1 + len(rest)
        group = EdgeGroup(_ops(place.blocks), tuple(range(start, ends[place.kind])), blocks=dict(place.blocks))
        found.append(Run(place.kind, group, number, place.shortcut))
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A graph of choices. It takes the list of its inputs and returns the list of its other nodes.

    Attributes:
      kind: the entry of `SearchSpace.choices` that holds the decisions.
      graph: nodes, edges and their candidates.
      number: which cell of the network it is, from 0; its edges are `cell{number}_edge{i}` there.
      rows: which rows of the entry are those of its edges; None for all of them, shared with cells of the same kind.
      spared: classes of blocks that drop path leaves alone in a stand-alone network.
    """

    kind: str
    graph: CellGraph
    number: int = 0
    rows: slice | None = None
    spared: tuple[type[Block], ...] = ()

    @property
    def decisions(self) -> Decisions:
        """One for each edge."""
        end = len(self.graph.edges) if self.rows is None else self.rows.stop
        return Decisions(self.kind, end, tuple(next(iter(self.graph.groups.values())).ops))

    def init(self, key: jax.Array, inputs: list[jax.Array]) -> Params:
        """Draws weights `{group: {candidate: leaves [edges, ...]}}`."""
        nodes = self._nodes(inputs)
        first = {name: self.graph.edges[group.edges[0]][0] for name, group in self.graph.groups.items()}
        return init_cell(key, self.graph, {name: nodes[source] for name, source in first.items()})

    def apply(
        self, params: Params, paths: Paths, inputs: list[jax.Array], *, key: jax.Array | None = None, rate: float = 0.0
    ) -> list[jax.Array]:
        """Runs the cell; with a key the output of an edge is dropped with probability `rate`."""
        key = None if key is None else jax.random.fold_in(key, self.number)
        return apply_cell(self.graph._replace(drop_path=rate), params, self._own(paths), inputs, key)

    def used(self, params: Params, paths: Paths) -> Tree:
        """Bools `[edges, 1, ...]` for every weight."""
        return used_cell(self.graph, params, self._own(paths))

    def alone(self, module: Any, arch: Mapping[str, Any], rate: Any, inputs: list[jax.Array]) -> list[jax.Array]:
        """Runs the chosen block of every edge as a child of `module`, and drops its output with probability `rate`."""
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
        """Adds what every candidate costs on every edge; nothing here is fixed."""
        nodes, rows = self._nodes(inputs), self.rows or slice(None)
        table = tables[self.kind][rows]
        for edge, (source, _) in enumerate(self.graph.edges):
            table[edge] += [block.cost(*_sizes(nodes[source])) for block in self._blocks(edge).values()]
        return Cost(0, 0)

    def _own(self, paths: Paths) -> Paths:
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
            if target not in nodes:
                nodes[target] = next(iter(self._blocks(edge).values())).output(nodes[source])
        return [nodes[node] for node in range(self.graph.num_nodes)]


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """Equal cells of one input in a row; each passes its last node on. Their weights lie stacked on a leading axis.

    Attributes:
      cell: the first of them.
      length: how many there are.
    """

    cell: Cell
    length: int

    @property
    def decisions(self) -> Decisions:
        """Those of one cell, which all of them share."""
        return self.cell.decisions

    def init(self, key: jax.Array, x: jax.Array) -> Params:
        """Draws weights `{group: {candidate: leaves [cells, edges, ...]}}`."""
        return jax.vmap(self.cell.init, in_axes=(0, None))(jax.random.split(key, self.length), [x])

    def apply(
        self, params: Params, paths: Paths, x: jax.Array, *, key: jax.Array | None = None, rate: float = 0.0
    ) -> jax.Array:
        """Scans over the cells, or writes them out where the edges of a cell are written out, too."""
        del key, rate

        def body(x, weights):
            return self.cell.apply(weights, paths, [x])[-1], None

        if self.cell.graph.scanned:
            return lax.scan(body, x, params, length=self.length)[0]
        for i in range(self.length):
            x, _ = body(x, jax.tree.map(lambda leaf, i=i: leaf[i], params))
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
        """Adds what every candidate costs on every edge of every cell."""
        for cell in self._cells():
            cell.count([x], tables)
        return Cost(0, 0)

    def _cells(self) -> list[Cell]:
        return [dataclasses.replace(self.cell, number=self.cell.number + i) for i in range(self.length)]


def _ops(blocks: Mapping[str, Block]) -> dict[str, Op]:
    return {name: from_linen(block) for name, block in blocks.items()}


def _sizes(x: Any) -> tuple[int, int, int]:
    """Channels, rows and columns of the image `[B, H, W, C]`, or of the first of several."""
    _, height, width, channels = jax.tree.leaves(x)[0].shape
    return channels, height, width
