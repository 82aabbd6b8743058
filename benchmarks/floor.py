"""The least time a program can take on a device: its floating-point work, and the memory that it has to touch.

Work is counted on the traced program, so nothing is compiled: convolutions, products, window operations and reductions
read their inputs and write their results once; everything elementwise is taken to be fused into them, free of charge.
Where arrays fit into a cache, or several operations into one pass, a program can be faster than this floor of bytes.
"""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

# Besides products and convolutions, what cannot be fused: the beginnings of its primitives' names.
_MEMORY = ("reduce_", "select_and", "cumsum", "sort", "gather", "scatter", "dynamic_update_slice", "concatenate")


class Work(NamedTuple):
    """Floating-point operations, and bytes read and written."""

    flops: float
    bytes: float

    def __add__(self, other):
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, factor):
        return Work(self.flops * factor, self.bytes * factor)


class Peaks(NamedTuple):
    """What the device reaches: floating-point operations and bytes per second."""

    flops: float
    bytes: float


def count(function, *args) -> Work:
    """The work of `function(*args)`; a conditional counts as the mean of its branches."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> Work:
    """The work of a traced program and of those inside of it."""
    total = Work(0.0, 0.0)
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = [jaxpr for value in equation.params.values() for jaxpr in _jaxprs(value)]
        if name == "cond":  # every branch is taken equally often
            total += sum(map(_count, inner), Work(0.0, 0.0)) * (1 / len(inner))
        elif name == "scan":
            total += _count(inner[0]) * equation.params["length"]
        elif inner:  # of a custom derivative only the function itself, which comes first
            total += _count(inner[0])
        else:
            total += Work(_flops(equation), _bytes(equation))
    return total


def _jaxprs(value):
    """The programs among the parameters of an equation."""
    for item in value if isinstance(value, tuple | list) else (value,):
        if isinstance(item, ClosedJaxpr):
            yield item.jaxpr
        elif isinstance(item, Jaxpr):
            yield item


def _flops(equation) -> float:
    """The floating-point operations of one equation, a multiply-add counted as two."""
    name, out = equation.primitive.name, equation.outvars[0].aval
    shapes = [var.aval.shape for var in equation.invars]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * out.size * math.prod(shapes[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        features = equation.params["dimension_numbers"].rhs_spec[0]  # a kernel is used once for each of its outputs
        return 2.0 * out.size * math.prod(shapes[1]) / shapes[1][features]
    if name.startswith("reduce_window"):
        return float(out.size * math.prod(equation.params["window_dimensions"]))
    return float(getattr(out, "size", 0))


def _bytes(equation) -> float:
    """The bytes that one equation reads and writes; none if it is fused into another one."""
    name = equation.primitive.name
    if name not in ("dot_general", "conv_general_dilated") and not name.startswith(_MEMORY):
        return 0.0
    values = [var.aval for var in (*equation.invars, *equation.outvars)]
    return float(sum(value.size * value.dtype.itemsize for value in values if hasattr(value, "size")))


def peaks(dtype: str = "float32", seconds: float = 0.5) -> Peaks:
    """The peaks of this device, measured on a product of square matrices and on a sum of arrays that no cache holds.

    The sum goes back into its argument: into a new array it would measure how fast the system hands out pages, which is
    seven times less on a CPU.

    Args:
      dtype: the type of the matrices.
      seconds: how long each of the two is repeated.
    """
    side = 2048 if jax.default_backend() == "cpu" else 8192
    matrix, vector = jnp.ones((side, side), dtype), jnp.ones((1 << 26,), jnp.float32)
    product = _rate(jax.jit(lambda a, b: a @ b), matrix + 0, matrix, seconds) * 2.0 * side**3
    traffic = _rate(jax.jit(lambda a, b: a + b, donate_argnums=0), vector + 0, vector, seconds) * 3.0 * vector.nbytes
    return Peaks(product, traffic)


def _rate(function, state, other, seconds: float) -> float:
    """How often per second `state = function(state, other)` runs."""
    state = jax.block_until_ready(function(state, other))
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        state = jax.block_until_ready(function(state, other))
        calls += 1
    return calls / (time.perf_counter() - start)
