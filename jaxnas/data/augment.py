"""Augmentations of training images: pure functions of a key and a batch, each example by itself.

`random_crop` and `random_flip` take uint8 or float images and come before `to_float`; `cutout` comes after it, so that
what it sets to zero is the mean colour. DARTS and its successors train with crop, flip, `to_float`, cutout, in this
order.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.errors import UserError

__all__ = ["cutout", "random_crop", "random_flip"]


def random_crop(key: jax.Array, images: jax.Array, padding: int = 4) -> jax.Array:
    """Pads with zeros (black before `to_float`) and cuts the original size out at a random place.

    Args:
      key: a typed key, used up by this call.
      images: a batch of uint8 or float images, `[B, H, W, C]`.
      padding: width of the border in pixels, at least 0; every shift of up to so many pixels is equally likely.

    Returns:
      The changed images, `[B, H, W, C]`, of the dtype they came in.

    Raises:
      UserError: if `padding` is negative.

    Example:
      >>> random_crop(jax.random.key(0), jnp.ones([2, 8, 8, 1]), padding=1).shape
      (2, 8, 8, 1)
    """
    if padding < 0:
        raise UserError(f"padding is {padding}, expected at least 0")
    offsets = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1, jnp.int32)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        return lax.dynamic_slice(padded, (*offset, np.int32(0)), image.shape)

    return jax.vmap(crop)(images, offsets)


def random_flip(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Mirrors each image left to right with the given probability.

    Args:
      key: a typed key, used up by this call.
      images: a batch of uint8 or float images, `[B, H, W, C]`.
      probability: the share of images that are mirrored in the mean, from 0 to 1.

    Returns:
      The changed images, `[B, H, W, C]`, of the dtype they came in.

    Raises:
      UserError: if `probability` is not between 0 and 1.

    Example:
      >>> image = jnp.arange(3, dtype=jnp.uint8).reshape(1, 1, 3, 1)
      >>> random_flip(jax.random.key(0), image, probability=1.0)[0, 0, :, 0].tolist()
      [2, 1, 0]
    """
    if not 0 <= probability <= 1:
        raise UserError(f"probability is {probability}, expected 0 to 1")
    flips = jax.random.bernoulli(key, jnp.float32(probability), (len(images),))
    return jax.vmap(lambda image, flip: jnp.where(flip, image[:, ::-1], image))(images, flips)


def cutout(key: jax.Array, images: jax.Array, length: int = 16) -> jax.Array:
    """Sets a square around a random pixel to zero, cut off at the border.

    The centre is uniform over all pixels, so squares near the border are smaller, as in the authors' code.

    Args:
      key: a typed key, used up by this call.
      images: a batch of float images as `to_float` makes them, `[B, H, W, C]`.
      length: side of the square in pixels, at least 0. It covers rows and columns from `centre - length // 2` up to,
        but without, `centre + length // 2`.

    Returns:
      The changed images, `[B, H, W, C]`, of the dtype they came in.

    Raises:
      UserError: if `length` is negative.

    Example:
      >>> float(cutout(jax.random.key(0), jnp.ones([1, 8, 8, 1]), length=16).sum())  # the square covers all
      0.0

    References:
      DeVries, Taylor (2017), Improved Regularization of Convolutional Neural Networks with Cutout, arXiv:1708.04552,
      section 3.2.
    """
    if length < 0:
        raise UserError(f"length is {length}, expected at least 0")
    height, width = images.shape[1:3]
    centres = jax.random.randint(key, (len(images), 2), 0, jnp.array([[height, width]], jnp.int32), jnp.int32)

    def inside(centre: jax.Array, size: int) -> jax.Array:
        place = jnp.arange(size, dtype=jnp.int32) - centre
        return (place >= -(length // 2)) & (place < length // 2)

    def cut(image: jax.Array, centre: jax.Array) -> jax.Array:
        hole = inside(centre[0], height)[:, None] & inside(centre[1], width)[None, :]
        return jnp.where(hole[:, :, None], jnp.zeros((), image.dtype), image)

    return jax.vmap(cut)(images, centres)
