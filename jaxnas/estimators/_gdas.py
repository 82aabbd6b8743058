"""GDAS as released: one sampled operation runs, and every other adds its gate, which is zero in value."""

import jax
import jax.numpy as jnp

from jaxnas.base import Estimator, Paths, Tree
from jaxnas.estimators._pathwise import path_gradient
from jaxnas.relaxations import Temperature, st_gumbel

__all__ = ["gdas"]


def gdas(temperature: Temperature = 1.0) -> Estimator:
    """`y = h_i o_i(x) + sum_{k != i} h_k` with `h` a straight-through Gumbel-softmax sample and `i` its argmax.

    Only the sampled operation runs. In place of `<dL/dy, o_k(x)>` the gate of another operation gets `sum(dL/dy)`, so
    the gradient is not that of the paper, which is `pathwise(st_gumbel)` and runs all operations; `binary_gate` has
    the memory of one path and the right gate gradients. This estimator is here to reproduce the release.

    The form above is computed by the choice between operations, `jaxnas.spaces.parts.mixed_op`, when paths have
    `index[E, 1]` and `weight[E, K]`: the estimator is for spaces that choose through it.

    Args:
      temperature: temperature of the samples, above zero: a float, a traced array, or a schedule of the number of
        estimates; that of the release falls from 10 to 0.1.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`.

    Raises:
      UserError: a temperature not above zero; from a loss that is a plain function of gates (`jaxnas.spaces.gates`),
        where nothing stands for `h_k` alone and `st_gumbel` is what is meant.

    Example:
      >>> from jaxnas.spaces import chain_space
      >>> space, x = chain_space({"tanh": jnp.tanh, "skip": lambda x: x}, 1), jnp.ones((1, 1))
      >>> key, loss = jax.random.key(0), lambda paths, params: (space.apply(params, paths, x).sum(), {})
      >>> logits, estimator = {"chain": jnp.zeros((1, 2))}, gdas()
      >>> _, found = jax.jit(estimator.estimate, static_argnums=3)(
      ...     key, estimator.init(key, logits), logits, loss, space.init(key, x)
      ... )
      >>> found.paths.index["chain"].shape, found.paths.weight["chain"].shape  # one operation runs, all gates are there
      ((1, 1), (1, 2))

    References:
      Dong and Yang, 2019, arXiv 1910.04465, and its released code.
    """
    return path_gradient(st_gumbel, temperature, 1, _sampled)


def _sampled(weight: Tree) -> Paths:
    index = jax.tree.map(lambda leaf: jnp.argmax(leaf, -1, keepdims=True).astype(jnp.int32), weight)
    return Paths(index, weight)
