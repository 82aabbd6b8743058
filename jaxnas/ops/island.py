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

__all__ = ["island", "kept", "recomputed"]


def island(function: Callable[..., Any], static: tuple[int, ...] = ()) -> Callable[..., Any]:
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


def kept(residuals: Any) -> Any:
    """The residuals of a `custom_vjp`, as values of their own.

    jax 0.10 passes residuals that are the function's own arguments by position, and loses count of them in a second
    reverse pass through `scan` and nested calls: a wrong gradient, or an error. The barrier costs nothing.
    """
    return jax.lax.optimization_barrier(residuals)


def recomputed(function: Callable[..., Any], orders: int = 2) -> Callable[..., Any]:
    """`function` of arrays as two islands, of which the backward one starts from the arguments alone.

    In a scan everything else that is kept would be written to stacked arrays and read back, which costs more than
    running the function again.

    Args:
      function: takes arrays.
      orders: how many derivatives are made in this way: the backward island of a second derivative keeps, in turn, its
        arguments alone.
    """
    forward, pull = island(function), lambda args, g: jax.vjp(function, *args)[1](g)
    backward = recomputed(pull, orders - 1) if orders > 1 else island(pull)
    outer = jax.custom_vjp(lambda *args: forward(*args))
    outer.defvjp(lambda *args: (forward(*args), kept(args)), lambda args, g: backward(args, g))
    return outer
