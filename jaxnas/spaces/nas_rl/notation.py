"""Recurrent cells as text: `add tanh, elem_mult relu | elem_mult sigmoid | inject add relu | index 1 0`.

Combination and activation of the leaves, then of the inner nodes up to the root, then of the cell inject; last the two
cell indices, the node whose sum or product becomes the memory and the node that takes the memory in.
"""

from collections.abc import Sequence

from jaxnas.base import Arch
from jaxnas.errors import UserError

__all__ = ["genotype", "parse"]


def genotype(arch: Arch, combinations: Sequence[str], activations: Sequence[str]) -> str:
    """The text of an architecture whose leaves are arrays."""
    pairs = zip(arch["combination"].tolist(), arch["activation"].tolist())
    *nodes, inject = [f"{combinations[c]} {activations[a]}" for c, a in pairs]
    base = (len(nodes) + 1) // 2
    memory, place = arch["index"].tolist()
    return f"{', '.join(nodes[:base])} | {', '.join(nodes[base:])} | inject {inject} | index {memory} {place}"


def parse(text: str, base: int, combinations: Sequence[str], activations: Sequence[str]) -> Arch:
    """The architecture of a text, with lists as leaves.

    Raises:
      UserError: a text of another form, of another number of nodes, or with unknown operations.
    """
    groups = [group.split(",") for group in str(text).split("|")]
    words = [[entry.split() for entry in group] for group in groups]
    try:
        leaves, inner, [[inject, *last]], [[index, memory, place]] = words
        pairs = [(combinations.index(c), activations.index(a)) for c, a in [*leaves, *inner, last]]
        fits = (len(leaves), len(inner), inject, index) == (base, base - 1, "inject", "index")
        indices = [int(memory), int(place)]
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"genotype is {text!r}, expected {base} leaves and {base - 1} inner nodes as 'COMBINATION ACTIVATION, ... "
            f"| ... | inject COMBINATION ACTIVATION | index NODE NODE' of {', '.join([*combinations, *activations])}"
        )
    return {"combination": [c for c, _ in pairs], "activation": [a for _, a in pairs], "index": indices}
