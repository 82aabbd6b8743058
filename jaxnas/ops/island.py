"""Functions that XLA:CPU compiles on their own, fusing nothing into them and nothing out of them.

XLA:CPU fuses a long sum, such as the taps of a depthwise convolution, into whatever consumes it. Several such sums in one
loop no longer vectorise, and a consumer that reads them more than once computes them again: thirty times slower and more.
A call that is kept as a call stops that, and equal calls in one program share their machine code, so that the twelfth
edge of a cell costs little to compile.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

__all__ = ["island"]


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
