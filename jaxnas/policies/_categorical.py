"""Independent categorical decisions, one row of logits each."""

import jax
import jax.numpy as jnp

from jaxnas.base import Arch, Policy, Tree
from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError

__all__ = ["categorical", "entropy", "split_like"]


def split_like(key: jax.Array, tree: Tree) -> Tree:
    """A tree of keys, one for each leaf of `tree`."""
    leaves, treedef = jax.tree.flatten(tree)
    return jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))


def categorical(choices: Tree, *, mean: float = 0.0, scale: float = 1e-3) -> Policy:
    """`p(arch) = prod_e softmax(logits_e)[arch_e]`; the parameters are the logits, structured like `choices`.

    Args:
      choices: `SearchSpace.choices`, leaves `[E, K]`.
      mean: initial logits are drawn from `N(mean, scale^2)`. DARTS and ProxylessNAS start from `N(0, 1e-3^2)`, SNAS
        from `N(1, 0.01^2)`.
      scale: see `mean`.

    Raises:
      UserError: a decision with fewer than two operations.
    """
    for choice in jax.tree.leaves(choices):
        if choice.shape[-1] < 2:
            raise UserError(f"choices: a decision needs at least two operations, got shape {choice.shape}")

    def init(key):
        return jax.tree.map(
            lambda k, c: mean + scale * jax.random.normal(k, c.shape, c.dtype), split_like(key, choices), choices
        )

    def sample(key, logits):
        def draw(key, leaf):
            wide = leaf.astype(wide_dtype(leaf.dtype))  # the noise takes the dtype of the logits
            return jax.random.categorical(key, wide).astype(jnp.int32)

        return jax.tree.map(draw, split_like(key, logits), logits)

    def log_prob(logits: Tree, arch: Arch):
        rows = jax.tree.map(
            lambda leaf, a: jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(leaf), a[..., None], -1)), logits, arch
        )
        return sum(jax.tree.leaves(rows))

    def mode(logits):
        return jax.tree.map(lambda leaf: jnp.argmax(leaf, -1).astype(jnp.int32), logits)

    return Policy(init, sample, log_prob, mode)


def entropy(logits: Tree) -> jax.Array:
    """Mean entropy of the decisions, in nats: `log K` when undecided, 0 when settled."""
    rows = [-jnp.sum(jax.nn.softmax(leaf) * jax.nn.log_softmax(leaf), -1) for leaf in jax.tree.leaves(logits)]
    return jnp.mean(jnp.concatenate(rows))
