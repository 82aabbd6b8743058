"""Recurrent cells that the paper published, as genotypes: facts to retrain and to test against.

`recurrent_cell_space(base).about.parse(PUBLISHED[name])` gives the architecture.
"""

__all__ = ["PUBLISHED"]

PUBLISHED = {
    # The worked example of arXiv 1611.01578, section 3.4: base 2.
    "worked_example": "add tanh, elem_mult relu | elem_mult sigmoid | inject add relu | index 1 0",
    # The cell found on Penn Treebank, which libraries have as NASCell: base 8.
    "nascell": (
        "add sigmoid, add relu, add sigmoid, elem_mult relu, add tanh, add sigmoid, add tanh, add sigmoid | "
        "elem_mult tanh, add tanh, elem_mult tanh, add sigmoid, elem_mult identity, add tanh, elem_mult tanh | "
        "inject add tanh | index 12 8"
    ),
}
