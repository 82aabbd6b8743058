"""From the decisions of NAS-RL's convolutional space to the layers of a network, in plain Python.

Zoph and Le (2017, arXiv 1611.01578), section 3.3. `decode` applies the paper's rules for layers without input and for
outputs that nobody reads; `grids` applies its rule for images of different sizes. The stand-alone network, its exact
counts, its text and its picture all read what these two functions return.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnas.architectures import arch_like
from jaxnas.base import Arch
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan

__all__ = ["IMAGE", "Decoded", "Grids", "Layer", "decode", "grids"]

IMAGE = -1  # the number under which the image stands among the inputs of a layer


class Layer(NamedTuple):
    """One layer of a network.

    Attributes:
      height: rows of the kernel.
      width: columns of the kernel.
      filters: number of filters of each of its convolutions, `more_filters` included.
      strides: steps of the output grid along rows and columns.
      inputs: numbers of the layers whose outputs it reads, ascending, or `(IMAGE,)`.
    """

    height: int
    width: int
    filters: int
    strides: tuple[int, int]
    inputs: tuple[int, ...]


class Decoded(NamedTuple):
    """A network.

    Attributes:
      layers: the layers in the order in which they run.
      outputs: numbers of the layers whose outputs go to the classifier, ascending.
    """

    layers: tuple[Layer, ...]
    outputs: tuple[int, ...]


class Grids(NamedTuple):
    """Sizes `(rows, columns)` of the images in a network.

    Attributes:
      read: for each layer the size of its concatenated inputs.
      written: for each layer the size of its output.
      classified: the size of the concatenated outputs before the classifier.
    """

    read: tuple[tuple[int, int], ...]
    written: tuple[tuple[int, int], ...]
    classified: tuple[int, int]


def decode(plan: LayerPlan, arch: Arch) -> Decoded:
    """The network of an architecture.

    Rule 1: a layer that is connected to no earlier one reads the image. Rule 2: the outputs that no layer reads all go
    to the classifier; that of the last layer is always among them.

    Args:
      plan: settings of the space.
      arch: one integer per decision, leaves `[E]`.

    Raises:
      UserError: an architecture outside of the space.

    Example:
      >>> plan = LayerPlan(num_layers=2)
      >>> decode(plan, {"filters": [1, 2], "height": [1, 1], "skip": [0], "width": [1, 3]}).layers[1]
      Layer(height=3, width=7, filters=48, strides=(1, 1), inputs=(-1,))

    References:
      Zoph and Le, 2017, arXiv 1611.01578, section 3.3.
    """
    arch = {kind: leaf.tolist() for kind, leaf in arch_like(plan.choices, arch).items()}
    steps = plan.strides or (1,)
    down, across = (arch.get(kind, [0] * plan.num_layers) for kind in ("stride_height", "stride_width"))
    layers = []
    for i in range(plan.num_layers):
        row = i * (i - 1) // 2  # of the connection to layer 0
        chosen = tuple(j for j in range(i) if arch["skip"][row + j])
        layers.append(
            Layer(
                height=plan.kernels[arch["height"][i]],
                width=plan.kernels[arch["width"][i]],
                filters=plan.filters[arch["filters"][i]] + plan.more_filters,
                strides=(steps[down[i]], steps[across[i]]),
                inputs=chosen or (IMAGE,),  # rule 1
            )
        )
    read = {j for layer in layers for j in layer.inputs}
    return Decoded(tuple(layers), tuple(j for j in range(plan.num_layers) if j not in read))  # rule 2


def grids(plan: LayerPlan, network: Decoded, height: int, width: int) -> Grids:
    """The sizes of all images in a network.

    Rule 3: inputs of different sizes are padded with zeros, below and at the right, to the largest height and the
    largest width among them. A pooling halves, rounding up, everything that is read beyond it.

    Args:
      plan: settings of the space.
      network: the layers, from `decode`.
      height: rows of the image.
      width: columns of the image.

    Example:
      >>> plan = LayerPlan(num_layers=2, pooling=(1,))
      >>> network = decode(plan, {"filters": [0, 0], "height": [0, 0], "skip": [1], "width": [0, 0]})
      >>> grids(plan, network, 9, 8).written
      ((9, 8), (5, 4))
    """
    sizes = {IMAGE: (height, width)}
    read = []

    def largest(inputs: Sequence[int], reader: int) -> tuple[int, int]:
        # Behind the poolings between writer and reader, then rule 3.
        behind = []
        for j in inputs:
            factor = 2 ** (plan.stage(reader) - (0 if j == IMAGE else plan.stage(j)))
            behind.append([math.ceil(side / factor) for side in sizes[j]])
        rows, columns = np.max(behind, 0).tolist()
        return rows, columns

    for i, layer in enumerate(network.layers):
        read.append(largest(layer.inputs, i))
        (rows, columns), (down, across) = read[i], layer.strides
        sizes[i] = -(-rows // down), -(-columns // across)
    classified = largest(network.outputs, plan.num_layers)
    return Grids(tuple(read), tuple(sizes[i] for i in range(plan.num_layers)), classified)
