"""Pictures of architectures and of the course of a search; only scripts import this.

matplotlib, which the extra `plot` brings, is imported when a picture is drawn; `dot` needs nothing.
"""

from jaxnas.plot._architecture import architecture
from jaxnas.plot._curves import curves
from jaxnas.plot._layer_network import layer_network
from jaxnas.plot.cell_tree import cell_tree
from jaxnas.plot.graph import dot
from jaxnas.plot.searches import fronts, history, points, progress, top_means

__all__ = [
    "architecture",
    "cell_tree",
    "curves",
    "dot",
    "fronts",
    "history",
    "layer_network",
    "points",
    "progress",
    "top_means",
]
