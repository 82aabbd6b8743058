"""A found architecture as a picture: cells as graphs, the layers of NAS-RL in a row, other spaces as tables.

All lengths are inches: the picture is one set of axes in which a unit is an inch, so text has a known size and nothing
can overlap by chance.
"""

from pathlib import Path
from typing import Any

from jaxnas.base import About, Arch
from jaxnas.plot._layer_network import layer_network
from jaxnas.plot.graph import Panel, colours, panels
from jaxnas.plot.layout import CHARACTER, FONT, INK, MARGIN, PALE, RADIUS, place

__all__ = ["architecture"]

TITLE, LEGEND = 0.42, 0.42  # inches
FAINT, BAND = "#d5dae1", "#eef1f5"
LOWER = str.maketrans("k-0123456789", "ₖ₋₀₁₂₃₄₅₆₇₈₉")


def architecture(path: str | Path, about: About, arch: Arch) -> Path:
    """Draws an architecture, one panel per kind of cell.

    In a space of cells a panel is a graph: a colour and a label per edge, edges with operation `none` left out, nodes
    that nothing enters dashed. Chains and spaces without edges become tables, a column per decision and a row per
    operation, except for `jaxnas.spaces.nas_rl_space`, whose networks `layer_network` draws.

    Args:
      path: the file to write; its suffix (`.png`, `.svg`, `.pdf`) decides the format.
      about: what the space says of itself.
      arch: the architecture, leaves `[E]`, lists allowed.

    Returns:
      The path.

    Raises:
      UserError: an architecture of another space.

    Example:
      >>> import tempfile
      >>> space = jn.spaces.nasbench201_small_space(4, 10)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     architecture(f"{folder}/cell.svg", space.about, {"cell": [3, 0, 1, 0, 1, 2]}).name
      'cell.svg'
    """
    from matplotlib.figure import Figure

    if about.name == "nas-rl":
        return layer_network(path, about, arch)
    # What is drawn, in the colours of the operations that occur.
    found = panels(about, arch)
    used = {name for panel in found for name in panel.decisions}
    shades = {name: shade for name, shade in colours(found).items() if name in used}
    drawn = [_Graph(panel, shades) if panel.is_cell else _Table(panel, shades) for panel in found]
    legend = shades if any(panel.is_cell for panel in found) else {}  # a table names its rows
    # The picture is as large as its contents: panels below each other, the legend last.
    width = max([one.width for one in drawn] + [_legend_width(legend)]) + 2 * MARGIN
    height = sum(one.height + TITLE for one in drawn) + LEGEND
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    top = height
    for panel, one in zip(found, drawn, strict=True):
        title = f"{panel.title} cell" if panel.is_cell and panel.title != "cell" else panel.title
        axes.text(MARGIN, top - TITLE / 2, title, fontsize=12, fontweight="bold", color=INK, va="center")
        top -= TITLE + one.height
        one.draw(axes, (width - one.width) / 2, top)
    _draw_legend(axes, legend, (width - _legend_width(legend)) / 2, LEGEND / 2)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


class _Graph:
    """A cell as a graph, drawn from its lower left corner."""

    def __init__(self, panel: Panel, shades: dict[str, str]):
        self._panel, self._shades = panel, shades
        self._layout = place(panel, characters=max(map(len, shades), default=0))
        left, low, right, high = self._layout.box
        self._output = right + 0.75 if panel.concatenates else right
        self.width, self.height = self._output + RADIUS - left, high - low

    def draw(self, axes: Any, x: float, y: float) -> None:
        from matplotlib.transforms import Affine2D

        # From the coordinates of the layout to those of the picture; then band, edges and nodes.
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
        from matplotlib.patches import FancyBboxPatch

        # The band around the row of nodes, and an arrow to the output.
        row = self._layout.nodes[self._panel.num_inputs :, 0]
        style = "round,pad=0.12,rounding_size=0.3"
        start, wide = row[0] - RADIUS, row[-1] - row[0] + 2 * RADIUS
        axes.add_patch(
            FancyBboxPatch((start, -RADIUS), wide, 2 * RADIUS, style, fc=BAND, ec="none", transform=self._to, zorder=0)
        )
        ends = (start + wide + 0.12, 0), (self._output - RADIUS, 0)
        self._arrow(axes, PALE, posA=ends[0], posB=ends[1], shrinkA=0, shrinkB=0)
        self._node(axes, (self._output, 0), "c_{k}", alive=True)

    def _edge(self, axes, curve):
        from matplotlib.path import Path as Line

        shade = self._shades[curve.edge.operation]
        self._arrow(axes, shade, path=Line(curve.points), lw=1.4, fill=True, zorder=2)
        box = {"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none"}
        self._text(axes, curve.label, curve.edge.operation, shade, bbox=box, zorder=4)

    def _node(self, axes, centre, name, *, alive):
        from matplotlib.patches import Circle

        line, ink = ("-", INK) if alive else ((0, (2, 2)), PALE)
        axes.add_patch(Circle(centre, RADIUS, fc="white", ec=ink, lw=1.2, ls=line, transform=self._to, zorder=3))
        size = FONT if len(name) < 5 or "{" in name else FONT - 2
        self._text(axes, centre, _label(name), ink, fontsize=size, zorder=5)

    def _arrow(self, axes, color, **shape):
        from matplotlib.patches import FancyArrowPatch

        axes.add_patch(FancyArrowPatch(arrowstyle="-|>", mutation_scale=9, color=color, transform=self._to, **shape))

    def _text(self, axes, centre, text, color, *, fontsize=FONT, **style):
        place = {"ha": "center", "va": "center_baseline", "transform": self._to}
        axes.text(*centre, text, fontsize=fontsize, color=color, **place, **style)


def _label(name: str) -> str:
    """`c_{k-2}` with signs that lie lower, as mathematical typesetting would have it."""
    base, _, lower = name.partition("_{")
    return base + lower.rstrip("}").translate(LOWER)


class _Table:
    """A column per decision, a row per operation, from its lower left corner."""

    def __init__(self, panel: Panel, shades: dict[str, str]):
        self._panel, self._shades = panel, shades
        self._side = min(0.3, max(0.16, 12 / max(1, len(panel.decisions))))
        self._names = CHARACTER * max(len(name) for name in panel.operations) + 0.2
        self.width = self._names + self._side * len(panel.decisions)
        self.height = self._side * (len(panel.operations) + 1)

    def draw(self, axes: Any, x: float, y: float) -> None:
        side, rows = self._side, len(self._panel.operations)
        # A faint dot for every option, a line through the chosen ones, a square on each of them.
        heights = {name: y + side * (rows - i + 0.5) for i, name in enumerate(self._panel.operations)}
        columns = [x + self._names + side * (i + 0.5) for i in range(len(self._panel.decisions))]
        chosen = [heights[name] for name in self._panel.decisions]
        for name, height in heights.items():
            axes.text(x + self._names - 0.14, height, name, fontsize=FONT, color=INK, ha="right", va="center_baseline")
            axes.plot(columns, [height] * len(columns), "o", ms=2.5, color=FAINT, zorder=1)
        axes.plot(columns, chosen, color=FAINT, lw=1.6, zorder=1)
        for i, (column, height, name) in enumerate(zip(columns, chosen, self._panel.decisions, strict=True)):
            axes.plot(column, height, "s", ms=52 * side, color=self._shades.get(name, PALE), zorder=2)
            if i % max(1, round(0.3 / side)) == 0:
                axes.text(column, y + 0.4 * side, str(i), fontsize=FONT - 1.5, color=PALE, ha="center", va="center")


def _legend_width(shades: dict[str, str]) -> float:
    return sum(0.62 + CHARACTER * len(name) for name in shades)


def _draw_legend(axes, shades, x, y):
    for name, shade in shades.items():
        axes.plot([x, x + 0.3], [y, y], color=shade, lw=2.5, solid_capstyle="round")
        axes.text(x + 0.38, y, name, fontsize=FONT, color=INK, va="center_baseline")
        x += 0.62 + CHARACTER * len(name)
