"""A convolutional network of NAS-RL as a picture: its layers in a row, and an arch for every skip connection.

All lengths are inches: the picture is one set of axes in which a unit is an inch.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.base import About, Arch
from jaxnas.plot.graph import COLOURS
from jaxnas.plot.layout import FONT, INK, MARGIN, PALE
from jaxnas.spaces.nas_rl.decoding import IMAGE, decode
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan
from jaxnas.spaces.nas_rl.layers import plan_of

__all__ = ["Arrow", "arrows", "layer_network"]

SIDE, GAP = 0.66, 0.42  # width and height of a box, and the distance to the next
LOWEST, RISE = 0.34, 0.17  # height of the arch over one box, and by how much it grows with every further one


class Arrow(NamedTuple):
    """A connection between two boxes, which stand at the places 0, 1, ... of the row.

    Attributes:
      source: place of the box that it leaves: 0 for the image, `i + 1` for layer `i`.
      target: place of the box that it enters; the classifier stands behind the last layer.
      points: `[n, 2]`, its way; the centres of the boxes have the height 0.
    """

    source: int
    target: int
    points: np.ndarray


def arrows(pairs: list[tuple[int, int]]) -> list[Arrow]:
    """The ways of all connections: straight between neighbours, and arches above the row for the others.

    Arches leave a box in the right half of its upper side and enter one in the left half; on both sides the longer
    stand nearer to the middle, so that two arches with a common end do not cross.

    Args:
      pairs: source and target of each connection, places in the row.

    Example:
      >>> [arrow.points.shape for arrow in arrows([(0, 1), (0, 2)])]
      [(2, 2), (60, 2)]
    """
    arches = [pair for pair in pairs if pair[1] - pair[0] > 1]
    found = []
    for source, target in pairs:
        start, end = source * (SIDE + GAP), target * (SIDE + GAP)
        if target - source == 1:
            found.append(Arrow(source, target, np.array([[start + SIDE / 2, 0.0], [end - SIDE / 2, 0.0]])))
            continue
        # Where the arch stands among those that leave the one box, and those that enter the other.
        leaving = sorted((t for s, t in arches if s == source), reverse=True)
        entering = sorted(s for s, t in arches if t == target)
        start += SIDE / 2 * (leaving.index(target) + 1) / (len(leaving) + 1)
        end -= SIDE / 2 * (entering.index(source) + 1) / (len(entering) + 1)
        # Half an ellipse.
        angle = np.linspace(np.pi, 0, 60)
        height = LOWEST + RISE * (target - source - 2)
        x = (start + end) / 2 + (end - start) / 2 * np.cos(angle)
        found.append(Arrow(source, target, np.stack([x, SIDE / 2 + height * np.sin(angle)], 1)))
    return found


def layer_network(path: str | Path, about: About, arch: Arch) -> Path:
    """Draws the network of an architecture of `jaxnas.spaces.nas_rl_space` with all of its connections.

    A box names the kernel and the number of filters of a layer, and its strides if they are predicted. Connections
    have the colour of the layer that they leave; those into the classifier are the outputs that no layer reads.

    Args:
      path: the file to write; its suffix (`.png`, `.svg`, `.pdf`) decides the format.
      about: what the space says of itself.
      arch: one integer per decision, leaves `[E]`.

    Returns:
      The path.

    Raises:
      UserError: another space, or an architecture outside of it.

    Example:
      >>> import tempfile
      >>> space = jn.spaces.nas_rl.nas_rl_space(3)
      >>> arch = space.about.parse("|3x3 36|3x7 48 from 0|5x5 36 from 0,1|")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     layer_network(f"{folder}/network.svg", space.about, arch).name
      'network.svg'
    """
    from matplotlib.figure import Figure

    plan = plan_of(about)
    network = decode(plan, arch)
    boxes = _boxes(plan, network.layers)
    pairs = [(j + 1, i + 1) for i, layer in enumerate(network.layers) for j in layer.inputs]
    ways = arrows(pairs + [(j + 1, len(boxes) - 1) for j in network.outputs])
    # The picture is as large as the row and its highest arch.
    top = max(arrow.points[:, 1].max() for arrow in ways) + MARGIN
    width, low = len(boxes) * (SIDE + GAP) - GAP + 2 * MARGIN, -SIDE / 2 - MARGIN - 0.2
    figure = Figure(figsize=(width, top - low), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-SIDE / 2 - MARGIN, width - SIDE / 2 - MARGIN), ylim=(low, top))
    axes.axis("off")
    for arrow in ways:
        _draw_arrow(axes, arrow)
    for place, lines in enumerate(boxes):
        _draw_box(axes, place * (SIDE + GAP), lines, str(place - 1) if 0 < place < len(boxes) - 1 else "")
    for after in plan.pooling:
        if after < plan.num_layers:
            x = (after + 0.5) * (SIDE + GAP)
            axes.plot([x, x], [-SIDE / 2, SIDE / 2], color=PALE, lw=1.2, ls=(0, (3, 2)), zorder=1)
            axes.text(x, -SIDE / 2 - 0.13, "pool", fontsize=FONT - 1.5, color=PALE, ha="center", va="center")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _boxes(plan: LayerPlan, layers: Any) -> list[tuple[str, ...]]:
    """The lines of text in each box: image, layers, classifier."""
    found: list[tuple[str, ...]] = [("image",)]
    for layer in layers:
        kernel = f"{layer.height}×{layer.width}"
        strides = ("by {}×{}".format(*layer.strides),) if plan.strides else ()
        filters = f"{plan.convolutions}·{layer.filters}" if plan.convolutions > 1 else str(layer.filters)
        found.append((kernel, *strides, filters))
    return [*found, ("classes",)]


def _draw_arrow(axes: Any, arrow: Arrow) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    shade = PALE if arrow.source == IMAGE + 1 else COLOURS[(arrow.source - 1) % len(COLOURS)]
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "lw": 1.2, "fill": True}
    # Only the head is filled: without a colour of its own an arch would be a filled shape.
    axes.add_patch(FancyArrowPatch(path=Line(arrow.points), color=shade, zorder=2, **style))


def _draw_box(axes: Any, x: float, lines: tuple[str, ...], number: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner, side = (x - SIDE / 2 + 0.06, -SIDE / 2 + 0.06), SIDE - 0.12
    axes.add_patch(FancyBboxPatch(corner, side, side, "round,pad=0.06", fc="white", ec=INK, lw=1.1, zorder=3))
    text: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
    for row, line in enumerate(lines):
        axes.text(x, 0.19 * ((len(lines) - 1) / 2 - row), line, fontsize=FONT, color=INK, **text)
    axes.text(x, -SIDE / 2 - 0.13, number, fontsize=FONT - 1.5, color=PALE, **text)
