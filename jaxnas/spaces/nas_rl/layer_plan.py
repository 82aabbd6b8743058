"""The settings of NAS-RL's convolutional space, checked, and the decisions that they leave open."""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxnas.base import Tree
from jaxnas.dtypes import compute_dtype, wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops import Lowering, by_hand
from jaxnas.spaces.parts.checks import at_least_one, reference_examples

__all__ = ["ORDERS", "LayerPlan"]

ORDERS = ("conv_bn_relu", "conv_relu_bn")


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """The settings of a space of convolutional layers; `nas_rl_space` says what each of them means.

    Attributes:
      num_layers: number of layers `L` that the controller predicts, at least 1.
      num_classes: number of logits.
      filters: the numbers of filters from which a layer chooses.
      kernels: the heights, and the widths, from which a layer chooses those of its kernel; odd.
      strides: the strides from which a layer chooses one for rows and one for columns; None for stride 1 everywhere.
      order: `"conv_bn_relu"` or `"conv_relu_bn"`.
      pooling: after how many layers each maximum pooling stands, ascending; those that stand after the last layer or
        beyond it are left out.
      convolutions: number of convolutions in the densely connected block that each layer stands for.
      more_filters: number of filters that every layer has beside those that it chose.
      reference: number of examples at the head of a batch that give the statistics of normalisation; 0 for all.
      dtype: name of the type of the computation.
      lowering: how operations are written for the backend, see `jaxnas.ops.lowering`.
    """

    num_layers: int = 6
    num_classes: int = 10
    filters: tuple[int, ...] = (24, 36, 48, 64)
    kernels: tuple[int, ...] = (1, 3, 5, 7)
    strides: tuple[int, ...] | None = None
    order: str = "conv_bn_relu"
    pooling: tuple[int, ...] = ()
    convolutions: int = 1
    more_filters: int = 0
    reference: int = 0
    dtype: str = "float32"
    lowering: Lowering = "auto"

    def __post_init__(self):
        """Checks every setting."""
        at_least_one(self, ("num_layers", "num_classes", "convolutions"))
        for name in ("filters", "kernels", "strides"):
            if getattr(self, name) is not None:
                _options(name, getattr(self, name))
        if not all(side % 2 for side in self.kernels):
            raise UserError(f"kernels must be odd, got {list(self.kernels)}")
        if self.order not in ORDERS:
            raise UserError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if any(after < 1 for after in self.pooling) or list(self.pooling) != sorted(set(self.pooling)):
            raise UserError(f"pooling needs ascending numbers of layers, at least 1, got {list(self.pooling)}")
        if self.more_filters < 0:
            raise UserError(f"more_filters must be at least 0, got {self.more_filters}")
        reference_examples(self.reference)
        compute_dtype(self.dtype)
        by_hand(self.lowering)  # raises `UserError` for an unknown one

    @property
    def operations(self) -> dict[str, tuple[str, ...]]:
        """The names of the options of each kind of decision, like `choices`."""
        sides = tuple(map(str, self.kernels))
        found = {"filters": tuple(map(str, self.filters)), "height": sides, "width": sides}
        if self.strides is not None:
            found |= dict.fromkeys(("stride_height", "stride_width"), tuple(map(str, self.strides)))
        if self.num_layers > 1:
            found["skip"] = ("none", "connect")
        return dict(sorted(found.items()))

    @property
    def choices(self) -> Tree:
        """The decisions as in `SearchSpace.choices`: a row for each layer, and in `"skip"` one for each two layers."""
        pairs = self.num_layers * (self.num_layers - 1) // 2
        return {
            kind: jax.ShapeDtypeStruct((pairs if kind == "skip" else self.num_layers, len(names)), self.wide)
            for kind, names in self.operations.items()
        }

    @property
    def wide(self) -> np.dtype:
        """The type of weights and logits."""
        return wide_dtype(compute_dtype(self.dtype))

    def stage(self, layer: int) -> int:
        """The number of poolings between the image and a layer.

        The classifier stands behind as many poolings as the last layer; `layer=num_layers` asks for it.
        """
        return sum(after <= min(layer, self.num_layers - 1) for after in self.pooling)


def _options(name: str, values: Any) -> None:
    """Raises `UserError` unless there are two or more different whole numbers of at least one."""
    fits = all(isinstance(value, int) and value >= 1 for value in values)
    if len(values) < 2 or len(set(values)) < len(values) or not fits:
        raise UserError(f"{name} needs two or more different whole numbers of at least 1, got {list(values)}")
