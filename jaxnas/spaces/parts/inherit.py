"""Weights of a supernet, given by name to a stand-alone network."""

from typing import Any

import flax.linen as nn
import flax.traverse_util as traverse
import jax
import jax.numpy as jnp

from jaxnas.base import Network
from jaxnas.errors import UserError

__all__ = ["fill", "linen_network"]


def fill(shapes: Any, inherited: dict[str, Any]) -> dict[str, Any]:
    """Variables of the given shapes, with the inherited parameters and fresh normalisation.

    Args:
      shapes: variables of a Linen module as instances of `jax.ShapeDtypeStruct`.
      inherited: weights in a nested dictionary whose names are some of those in `shapes["params"]`.

    Returns:
      The full variables: running means 0 and variances 1; learned scales 1 and offsets 0 where none are inherited.

    Raises:
      UserError: a weight that is neither inherited nor part of a normalisation, or one of another shape.
    """
    # Every variable is inherited, or belongs to a normalisation that starts anew.
    given = traverse.flatten_dict(inherited, sep="/")
    filled = {}
    for path, leaf in traverse.flatten_dict(shapes, sep="/").items():
        collection, _, name = path.partition("/")
        if collection == "params" and name in given:  # a weight of the supernet
            filled[path] = given.pop(name)
            if filled[path].shape != leaf.shape:
                raise UserError(f"{name}: cannot inherit shape {filled[path].shape} for {leaf.shape}")
        elif path.endswith(("/scale", "/var")):  # normalisation that the supernet has without weights
            filled[path] = jnp.ones(leaf.shape, leaf.dtype)
        elif path.endswith(("norm/bias", "/mean")):
            filled[path] = jnp.zeros(leaf.shape, leaf.dtype)
        else:
            raise UserError(f"{name}: the supernet has no such weight to inherit")
    if given:
        raise UserError(f"the network has no place for the inherited weights {sorted(given)}")
    return traverse.unflatten_dict(filled, sep="/")


def linen_network(module: nn.Module, inherit=None) -> Network:
    """A `Network` from a Linen module called as `module(x, train=..., drop_rate=...)`.

    Args:
      module: the network.
      inherit: `(params) -> (inherited, example)`: the weights of a supernet by the module's names, and an example of
        the input as a `jax.ShapeDtypeStruct`; None if the network cannot inherit.
    """

    def init(key, x):
        return module.init(key, x)

    def apply(variables, x, *, key=None, train=False, drop_path=None):
        rngs = None if key is None else {"dropout": key}
        rate = None if key is None else drop_path
        if not train:
            return module.apply(variables, x, train=False, drop_rate=rate, rngs=rngs), variables
        # Running averages are all that training changes in the variables.
        y, new = module.apply(variables, x, train=True, drop_rate=rate, rngs=rngs, mutable=["batch_stats"])
        return y, {**variables, **new}

    def take(params):
        inherited, example = inherit(params)
        return fill(jax.eval_shape(module.init, jax.random.key(0), example), inherited)

    return Network(init, apply, None if inherit is None else take, module)
