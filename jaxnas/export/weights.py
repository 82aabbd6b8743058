"""Trained weights as a safetensors file, under flat names such as `params/stem/kernel`."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from jaxnas.base import Tree
from jaxnas.errors import UserError
from jaxnas.files import write_bytes

__all__ = ["load_variables", "require", "save_variables", "to_safetensors"]


def to_safetensors(variables: Tree) -> bytes:
    """Serialises a pytree of arrays under flat names such as `params/stem/kernel`; bfloat16 is stored as float32."""
    # One order of names, and rows before columns in memory, so that equal variables give equal bytes.
    arrays = {name: np.asarray(leaf) for name, leaf in _named(variables).items()}
    wide = {name: np.float32(leaf) if leaf.dtype == jnp.bfloat16 else leaf for name, leaf in arrays.items()}
    return safetensors.numpy.save({name: np.array(leaf, order="C") for name, leaf in sorted(wide.items())})


def save_variables(path: str | Path, variables: Tree) -> None:
    """Writes `to_safetensors(variables)`; a reader sees the former file or the new one, never a part."""
    write_bytes(Path(path), to_safetensors(variables))


def load_variables(path: str | Path, like: Tree | None = None) -> Tree:
    """Reads what `save_variables` wrote.

    Args:
      path: the file.
      like: a pytree of arrays or shapes that has the structure and the dtypes of the result; None for nested
        dictionaries.

    Returns:
      The variables as numpy arrays.

    Raises:
      UserError: a file that cannot be read, or that does not hold the weights of `like`.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile() as file:
      ...     save_variables(file.name, {"params": {"stem": {"kernel": jnp.ones([3, 2])}}})
      ...     load_variables(file.name)["params"]["stem"]["kernel"].shape
      (3, 2)
    """
    try:
        found = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from None
    return traverse_util.unflatten_dict(found, sep="/") if like is None else _fitted(path, found, like)


def _named(tree: Tree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _fitted(path: str | Path, found: dict[str, np.ndarray], like: Tree) -> Tree:
    """The arrays in the structure and dtypes of `like`."""
    # The first leaf that one side lacks, or that has another shape, ends the reading.
    wanted = _named(like)
    for name in sorted({*wanted, *found}):
        held, needed = (f"shape {list(tree[name].shape)}" if name in tree else "nothing" for tree in (found, wanted))
        if held != needed:
            raise UserError(f"{path} does not fit the network: {name} has {held}, expected {needed}")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name].astype(wanted[name].dtype) for name in wanted])


def require(module: str) -> None:
    """Imports a module that the extra `export` brings, or says so."""
    try:
        __import__(module)
    except ImportError:
        raise ImportError(f"{module} is not installed; pip install 'jaxnas[export]' brings it") from None
