"""Which cells of NAS-Bench-201 are the same function of their input and their weights, up to the names of edges.

A node is a sum, `skip_connect` and `avg_pool_3x3` are linear, `none` is zero; so a cell is a sum of terms, each the
input or the output of a convolution, pooled some number of times. Two cells are equivalent when their sums are equal
after a renaming of the convolutions. Convolutions from which nothing reaches the output do not count; one that sees
zeros does, since the normalisation after it has a learned offset.
"""

import collections
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from jaxnas.spaces.nasbench201.network import EDGES, OPERATIONS

__all__ = ["all_cells", "canonical_form", "representatives"]

INPUT = -1  # the name of the cell's input among those of convolutions, which are numbers of edges
Sum = tuple[tuple[tuple[int, int], int], ...]  # sorted ((source, times pooled), how often)


def all_cells() -> np.ndarray:
    """Every cell in the order of counting, the last edge fastest: int32 `[15625, 6]`."""
    return np.indices((len(OPERATIONS),) * len(EDGES), np.int32).reshape(len(EDGES), -1).T


def canonical_form(cell: Sequence[int]) -> tuple:
    """The same tuple for equivalent cells, and for no others.

    Args:
      cell: six operations.
    """
    # Colours tell most convolutions apart; those of one colour are renamed in every order, and the least form wins.
    output, convolutions = _sums(cell)
    live = _live(output, convolutions)
    colours = _colours(live, convolutions)
    # Convolutions in groups of one colour.
    classes: dict[tuple, list[int]] = collections.defaultdict(list)
    for name in live:
        classes[colours[name]].append(name)
    groups = [classes[colour] for colour in sorted(classes)]
    # The form under every order of the convolutions of one colour.
    forms = []
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        names = {name: number for number, name in enumerate(itertools.chain(*orders))}
        rename = functools.partial(_renamed, names | {INPUT: INPUT})
        forms.append((rename(output), tuple((convolutions[name][0], rename(convolutions[name][1])) for name in names)))
    return min(forms)


def representatives() -> np.ndarray:
    """The number of the first cell that each cell of `all_cells` is equivalent to: int32 `[15625]`."""
    first: dict[tuple, int] = {}
    return np.array(
        [first.setdefault(canonical_form(cell), i) for i, cell in enumerate(all_cells().tolist())], np.int32
    )


def _sums(cell: Sequence[int]) -> tuple[Sum, dict[int, tuple[str, Sum]]]:
    """The output, and of every convolution its kind and its input."""
    # Terms of every node; in the order of EDGES a source is complete before it is read.
    nodes = [collections.Counter({(INPUT, 0): 1}), *(collections.Counter() for _ in range(3))]
    convolutions = {}
    for edge, (source, target) in enumerate(EDGES):
        name, given = OPERATIONS[cell[edge]], nodes[source]
        if name == "skip_connect":  # linear: terms pass, and a pool counts one more
            nodes[target].update(given)
        elif name == "avg_pool_3x3":
            nodes[target].update({(term, times + 1): count for (term, times), count in given.items()})
        elif name != "none":
            convolutions[edge] = name, tuple(sorted(given.items()))
            nodes[target].update({(edge, 0): 1})
    return tuple(sorted(nodes[3].items())), convolutions


def _live(output: Sum, convolutions: dict[int, tuple[str, Sum]]) -> list[int]:
    """The convolutions that the output depends on."""
    found, waiting = set(), [output]
    while waiting:
        for (name, _), _ in waiting.pop():
            if name != INPUT and name not in found:
                found.add(name)
                waiting.append(convolutions[name][1])
    return sorted(found)


def _colours(live: list[int], convolutions: dict[int, tuple[str, Sum]]) -> dict[int, tuple]:
    """What a convolution computes, its weights aside; edges are numbered so that inputs come before."""
    colours: dict[int, tuple] = {INPUT: ()}
    for name in live:
        kind, given = convolutions[name]
        terms = sorted((colours[source], times, count) for (source, times), count in given)
        colours[name] = kind, tuple(terms)
    return colours


def _renamed(names: dict[int, int], terms: Sum) -> Sum:
    return tuple(sorted(((names[source], times), count) for (source, times), count in terms))
