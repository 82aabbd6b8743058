"""Networks of convolutional layers as text: `|3x3 36|3x7 48 from 0|5x5 36 from 0,1|`.

Between two bars stands a layer: height and width of its kernel; behind a slash the strides along rows and columns, if
the space has them; the number of filters that it chose; and the earlier layers that it is connected to. A layer without
`from` reads the image.
"""

import re

from jaxnas.architectures import arch_like
from jaxnas.base import Arch
from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl.decoding import IMAGE, decode
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan

__all__ = ["genotype", "parse"]

KINDS = ("height", "width", "stride_height", "stride_width", "filters")  # in the order of the text
LAYER = re.compile(r"(\d+)x(\d+)(?:/(\d+)x(\d+))? (\d+)(?: from (\d+(?:,\d+)*))?", re.ASCII)


def genotype(plan: LayerPlan, arch: Arch) -> str:
    """The text of an architecture.

    Args:
      plan: settings of the space.
      arch: one integer per decision, leaves `[E]`.

    Raises:
      UserError: an architecture outside of the space.

    Example:
      >>> genotype(LayerPlan(2), {"filters": [1, 2], "height": [1, 1], "skip": [1], "width": [1, 3]})
      '|3x3 36|3x7 48 from 0|'
    """
    texts = []
    for layer in decode(plan, arch).layers:
        strides = "/{}x{}".format(*layer.strides) if plan.strides else ""
        skips = "" if layer.inputs == (IMAGE,) else f" from {','.join(map(str, layer.inputs))}"
        texts.append(f"{layer.height}x{layer.width}{strides} {layer.filters - plan.more_filters}{skips}")
    return f"|{'|'.join(texts)}|"


def parse(plan: LayerPlan, text: str) -> Arch:
    """The architecture of a text, the inverse of `genotype`.

    Args:
      plan: settings of the space.
      text: the text; blanks around the bars do not count.

    Raises:
      UserError: a text of another form or another number of layers, a value that the space does not have, or a layer
        that is connected to itself, to a later one, or twice to the same.
    """
    parts = str(text).strip().removeprefix("|").removesuffix("|").split("|")
    try:
        rows = [_row(plan, i, part.strip()) for i, part in enumerate(parts)]
        if len(rows) != plan.num_layers:
            raise ValueError(f"it has {len(rows)}, for which num_layers must be {len(rows)}")
    except ValueError as error:
        accepted = {kind: ",".join(names) for kind, names in plan.operations.items()}
        strides = "/{stride_height}x{stride_width}" if plan.strides else ""
        form = ("|{height}x{width}" + strides + " {filters} from EARLIER,...|").format(**accepted)
        raise UserError(f"genotype is {text!r}, expected {plan.num_layers} layers as '{form}': {error}") from None
    return arch_like(plan.choices, {kind: [k for row in rows for k in row[kind]] for kind in plan.choices})


def _row(plan: LayerPlan, number: int, text: str) -> dict[str, list[int]]:
    """The decisions of one layer; raises `ValueError` with its number if they cannot be read."""
    layer, match = f"layer {number} is {text!r}", LAYER.fullmatch(text)
    if match is None:
        raise ValueError(layer)
    *values, skips = match.groups()
    row = {"skip": [0] * number}
    for kind, value in zip(KINDS, values, strict=True):
        options = plan.operations.get(kind, (None,))  # a space without strides has none in its texts
        if value not in options:
            raise ValueError(f"{layer}, and its {kind} cannot be {value}")
        row[kind] = [options.index(value)]
    for j in map(int, skips.split(",") if skips else ()):
        if j >= number:
            raise ValueError(f"{layer}, and layer {j} is not an earlier one")
        if row["skip"][j]:
            raise ValueError(f"{layer}, and reads layer {j} twice")
        row["skip"][j] = 1
    return row
