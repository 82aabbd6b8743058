"""What there is to draw of an architecture: panels of nodes and edges, and their Graphviz text."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.base import About, Arch
from jaxnas.errors import UserError

__all__ = ["COLOURS", "Edge", "Panel", "colours", "dot", "panels"]

# Told apart by eye in print, on screen and with the common kinds of colour blindness; dark enough for small text.
COLOURS = ("#2f6db3", "#d9650b", "#2e8b3d", "#c0392b", "#7b52a8", "#0f8b8d", "#8a5a2b", "#c2408f", "#5f6b7a", "#a08a00")


class Edge(NamedTuple):
    """An edge of a cell whose operation is not `none`: its nodes by number, and the operation's name."""

    source: int
    target: int
    operation: str


class Panel(NamedTuple):
    """What there is to draw of one kind of cell, or of a space that has none.

    Attributes:
      title: the heading that people read.
      decisions: the name of the operation chosen at each decision.
      operations: the names of the candidates, which all decisions share.
      edges: the edges whose operation is not `none`; empty for a space that is no graph.
      names: the names of the nodes in order; empty for a space that is no graph.
      num_inputs: number of inputs, which are the first nodes.
      concatenates: whether the output joins all nodes that are not inputs; otherwise it is the last node.
    """

    title: str
    decisions: tuple[str, ...]
    operations: tuple[str, ...]
    edges: tuple[Edge, ...]
    names: tuple[str, ...]
    num_inputs: int
    concatenates: bool

    @property
    def is_cell(self) -> bool:
        """Whether nodes have several edges to choose from; a chain of decisions is better drawn as a table."""
        return len(self.names) > 0 and len(self.decisions) > len(self.names) - self.num_inputs


def panels(about: About, arch: Arch) -> list[Panel]:
    """Reads an architecture, one panel per leaf.

    Args:
      about: what the space says of itself. Without `operations` these are named by their numbers, without `edges`
        there is no graph.
      arch: the architecture, leaves `[E]`, lists allowed.

    Raises:
      UserError: an architecture that does not fit the names or the edges.

    Example:
      >>> about = About(operations={"cell": ("none", "conv")}, edges={"cell": ((0, 1), (0, 2), (1, 2))})
      >>> panels(about, {"cell": [1, 0, 1]})[0].edges
      (Edge(source=0, target=1, operation='conv'), Edge(source=1, target=2, operation='conv'))
    """
    arch = jax.tree.map(np.asarray, arch, is_leaf=lambda node: isinstance(node, list))
    found: list[Panel] = []

    def add(path, leaf, operations, edges):
        found.append(_panel(about, path, leaf, operations, edges))

    # Leaf by leaf, with None for the names or edges of a space that has none.
    nothing = jax.tree.map(lambda _: None, arch)
    fields = [nothing if field is None else field for field in (about.operations, about.edges)]
    try:
        jax.tree_util.tree_map_with_path(add, arch, *fields)
    except ValueError as error:
        raise UserError(f"arch: not of space {about.name!r}: {error}") from None
    return found


def _panel(about: About, path: Any, leaf: np.ndarray, operations: Any, edges: Any) -> Panel:
    title = jax.tree_util.keystr(path, simple=True, separator=" ") or about.name
    chosen = [int(k) for k in leaf.reshape(-1)]
    # Operations without names are numbered.
    names = tuple(str(k) for k in range(1 + max(chosen, default=0))) if operations is None else tuple(operations)
    if (edges is not None and len(edges) != len(chosen)) or not all(0 <= k < len(names) for k in chosen):
        raise UserError(f"{title} is {chosen}")
    decisions = tuple(str(names[k]) for k in chosen)
    if edges is None:
        return Panel(title, decisions, names, (), (), 0, False)
    # Nodes that no edge enters are inputs.
    nodes = 1 + max(target for _, target in edges)
    num_inputs = nodes - len({target for _, target in edges})
    drawn = tuple(Edge(s, t, name) for (s, t), name in zip(edges, decisions, strict=True) if name != "none")
    return Panel(title, decisions, names, drawn, _node_names(nodes, num_inputs), num_inputs, num_inputs > 1)


def _node_names(nodes: int, num_inputs: int) -> tuple[str, ...]:
    """Names of the nodes: from `input` to `output`, or with several inputs `c_{k-2}`, `c_{k-1}`, 0, 1, ..."""
    if num_inputs == 1:
        return ("input", *(str(node) for node in range(1, nodes - 1)), "output")
    before = tuple(f"c_{{k-{num_inputs - i}}}" for i in range(num_inputs))
    return before + tuple(str(node) for node in range(nodes - num_inputs))


def colours(found: list[Panel]) -> dict[str, str]:
    """A colour for every operation of a list of panels but `none`, in the order of the operations."""
    names = dict.fromkeys(str(name) for panel in found for name in panel.operations)
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(name for name in names if name != "none")}


def dot(about: About, arch: Arch) -> str:
    """An architecture as a Graphviz graph, one cluster per kind of cell; edges with operation `none` are left out.

    Args:
      about: what the space says of itself. Without `edges` the decisions become the rows of a box.
      arch: the architecture, leaves `[E]`, lists allowed.

    Returns:
      A text for `dot -Tsvg`; an architecture has one text.

    Raises:
      UserError: an architecture of another space.

    Example:
      >>> space = jn.spaces.nasbench201_small_space(4, 10)
      >>> "nor_conv_3x3" in dot(space.about, {"cell": [3, 0, 1, 0, 1, 2]})
      True
    """
    found = panels(about, arch)
    shades = colours(found)
    lines = [f"digraph {_quoted(about.name)} {{", "  rankdir=LR;", "  node [shape=circle];"]
    for panel in found:
        body = _dot_graph(panel, shades) if panel.names else _dot_box(panel)
        lines += [f"  subgraph {_quoted('cluster_' + panel.title)} {{", f"    label={_quoted(panel.title)};"]
        lines += [f"    {line};" for line in body] + ["  }"]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_graph(panel: Panel, shades: dict[str, str]) -> list[str]:
    ids = [_quoted(f"{panel.title}/{name}") for name in panel.names]
    lines = [f"{ids[node]} [label={_quoted(name)}]" for node, name in enumerate(panel.names)]
    for source, target, operation in panel.edges:
        look = f'label={_quoted(operation)}, color="{shades[operation]}"'
        lines.append(f"{ids[source]} -> {ids[target]} [{look}]")
    # The output joins all nodes but the inputs.
    if panel.concatenates:
        output = _quoted(f"{panel.title}/c_{{k}}")
        lines.append(f'{output} [label="c_{{k}}"]')
        lines += [f"{node} -> {output} [style=dashed]" for node in ids[panel.num_inputs :]]
    return lines


def _dot_box(panel: Panel) -> list[str]:
    rows = "|".join(f"{i}: {name}" for i, name in enumerate(panel.decisions))
    return [f"{_quoted(panel.title)} [shape=record, label={_quoted(rows)}]"]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
