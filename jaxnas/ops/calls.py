"""Functions that XLA:CPU compiles on their own, fusing nothing into them and nothing out of them.

XLA:CPU fuses a long sum, such as the taps of a depthwise convolution, into whatever consumes it. Several such sums in
one loop no longer vectorise, and a consumer that reads them more than once computes them again: measured, seven to
thirty times slower. A call that stays a call prevents that, and compiles faster. The attribute `inlineable` is XLA's
own; where a version ignores it, the call is inlined and only the speed differs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

__all__ = ["barrier", "not_inlined", "recomputed"]


def not_inlined(function: Callable[..., Any], static: tuple[int, ...] = ()) -> Callable[..., Any]:
    """`function` of arrays as a call that is not inlined on CPU; on another backend an ordinary call.

    Args:
      function: takes arrays.
      static: positions of arguments that are hashable constants.
    """

    @functools.partial(jax.jit, static_argnums=static)
    def inner(*args):
        with set_xla_metadata(inlineable=None):  # the calls inside are inlined into this one as usual
            return function(*args)

    @functools.wraps(function)
    def outer(*args):
        if jax.default_backend() != "cpu":
            return function(*args)
        with set_xla_metadata(inlineable="false"):
            return inner(*args)

    return outer


def barrier(residuals: Any) -> Any:
    """The residuals of a `custom_vjp`, as values that are not the arguments of the function itself.

    jax 0.10 passes residuals that are the function's own arguments by position, and loses count of them in a second
    reverse pass through `scan` and nested calls: a wrong gradient, or an error. The barrier costs nothing.
    """
    return jax.lax.optimization_barrier(residuals)


def recomputed(function: Callable[..., Any], orders: int = 2) -> Callable[..., Any]:
    """`function` as two separately compiled calls; the backward call keeps only the arguments and recomputes the rest.

    In a scan everything that is kept for the backward pass is written to stacked arrays and read back, which costs more
    than running the function again.

    Args:
      function: takes arrays.
      orders: number of derivatives that are made in this way, at least 1. With 2, the backward pass of the backward
        pass keeps only its arguments too.
    """
    # The backward call runs the function again from its arguments, to `orders` derivatives.
    forward, pull = not_inlined(function), lambda args, g: jax.vjp(function, *args)[1](g)
    backward = recomputed(pull, orders - 1) if orders > 1 else not_inlined(pull)
    outer = jax.custom_vjp(lambda *args: forward(*args))
    outer.defvjp(lambda *args: (forward(*args), barrier(args)), lambda args, g: backward(args, g))
    return outer
