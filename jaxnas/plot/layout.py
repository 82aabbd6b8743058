"""Where the nodes, edges and labels of a cell go: geometry without a canvas, in inches.

Inputs stand at the left, all other nodes in a row. Edges between neighbours are straight; the others are arches, each
on the lowest storey above or below the row where it meets no other, so that no two labels share a place.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxnas.plot.graph import Edge, Panel

__all__ = ["CHARACTER", "FONT", "INK", "LABEL_HEIGHT", "MARGIN", "PALE", "RADIUS", "Curve", "Layout", "place"]

# What all pictures of architectures have in common.
FONT, MARGIN = 8.5, 0.3  # size of text in points, and the empty space around a picture
INK, PALE = "#222222", "#8d95a0"

RADIUS, TIP = 0.19, 0.02  # radius of a node, and the gap between it and the tip of an arrow
CHARACTER, LABEL_HEIGHT = 0.073, 0.17  # width of a character of a label, and the height of a label
INPUTS = 0.62  # distance of two inputs from the row
FIRST_STOREY, STOREY = 0.72, 0.34  # height of the lowest arch, and from one storey to the next


class Curve(NamedTuple):
    """One edge: its points `[n, 2]` from node to node, and the centre of its label."""

    edge: Edge
    points: np.ndarray
    label: tuple[float, float]


class Layout(NamedTuple):
    """A placed cell: centres `[N, 2]` of the nodes, curves, and the box `(left, low, right, high)` around all."""

    nodes: np.ndarray
    curves: tuple[Curve, ...]
    box: tuple[float, float, float, float]


def place(panel: Panel, *, characters: int = 0) -> Layout:
    """Places a cell; the row of nodes has the height 0.

    Args:
      panel: a cell with at least one node.
      characters: the length of the longest label for which there must be room between two nodes, though the cell may
        not have it.
    """
    # Nodes and curves first, then labels, each placed away from curves and from labels before it.
    nodes = _nodes(panel, max([characters] + [len(edge.operation) for edge in panel.edges]))
    lines = [(edge, _points(nodes, edge, height)) for edge, height in _heights(panel, nodes)]
    curves: list[Curve] = []
    for i, (edge, points) in enumerate(lines):
        others = [other for j, (_, other) in enumerate(lines) if j != i]
        curves.append(Curve(edge, points, _label(edge, points, others, curves, nodes)))
    extent = np.concatenate([nodes - RADIUS, nodes + RADIUS, *(curve.points for curve in curves)])
    low, high = extent[:, 1].min() - LABEL_HEIGHT, extent[:, 1].max() + LABEL_HEIGHT
    return Layout(nodes, tuple(curves), (extent[:, 0].min(), low, extent[:, 0].max(), high))


def _nodes(panel: Panel, characters: int) -> np.ndarray:
    gap = max(1.1, characters * CHARACTER + 2 * RADIUS + 0.42)
    inputs = panel.num_inputs
    heights = np.linspace(INPUTS, -INPUTS, inputs) if inputs > 1 else np.zeros(1)
    row = [(gap * (i + 1), 0.0) for i in range(len(panel.names) - inputs)]
    return np.array([*((0.0, height) for height in heights), *row])


def _heights(panel: Panel, nodes: np.ndarray) -> list[tuple[Edge, float | None]]:
    """Each edge with the height of its arch, None for a straight one; short edges get the inner storeys."""
    inputs = panel.num_inputs
    column = [max(0, node - inputs + 1) for node in range(len(nodes))]
    taken: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def free_storey(side, start, end):
        n = 0
        while any(start < right and left < end for left, right in taken.get((side, n), [])):
            n += 1
        return n

    # From the shortest edge on: straight between neighbours, else the lowest free storey of a side.
    placed: list[tuple[Edge, float | None]] = []
    for edge in sorted(panel.edges, key=lambda edge: (column[edge.target] - column[edge.source], edge)):
        start, end = column[edge.source], column[edge.target]
        if end - start == 1:
            placed.append((edge, None))
            continue
        # An input above or below the row keeps its arches on its side.
        height = nodes[edge.source, 1]
        sides = (1, -1) if height == 0 else (int(np.sign(height)),)
        side = min(sides, key=lambda side: free_storey(side, start, end))
        n = free_storey(side, start, end)
        taken.setdefault((side, n), []).append((start, end))
        placed.append((edge, side * (FIRST_STOREY + STOREY * n)))
    return placed


def _points(nodes: np.ndarray, edge: Edge, height: float | None) -> np.ndarray:
    """The edge as a curve from the rim of one node to just before that of the other."""
    first, last = nodes[edge.source], nodes[edge.target]
    t = np.linspace(0, 1, 200)[:, None]
    if height is None:
        way = (last - first) / np.hypot(*(last - first))
        return first + RADIUS * way + t * (last - first - (2 * RADIUS + TIP) * way)
    # Outer arches meet the nodes more steeply than inner ones, so that neighbours part at once.
    slant = np.radians(68 - 24 * (abs(height) - FIRST_STOREY) / STOREY)
    out = np.array([np.sin(slant), np.sign(height) * np.cos(slant)])
    first, last = first + RADIUS * out, last + (RADIUS + TIP) * out * np.array([-1, 1])
    # A cubic Bézier curve whose highest point has the wanted height.
    control = (height - (first[1] + last[1]) / 8) / 0.75
    most = 0.3 * (last[0] - first[0])
    leans = [float(np.clip(np.tan(slant) * abs(control - end[1]), -most, most)) for end in (first, last)]
    second, third = np.array([first[0] + leans[0], control]), np.array([last[0] - leans[1], control])
    return (1 - t) ** 3 * first + 3 * (1 - t) ** 2 * t * second + 3 * (1 - t) * t**2 * third + t**3 * last


def _label(edge: Edge, points: np.ndarray, others: list[np.ndarray], placed: list[Curve], nodes: np.ndarray):
    """The point nearest to the middle of the edge where its label covers least."""
    half = np.array([len(edge.operation) * CHARACTER / 2, LABEL_HEIGHT / 2])
    best, least = (0.0, 0.0), math.inf
    for share in (0.5, 0.46, 0.54, 0.42, 0.58, 0.38, 0.62, 0.34, 0.66, 0.3, 0.7):
        centre = points[int(share * (len(points) - 1))]
        # Another label or a node covered is worse than any length of another edge.
        labels = [other for other in placed if _overlap(centre, half, other)]
        covered = sum(np.any(np.all(np.abs(other - centre) < half + 0.03, 1)) for other in others)
        over_nodes = np.sum(np.all(np.abs(nodes - centre) < half + RADIUS, 1))
        cost = 100 * (len(labels) + over_nodes) + covered + abs(share - 0.5)
        if cost < least:
            best, least = (float(centre[0]), float(centre[1])), cost
    return best


def _overlap(centre: np.ndarray, half: np.ndarray, other: Curve) -> bool:
    room = half + np.array([len(other.edge.operation) * CHARACTER / 2 + 0.04, LABEL_HEIGHT / 2 + 0.02])
    return bool(np.all(np.abs(centre - other.label) < room))
