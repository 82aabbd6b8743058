"""Recurrent cells and a network that the paper published, as genotypes: facts to retrain and to test against.

`recurrent_cell_space(base).about.parse(PUBLISHED[name])` gives the architecture of a cell, and
`nas_rl_space(num_layers).about.parse(PUBLISHED_NETWORKS[name])` that of a network.
"""

__all__ = ["PUBLISHED", "PUBLISHED_NETWORKS"]

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

PUBLISHED_NETWORKS = {
    # The network of 15 layers without strides or pooling, the first of NAS-RL's in table 1 of arXiv 1611.01578.
    "nas_rl_v1": (
        "|3x3 36|3x3 48 from 0|3x3 36 from 0,1|5x5 36 from 0,1,2|3x7 48 from 2,3|7x7 48 from 1,2,3,4"
        "|7x7 48 from 1,2,3,4,5|7x3 36 from 0,5,6|7x1 36 from 0,4,5,7|7x7 36 from 0,2,3,4,5,6,7,8"
        "|5x7 36 from 0,1,4,5,6,7,8,9|7x7 48 from 0,1,2,3,5,10|7x5 48 from 0,2,5,6,7,8,9,10,11|7x5 48 from 2,6,11,12"
        "|7x5 48 from 6,10,11,12,13|"
    ),
}
