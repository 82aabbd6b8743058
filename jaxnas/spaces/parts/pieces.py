"""What supernets are made of: fixed blocks and choices in a row; `jaxnas.spaces.parts.cells` has cells of choices.

Every piece offers the same functions, from which `jaxnas.spaces.parts.skeleton` makes a whole space: it initialises its
weights, runs inside a supernet, says which weights took part, runs alone, hands over its weights and counts its costs.
Two more say what it looks like from outside: its output, and the decisions that it leaves open.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from jaxnas.base import Params, Paths, Tree
from jaxnas.ops import Block, Cost, Zero, from_linen
from jaxnas.spaces.parts.choice import mixed_op
from jaxnas.spaces.parts.graph import EdgeGroup, group_of, init_group, used_group

__all__ = ["Decisions", "Fixed", "Place", "Run", "runs", "sizes_of"]


class Decisions(NamedTuple):
    """Which decisions a piece leaves open.

    Attributes:
      kind: the entry of `SearchSpace.choices` that holds them.
      end: the least number of rows that the entry needs.
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
        return self.block.cost(*sizes_of(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Choices in a row among the same candidates, over which the supernet scans.

    Attributes:
      kind: the entry of `SearchSpace.choices` that holds the decisions.
      group: the candidates, and the row of each place of the run in that entry.
      number: number of places that the network has before this run; place `i` has the name `block{number + i}`.
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
        """The decisions of the run, one for each place."""
        return Decisions(self.kind, max(self.group.edges) + 1, tuple(self.group.ops))

    def init(self, key: jax.Array, x: jax.Array) -> Params:
        """Draws weights `{candidate: leaves [places, ...]}`."""
        return init_group(key, self.group, x)

    def apply(
        self, params: Params, paths: Paths, x: jax.Array, *, key: jax.Array | None = None, rate: float = 0.0
    ) -> jax.Array:
        """Runs all places; with a key every place gets a key derived from it. Drop path is for cells alone."""
        del rate
        # Rows of the scan: weights, paths and keys of the places.
        ops, rows = self.group.ops, np.array(self.group.edges)
        chosen = paths.select(lambda tree: tree[self.kind][rows])
        keys = None if key is None else jax.random.split(key, len(rows))
        scanned = tuple(params[name] for name in ops), chosen, keys

        def body(x, row):
            weights, chosen, key = row
            y = mixed_op(tuple(ops.values()), weights, chosen, x, key=key)
            return (x + y if self.shortcut else y), None

        # One program for all places; a scan over a single one would only keep its arguments twice.
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
                continue  # the place is left out
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
        """Adds what every candidate costs at every place to the tables; a run has no fixed costs."""
        costs = [block.cost(*sizes_of(x)) for block in self.group.blocks.values()]
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
    ends: dict[str, int] = {}  # per kind the rows of the decisions so far
    for _, members in itertools.groupby(enumerate(places), lambda item: item[1] if item[1].shortcut else item[0]):
        (number, place), *rest = members  # equal places with a shortcut, or one without
        start = ends.get(place.kind, 0)
        ends[place.kind] = start + 1 + len(rest)
        group = group_of(dict(place.blocks), tuple(range(start, ends[place.kind])))
        found.append(Run(place.kind, group, number, place.shortcut))
    return found


def sizes_of(x: Any) -> tuple[int, int, int]:
    """Channels, rows and columns of the image `[B, H, W, C]`, or of the first of several."""
    _, height, width, channels = jax.tree.leaves(x)[0].shape
    return channels, height, width
