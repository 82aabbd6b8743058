"""The settings of NAS-RL's convolutional space, checked, and the decisions that they leave open."""

import dataclasses
import operator
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
      more_filters: number of filters added to each convolution's chosen number.
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
        """Checks every setting, and makes its numbers plain integers and its sequences tuples."""
        for name in ("num_layers", "num_classes", "convolutions", "more_filters", "reference"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        at_least_one(self, ("num_layers", "num_classes", "convolutions"))
        for name in ("filters", "kernels", "strides"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _options(name, getattr(self, name)))
        if not all(side % 2 for side in self.kernels):
            raise UserError(f"kernels must be odd, got {list(self.kernels)}")
        if self.order not in ORDERS:
            raise UserError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        pooling = _integers(self.pooling)
        if pooling is None or any(after < 1 for after in pooling) or list(pooling) != sorted(set(pooling)):
            raise UserError(f"pooling needs ascending whole numbers of layers, at least 1, got {_shown(self.pooling)}")
        object.__setattr__(self, "pooling", pooling)
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


def _options(name: str, values: Any) -> tuple[int, ...]:
    """The options of a decision; raises `UserError` unless they are two or more different integers above zero."""
    options = _integers(values)
    if options is None or len(options) < 2 or len(set(options)) < len(options) or min(options) < 1:
        raise UserError(f"{name} needs two or more different whole numbers of at least 1, got {_shown(values)}")
    return options


def _whole(name: str, value: Any) -> int:
    """A number of any integer type as a plain one; raises `UserError` for another."""
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be a whole number, got {value!r}") from None


def _integers(values: Any) -> tuple[int, ...] | None:
    """A sequence of integers of any integer type as a tuple of plain ones; None for anything else."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        return None


def _shown(values: Any) -> str:
    """How a message shows a setting that should have been a sequence."""
    return str(list(values)) if isinstance(values, tuple | list) else repr(values)
