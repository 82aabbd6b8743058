"""A found architecture as a picture: cells as graphs, and every other space as a table of its decisions.

All lengths are inches: the picture is one set of axes in which a unit is an inch, so text has a known size and nothing
can overlap by chance.
"""

from pathlib import Path
from typing import Any

from jaxnas.base import About, Arch
from jaxnas.plot.graph import Panel, colours, panels
from jaxnas.plot.layout import CHARACTER, RADIUS, Layout, place

__all__ = ["architecture"]

FONT = 8.5  # points
MARGIN, TITLE, LEGEND = 0.3, 0.42, 0.42  # inches
INK, PALE, BAND = "#222222", "#9aa1ab", "#eef1f5"
LOWER = str.maketrans("k-0123456789", "ₖ₋₀₁₂₃₄₅₆₇₈₉")


def architecture(path: str | Path, about: About, arch: Arch) -> Path:
    """Draws an architecture, one panel per kind of cell.

    In a space with edges a panel is a graph: a colour and a label per edge, edges with operation `none` left out, nodes
    without inputs dashed. Otherwise it is a table, a row per decision and a column per operation.

    Args:
      path: where; the suffix (`.png`, `.svg`, `.pdf`) decides the format.
      about: of the space.
      arch: leaves `[E]`, lists allowed.

    Returns:
      The path.

    Raises:
      ValueError: an architecture of another space.
    """
    from matplotlib.figure import Figure

    found = panels(about, arch)
    shades = colours(found)
    shades = {name: shade for name, shade in shades.items() if any(name in panel.decisions for panel in found)}
    drawn = [_Graph(panel, shades) if panel.names else _Table(panel, shades) for panel in found]
    width = max([one.width for one in drawn] + [_legend_width(shades)]) + 2 * MARGIN
    height = sum(one.height + TITLE for one in drawn) + LEGEND
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    top = height
    for panel, one in zip(found, drawn, strict=True):
        axes.text(MARGIN, top - TITLE / 2, panel.title, fontsize=12, fontweight="bold", color=INK, va="center")
        top -= TITLE + one.height
        one.draw(axes, (width - one.width) / 2, top)
    _draw_legend(axes, shades, (width - _legend_width(shades)) / 2, LEGEND / 2)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


class _Graph:
    """A cell as a graph, drawn from its lower left corner."""

    def __init__(self, panel: Panel, shades: dict[str, str]):
        self._panel, self._shades, self._layout = panel, shades, place(panel)
        left, low, right, high = self._layout.box
        self._output = right + 0.75 if panel.concatenates else right
        self.width, self.height = self._output + RADIUS - left, high - low

    def draw(self, axes: Any, x: float, y: float) -> None:
        from matplotlib.transforms import Affine2D

        self._to = Affine2D().translate(x - self._layout.box[0], y - self._layout.box[1]) + axes.transData
        if self._panel.concatenates:
            self._band(axes)
        for curve in self._layout.curves:
            self._edge(axes, curve)
        fed = {edge.target for edge in self._panel.edges} | set(range(self._panel.num_inputs))
        for node, name in enumerate(self._panel.names):
            self._node(axes, self._layout.nodes[node], name, alive=node in fed)

    def _band(self, axes):
        """All nodes but the inputs in one band, from which the output comes."""
        from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

        row = self._layout.nodes[self._panel.num_inputs :, 0]
        style = "round,pad=0.12,rounding_size=0.3"
        start, wide = row[0] - RADIUS, row[-1] - row[0] + 2 * RADIUS
        axes.add_patch(
            FancyBboxPatch((start, -RADIUS), wide, 2 * RADIUS, style, fc=BAND, ec="none", transform=self._to, zorder=0)
        )
        ends = (start + wide + 0.12, 0), (self._output - RADIUS, 0)
        axes.add_patch(
            FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=9, color=PALE, shrinkA=0, shrinkB=0, transform=self._to)
        )
        self._node(axes, (self._output, 0), "c_{k}", alive=True)

    def _edge(self, axes, curve):
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Line

        shade = self._shades[curve.edge.operation]
        axes.add_patch(
            FancyArrowPatch(
                path=Line(curve.points),
                arrowstyle="-|>",
                mutation_scale=9,
                lw=1.4,
                color=shade,
                fill=True,
                transform=self._to,
                zorder=2,
            )
        )
        box = {"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none"}
        axes.text(
            *curve.label,
            curve.edge.operation,
            fontsize=FONT,
            color=shade,
            ha="center",
            va="center_baseline",
            bbox=box,
            transform=self._to,
            zorder=4,
        )

    def _node(self, axes, centre, name, *, alive):
        from matplotlib.patches import Circle

        line = "-" if alive else (0, (2, 2))
        axes.add_patch(
            Circle(centre, RADIUS, fc="white", ec=INK if alive else PALE, lw=1.2, ls=line, transform=self._to, zorder=3)
        )
        axes.text(*centre, _label(name), fontsize=FONT, color=INK if alive else PALE, ha="center", va="center_baseline", transform=self._to, zorder=5)


def _label(name: str) -> str:
    """`c_{k-2}` with signs that lie lower, as mathematical typesetting would have it."""
    base, _, lower = name.partition("_{")
    return base + lower.rstrip("}").translate(LOWER)


class _Table:
    """A row per decision, a column per operation, from its lower left corner."""

    def __init__(self, panel: Panel, shades: dict[str, str]):
        self._panel, self._shades = panel, shades
        self.width, self.height = 1.0, 1.0

    def draw(self, axes: Any, x: float, y: float) -> None:
        pass


def _legend_width(shades: dict[str, str]) -> float:
    return sum(0.62 + CHARACTER * len(name) for name in shades)


def _draw_legend(axes, shades, x, y):
    for name, shade in shades.items():
        axes.plot([x, x + 0.3], [y, y], color=shade, lw=2.5, solid_capstyle="round")
        axes.text(x + 0.38, y, name, fontsize=FONT, color=INK, va="center_baseline")
        x += 0.62 + CHARACTER * len(name)
