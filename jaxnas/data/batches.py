"""Batches drawn on the device: which examples a step sees is a pure function of the key and the step.

Nothing is stored between steps, so a resumed run sees what an uninterrupted one would have seen. All functions work
with a traced `step` inside `jit`, `scan` and `vmap`. Pass the examples to a jitted function as an argument: closed
over, they become a constant of the program. Whole numbers are int32 whatever JAX's default is, so 64-bit JAX draws the
same batches.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxnas.data.examples import Examples
from jaxnas.errors import UserError

__all__ = ["batch", "batch_indices", "batch_with_replacement", "random_indices", "to_float"]

ROUNDS = 90  # number of rounds of swap-or-not; half of the examples move in each


def batch(
    key: jax.Array,
    examples: Examples,
    step: ArrayLike,
    batch_size: int,
    *,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> Examples:
    """Returns the batch of a step: every example once in an epoch, in an order that differs between epochs.

    The last, incomplete batch of an epoch is dropped, so an epoch has `N // batch_size` steps.

    Args:
      key: a typed key that all steps of a run share.
      examples: uint8 images `[N, H, W, C]` and labels `[N]`.
      step: how many steps have been taken so far, an integer that may be traced.
      batch_size: the number `B` of examples in a batch, from 1 to `N`.
      mean: the mean that `to_float` subtracts, in units of pixel / 255.
      std: the standard deviation that `to_float` divides by, in units of pixel / 255.

    Returns:
      float32 images `[B, H, W, C]` and int32 labels `[B]`.

    Raises:
      UserError: if `batch_size` is not between 1 and `N`.

    Example:
      >>> from jaxnas.data import load, split
      >>> search = split(load("synthetic:n=64"))
      >>> images, labels = batch(jax.random.key(0), search.weights, 3, 8, mean=search.mean, std=search.std)
      >>> images.shape, images.dtype.name
      ((8, 16, 16, 3), 'float32')
    """
    return _take(examples, batch_indices(key, len(examples.labels), step, batch_size), mean, std)


def batch_with_replacement(
    key: jax.Array,
    examples: Examples,
    step: ArrayLike,
    batch_size: int,
    *,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> Examples:
    """Returns a batch of independent draws, as DARTS draws the batch of its architecture step.

    DARTS starts its shuffled loader anew for every architecture step, so batches are independent of each other; here
    the examples of one batch are too. `batch(jax.random.fold_in(key, step), examples, 0, batch_size)` is what
    the code of DARTS does, without repeats within a batch.

    Args:
      key: a typed key that all steps of a run share.
      examples: uint8 images `[N, H, W, C]` and labels `[N]`.
      step: how many steps have been taken so far, an integer that may be traced.
      batch_size: the number `B` of examples in a batch, at least 1; it may exceed `N`.
      mean: the mean that `to_float` subtracts, in units of pixel / 255.
      std: the standard deviation that `to_float` divides by, in units of pixel / 255.

    Returns:
      float32 images `[B, H, W, C]` and int32 labels `[B]`.

    Raises:
      UserError: if `batch_size` is below 1.

    Example:
      >>> from jaxnas.data import Examples
      >>> examples = Examples(np.zeros([4, 8, 8, 1], np.uint8), np.arange(4, dtype=np.int32))
      >>> batch_with_replacement(jax.random.key(0), examples, 3, 16).images.shape
      (16, 8, 8, 1)
    """
    return _take(examples, random_indices(key, len(examples.labels), step, batch_size), mean, std)


def batch_indices(key: jax.Array, num_examples: int, step: ArrayLike, batch_size: int) -> jax.Array:
    """Returns which examples `batch` takes, for callers that augment uint8 images before `to_float`.

    The order of an epoch is a random permutation, evaluated only where it is needed: a batch costs `90 B` small integer
    operations, not a sort of all `N` examples.

    Args:
      key: a typed key that all steps of a run share.
      num_examples: the number `N` of examples to draw from, at least 1.
      step: how many steps have been taken so far, an integer that may be traced.
      batch_size: the number `B` of examples in a batch, from 1 to `N`.

    Returns:
      The positions of the examples, int32 `[B]`, all different.

    Raises:
      UserError: if `batch_size` is not between 1 and `N`.

    Example:
      >>> epoch = [batch_indices(jax.random.key(0), 6, step, 2) for step in range(3)]
      >>> sorted(jnp.concatenate(epoch).tolist())
      [0, 1, 2, 3, 4, 5]

    References:
      Hoang, Morris, Rogaway (2012), An Enciphering Scheme Based on a Card Shuffle, arXiv:1208.1176, figure 1.
    """
    if not 1 <= batch_size <= num_examples:
        raise UserError(f"batch_size is {batch_size}, expected 1 to {num_examples}, the number of examples")
    # An epoch takes consecutive stretches of one permutation.
    epoch, place = jnp.divmod(jnp.asarray(step, jnp.int32), num_examples // batch_size)
    positions = place * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return _shuffled(jax.random.fold_in(key, epoch), num_examples, positions)


def random_indices(key: jax.Array, num_examples: int, step: ArrayLike, batch_size: int) -> jax.Array:
    """Returns which examples `batch_with_replacement` takes: int32 `[B]`, independent and uniform.

    Args:
      key: a typed key that all steps of a run share.
      num_examples: the number `N` of examples to draw from, at least 1.
      step: how many steps have been taken so far, an integer that may be traced.
      batch_size: the number `B` of examples in a batch, at least 1; it may exceed `N`.

    Returns:
      The positions of the examples, int32 `[B]`.

    Raises:
      UserError: if `batch_size` or `num_examples` is below 1.

    Example:
      >>> random_indices(jax.random.key(0), 4, 0, 10).shape
      (10,)
    """
    if batch_size < 1 or num_examples < 1:
        raise UserError(f"batch_size is {batch_size} and num_examples {num_examples}, expected at least 1 of each")
    key = jax.random.fold_in(key, jnp.asarray(step, jnp.int32))
    return jax.random.randint(key, (batch_size,), 0, num_examples, jnp.int32)


def to_float(images: jax.Array, mean: ArrayLike | None = None, std: ArrayLike | None = None) -> jax.Array:
    """Returns `(pixel / 255 - mean) / std` in float32.

    Args:
      images: uint8 pixels, `[..., C]`.
      mean: what is subtracted, `[C]` or a scalar, in units of pixel / 255; `None` stands for 0.
      std: what is divided by, `[C]` or a scalar above 0, in units of pixel / 255; `None` stands for 1.

    Returns:
      The normalised pixels, float32 `[..., C]`.

    Raises:
      UserError: if the images are not uint8.

    Example:
      >>> to_float(np.uint8([[0], [255]]), mean=0.5, std=0.5)[:, 0].tolist()
      [-1.0, 1.0]
    """
    if images.dtype != jnp.uint8:
        raise UserError(f"images have dtype {images.dtype}, expected uint8")
    ones = (1,) * (images.ndim - 1)
    values = jnp.asarray(images, jnp.float32) / 255
    if mean is not None:
        values = values - jnp.asarray(mean, jnp.float32).reshape(*ones, -1)
    if std is not None:
        values = values / jnp.asarray(std, jnp.float32).reshape(*ones, -1)
    return values


def _take(examples: Examples, indices: jax.Array, mean: ArrayLike | None, std: ArrayLike | None) -> Examples:
    """Returns the chosen examples with float images."""
    images, labels = (jnp.asarray(values)[indices] for values in examples)
    return Examples(to_float(images, mean, std), labels)


@functools.partial(jax.jit, static_argnames=("num", "rounds"))  # else every eager call compiles the loop again
def _shuffled(key: jax.Array, num: int, positions: jax.Array, rounds: int = ROUNDS) -> jax.Array:
    """Applies a random permutation of `range(num)` to some positions, by the swap-or-not shuffle.

    A round pairs every `x` with `(k - x) mod num` for a random `k` and swaps each pair or not by a random bit, which
    both members compute from the larger of the two. Each round is a bijection, so all are.
    """
    key_pairs, key_bits = jax.random.split(key)
    pairs = jax.random.randint(key_pairs, (rounds,), 0, num, jnp.int32)
    salts = jax.random.bits(key_bits, (rounds,), jnp.uint32)

    def one_round(x: jax.Array, pair_and_salt: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        pair, salt = pair_and_salt
        # X' = K_i - X, then swap by the bit F(i, max(X, X')): figure 1 of the paper.
        partner = jnp.where(pair >= x, pair - x, pair - x + num)
        swap = _hash(jnp.maximum(x, partner).astype(jnp.uint32) ^ salt) & 1
        return jnp.where(swap == 1, partner, x), None

    return lax.scan(one_round, positions.astype(jnp.int32), (pairs, salts))[0]


def _hash(x: jax.Array) -> jax.Array:
    """Mixes 32 bits so that each depends on all (the finaliser of MurmurHash3, public domain)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)
