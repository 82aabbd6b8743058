"""Architectures that a search proposes more than once: they are counted among its children, but among its best once."""

import jax
import numpy as np

from jaxnas.base import Arch


def is_new(archs: Arch) -> np.ndarray:
    """Whether each architecture differs from all that the search proposed before it.

    Where networks grow, their depth goes in as one more leaf: two networks that differ in depth alone are different.

    Args:
      archs: the architectures in the order of proposal, a tree of whole numbers whose leaves are `[T, ...]`.

    Returns:
      bool `[T]`.

    Example:
      >>> is_new({"operation": np.array([[0, 1], [2, 1], [0, 1]])}).tolist()
      [True, True, False]
    """
    rows = np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(archs)], 1)
    return np.isin(np.arange(len(rows)), np.unique(rows, axis=0, return_index=True)[1])
