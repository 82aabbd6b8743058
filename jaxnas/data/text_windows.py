"""Windows of a text for truncated back-propagation through time: inputs, and for each the token that follows.

The tokens of a text (`jaxnas.data.text`) are cut in one of two ways: `windows` for networks that start anew in every
window, `streams` and `window_at` for batches that continue each other. Pure functions, usable inside `jit`. Letters for
shapes: `N` tokens, `B` streams side by side, `L` tokens of a stream, `T` steps of a window.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnas.data.examples import check_whole
from jaxnas.errors import UserError

__all__ = ["Window", "streams", "window_at", "windows"]


class Window(NamedTuple):
    """Tokens and, for each of them, the one that follows.

    Attributes:
      inputs: the tokens that a network reads, int32 `[B, T]`.
      targets: the next tokens, int32 `[B, T]`: `targets[:, t]` follows `inputs[:, t]` in the text.
    """

    inputs: jax.Array
    targets: jax.Array


def windows(tokens: ArrayLike, length: int) -> Window:
    """Returns all windows of a text, one after the other without overlap, for networks that start anew in each.

    What is left over at the end is dropped, so there are `(N - 1) // T` windows.

    Args:
      tokens: token numbers `[N]`.
      length: the number `T` of steps of a window, at least 1.

    Returns:
      inputs and targets, int32 `[(N - 1) // T, T]`.

    Raises:
      UserError: if `length` is below 1, or the tokens are too few for one window and the token after it.

    Example:
      >>> inputs, targets = windows(np.arange(8), 3)
      >>> inputs.tolist(), targets.tolist()
      ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    array = jnp.asarray(tokens, jnp.int32)
    if array.ndim != 1:
        raise UserError(f"tokens has shape {array.shape}, expected [N]")
    count = _windows_in(len(array), length, "tokens has")
    inputs, targets = (array[shift : shift + count * length].reshape(count, length) for shift in (0, 1))
    return Window(inputs, targets)


def streams(tokens: ArrayLike, batch_size: int) -> jax.Array:
    """Cuts a text into as many contiguous streams of one length as a batch has rows.

    Args:
      tokens: token numbers `[N]`.
      batch_size: the number `B` of streams, at least 1. Up to `B - 1` tokens at the end are dropped.

    Returns:
      The streams, int32 `[B, N // B]`.

    Raises:
      UserError: if `batch_size` is below 1, or a stream would have fewer than two tokens.

    Example:
      >>> streams(np.arange(7), 2).tolist()
      [[0, 1, 2], [3, 4, 5]]
    """
    check_whole("batch_size", batch_size)
    array = jnp.asarray(tokens, jnp.int32)
    if array.ndim != 1:
        raise UserError(f"tokens has shape {array.shape}, expected [N]")
    if not 1 <= batch_size <= len(array) // 2:
        raise UserError(f"batch_size is {batch_size}, expected 1 to {len(array) // 2} for {len(array)} tokens")
    return array[: len(array) // batch_size * batch_size].reshape(batch_size, -1)


def window_at(rows: jax.Array, step: ArrayLike, length: int) -> Window:
    """Returns the window of a step: each of its rows continues the same row of the window before.

    A stream of `L` tokens has `(L - 1) // T` windows, an epoch. After the last one the streams begin again, and the
    state that a network carries from window to window should too: where `step % ((L - 1) // T)` is 0.

    Args:
      rows: the streams, int32 `[B, L]`, as `streams` returns them.
      step: how many windows have been taken so far, an integer that may be traced.
      length: the number `T` of steps of a window, at least 1.

    Returns:
      inputs and targets, int32 `[B, T]`.

    Raises:
      UserError: if `length` is below 1, or the streams are too short for one window and the token after it.

    Example:
      >>> rows = streams(np.arange(10), 2)
      >>> [jax.jit(window_at, static_argnums=2)(rows, step, 2).inputs.tolist() for step in range(3)]
      [[[0, 1], [5, 6]], [[2, 3], [7, 8]], [[0, 1], [5, 6]]]
    """
    count = _windows_in(rows.shape[1], length, "every stream has")
    begin = jnp.asarray(step, jnp.int32) % count * length
    both = lax.dynamic_slice_in_dim(rows, begin, length + 1, axis=1)
    return Window(both[:, :-1], both[:, 1:])


def _windows_in(num_tokens: int, length: int, who: str) -> int:
    """Returns how many windows fit with the token after the last one."""
    check_whole("length", length)
    if length < 1:
        raise UserError(f"length is {length}, expected at least 1")
    if num_tokens <= length:
        raise UserError(f"{who} {num_tokens} tokens, expected at least {length + 1} for a window of length {length}")
    return (num_tokens - 1) // length
