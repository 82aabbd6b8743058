"""The tree of a recurrent cell of NAS-RL as a picture: leaves at the bottom, the output on top.

All lengths are inches, as in the pictures of other architectures, so that nothing can overlap by chance.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.base import About, Arch
from jaxnas.errors import UserError
from jaxnas.plot.graph import COLOURS

__all__ = ["TreeNode", "cell_tree", "tree_nodes"]

WIDTH, HEIGHT = 1.14, 0.5  # of the box of a node
ACROSS, UP = 1.9, 1.35  # between neighbouring leaves, and from one row of nodes to the next
GAP, INJECT = 0.14, 0.26  # above a node with the cell inject: a free space, then the height of its box
MARGIN, FOOT, HEAD = 0.9, 1.15, 0.85  # beside the outer leaves, below the middle of the leaves, above the root
FONT = 8.5  # points
INK, PALE = "#222222", "#8d95a0"


class TreeNode(NamedTuple):
    """One node of a cell's tree.

    Attributes:
      combination: the name of the combination method.
      activation: the name of the activation.
      children: the numbers of the two nodes that it joins; empty for a leaf, which joins products of `x_t` and
        `h_{t-1}`.
      place: position in the tree, in leaves from the left and in rows from the bottom.
    """

    combination: str
    activation: str
    children: tuple[int, ...]
    place: tuple[float, float]


def tree_nodes(about: About, arch: Arch) -> list[TreeNode]:
    """Reads the nodes of a recurrent cell, in the order of their numbers: leaves first, the root last.

    Leaves stand in the order in which a walk through the tree meets them, so that no two branches cross; a node stands
    in the middle above its children.

    Args:
      about: what the space of recurrent cells says of itself.
      arch: the architecture, lists allowed.

    Raises:
      UserError: an architecture of another space.

    Example:
      >>> from jaxnas.spaces.nas_rl import recurrent_cell_space
      >>> about = recurrent_cell_space(2).about
      >>> arch = about.parse("add tanh, elem_mult relu | elem_mult sigmoid | inject add relu | index 1 0")
      >>> tree_nodes(about, arch)[2]
      TreeNode(combination='elem_mult', activation='sigmoid', children=(0, 1), place=(0.5, 1))
    """
    _check(about, arch)
    names = about.operations
    combinations = [names["combination"][k] for k in np.asarray(arch["combination"])]
    activations = [names["activation"][k] for k in np.asarray(arch["activation"])]
    base = len(combinations) // 2
    children: list[tuple[int, ...]] = [
        () if n < base else (2 * (n - base), 2 * (n - base) + 1) for n in range(2 * base - 1)
    ]
    # Leaves from left to right, as a walk from the root meets them.
    waiting, order = [2 * base - 2], []
    while waiting:
        node = waiting.pop()
        waiting += reversed(children[node])
        order += [node] * (node < base)
    # A node above its children, in the first row that is above both.
    places: list[tuple[float, int]] = [(order.index(n), 0) for n in range(base)]
    for left, right in children[base:]:
        (x, row), (other, higher) = places[left], places[right]
        places.append(((x + other) / 2, 1 + max(row, higher)))
    return [TreeNode(*each) for each in zip(combinations[:-1], activations[:-1], children, places, strict=True)]


def cell_tree(path: str | Path, about: About, arch: Arch) -> Path:
    """Draws the tree of a recurrent cell.

    A box is a node with its number, its combination method and, in a colour of its own, its activation. The box above
    the second cell index is the cell inject, which lets `c_{t-1}` in; an arrow leads from the first cell index to
    `c_t`, and another one from the root to `h_t`.

    Args:
      path: the file to write; its suffix (`.png`, `.svg`, `.pdf`) decides the format.
      about: what the space of recurrent cells says of itself.
      arch: the architecture, lists allowed.

    Returns:
      The path.

    Raises:
      UserError: an architecture of another space.

    Example:
      >>> import tempfile
      >>> from jaxnas.spaces.nas_rl import PUBLISHED, recurrent_cell_space
      >>> about = recurrent_cell_space(8).about
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     cell_tree(f"{folder}/cell.svg", about, about.parse(PUBLISHED["nascell"])).name
      'cell.svg'
    """
    from matplotlib.figure import Figure

    nodes = tree_nodes(about, arch)
    memory, inject = (int(n) for n in np.asarray(arch["index"]))
    # The picture is as large as the tree.
    leaves, rows = (len(nodes) + 1) / 2, nodes[-1].place[1]
    size = (
        (leaves - 1) * ACROSS + WIDTH + 2 * MARGIN,
        FOOT + rows * UP + HEAD + (GAP + INJECT) * (inject == len(nodes) - 1),
    )
    figure = Figure(figsize=size, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(0, size[1]))
    axes.axis("off")
    tree = _Tree(axes, nodes, dict(zip(about.operations["activation"], COLOURS, strict=False)), inject)
    # Branches below, then the boxes, then what goes in and out besides x_t and h_{t-1}.
    tree.branches()
    for number in range(len(nodes)):
        tree.node(number)
    tree.inject(about, arch)
    tree.memory(memory)
    note = "cₜ is the value of its node before the activation"
    axes.text(size[0] / 2, 0.2, note, fontsize=FONT - 1, color=PALE, ha="center", va="center")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


class _Tree:
    """A tree on axes whose unit is an inch."""

    def __init__(self, axes: Any, nodes: list[TreeNode], shades: dict[str, str], inject: int):
        self._axes, self._nodes, self._shades, self._inject = axes, nodes, shades, inject

    def _centre(self, number: int) -> tuple[float, float]:
        x, row = self._nodes[number].place
        return MARGIN + WIDTH / 2 + x * ACROSS, FOOT + row * UP

    def _top(self, number: int) -> tuple[float, float]:
        """Where the value of a node leaves: above its box, or above that of the inject."""
        x, y = self._centre(number)
        return x, y + HEIGHT / 2 + (GAP + INJECT if number == self._inject else 0)

    def _outer(self, number: int) -> int:
        """The side of a node that is away from its sibling: -1 for left and 1 for right."""
        return 1 if number % 2 else -1

    def branches(self) -> None:
        """Arrows from children to their parents, from `x_t` and `h_{t-1}` to the leaves, and from the root to `h_t`."""
        for number, node in enumerate(self._nodes):
            x, y = self._centre(number)
            for side, child in zip((-1, 1), node.children):
                self._arrow(self._top(child), (x + 0.22 * side, y - HEIGHT / 2))
            for side, name in zip((-1, 1), ("xₜ", "hₜ₋₁")) if not node.children else ():
                start = x + 0.3 * side, y - HEIGHT / 2 - 0.34
                self._arrow(start, (x + 0.22 * side, y - HEIGHT / 2))
                self._text((start[0], start[1] - 0.11), name, INK)
        x, y = self._top(len(self._nodes) - 1)
        self._arrow((x, y), (x, y + 0.3))
        self._text((x, y + 0.41), "hₜ", INK, fontweight="bold")

    def node(self, number: int) -> None:
        """The box of a node."""
        node, (x, y) = self._nodes[number], self._centre(number)
        shade = self._shades[node.activation]
        self._box((x, y), (WIDTH, HEIGHT), shade)
        self._text((x, y + 0.11), node.combination, INK)
        self._text((x, y - 0.11), node.activation, shade, fontweight="bold")
        self._text((x - WIDTH / 2 + 0.1, y + 0.15), str(number), PALE, fontsize=FONT - 2)

    def inject(self, about: About, arch: Arch) -> None:
        """The box of the cell inject above its node, with `c_{t-1}` beside it."""
        names = about.operations
        combination = names["combination"][int(np.asarray(arch["combination"])[-1])]
        activation = names["activation"][int(np.asarray(arch["activation"])[-1])]
        x, y = self._centre(self._inject)
        self._arrow((x, y + HEIGHT / 2), (x, y + HEIGHT / 2 + GAP))
        y += HEIGHT / 2 + GAP + INJECT / 2
        self._box((x, y), (WIDTH, INJECT), self._shades[activation], ls=(0, (3, 2)))
        self._text((x, y), f"{combination} {activation}", self._shades[activation], fontsize=FONT - 1)
        side = self._outer(self._inject)
        start = x + side * (WIDTH / 2 + 0.26)
        self._arrow((start, y), (x + side * WIDTH / 2, y))
        self._text((start + side * 0.17, y), "cₜ₋₁", INK, fontweight="bold")

    def memory(self, number: int) -> None:
        """An arrow from the node whose value becomes the memory."""
        x, y = self._centre(number)
        side = self._outer(number)
        end = x + side * (WIDTH / 2 + 0.26)
        self._arrow((x + side * WIDTH / 2, y), (end, y))
        self._text((end + side * 0.1, y), "cₜ", INK, fontweight="bold")

    def _box(self, centre: tuple[float, float], size: tuple[float, float], shade: str, ls: Any = "-") -> None:
        from matplotlib.patches import FancyBboxPatch

        corner = centre[0] - size[0] / 2, centre[1] - size[1] / 2
        style = "round,pad=0,rounding_size=0.08"
        self._axes.add_patch(FancyBboxPatch(corner, *size, style, fc="white", ec=shade, lw=1.3, ls=ls, zorder=3))

    def _arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        from matplotlib.patches import FancyArrowPatch

        style: dict[str, Any] = {"mutation_scale": 8, "shrinkA": 0, "shrinkB": 0, "color": PALE}
        self._axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", zorder=2, **style))

    def _text(self, centre: tuple[float, float], text: str, color: str, *, fontsize: float = FONT, **style: Any):
        place = {"ha": "center", "va": "center_baseline", "zorder": 5}
        self._axes.text(*centre, text, fontsize=fontsize, color=color, **place, **style)


def _check(about: About, arch: Arch) -> None:
    """Raises `UserError` for an architecture that is not a recurrent cell of the space."""
    names = about.operations
    if not isinstance(names, dict) or set(names) != {"activation", "combination", "index"}:
        raise UserError(f"about is of space {about.name!r}, expected that of recurrent cells")
    rows = {name: np.asarray(arch[name]) if name in arch else np.zeros(0, int) for name in names}
    nodes = len(names["index"])
    lengths = {"activation": nodes + 1, "combination": nodes + 1, "index": 2}
    for name, row in rows.items():
        if row.shape != (lengths[name],) or not ((row >= 0) & (row < len(names[name]))).all():
            expected = f"{lengths[name]} whole numbers from 0 to {len(names[name]) - 1}"
            raise UserError(f"arch[{name!r}] is {row.tolist()}, expected {expected}")
