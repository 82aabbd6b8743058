"""Independent categorical decisions, one row of logits each."""

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Policy, Tree
from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError

__all__ = ["categorical"]


def categorical(choices: Tree, *, mean: float = 0.0, scale: float = 1e-3) -> Policy:
    """`p(arch) = prod_e softmax(logits_e)[arch_e]`; the parameters are the logits, structured like `choices`.

    Its `decode` hands the logits to the rule of the space.

    Args:
      choices: pytree of shapes `(E, K)`, usually `SearchSpace.choices`. Logits have its dtypes.
      mean: mean of the normal distribution from which the first logits are drawn: 0 for DARTS and ProxylessNAS, 1 for
        SNAS.
      scale: standard deviation of that distribution: 1e-3 for DARTS and ProxylessNAS, 0.01 for SNAS.

    Returns:
      The policy.

    Raises:
      UserError: a decision with fewer than two operations.

    Example:
      >>> policy = categorical({"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)})
      >>> logits = {"edges": jnp.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])}
      >>> policy.mode(logits)["edges"].tolist(), round(float(policy.entropy(logits)), 2)
      ([0, 0], 0.55)
    """
    for choice in jax.tree.leaves(choices):
        if choice.shape[-1] < 2:
            raise UserError(f"choices: a decision needs at least two operations, got shape {choice.shape}")

    def init(key):
        keys = optax.tree.split_key_like(key, choices)
        return jax.tree.map(lambda k, c: mean + scale * jax.random.normal(k, c.shape, c.dtype), keys, choices)

    def sample(key, logits):
        def draw(key, leaf):
            wide = leaf.astype(wide_dtype(leaf.dtype))  # the noise takes the dtype of the logits
            return jax.random.categorical(key, wide).astype(jnp.int32)

        return jax.tree.map(draw, optax.tree.split_key_like(key, logits), logits)

    def log_prob(logits, arch):
        rows = jax.tree.map(
            lambda leaf, a: jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(leaf), a[..., None], -1)), logits, arch
        )
        return sum(jax.tree.leaves(rows))

    def mode(logits):
        return jax.tree.map(lambda leaf: jnp.argmax(leaf, -1).astype(jnp.int32), logits)

    def entropy(logits):
        # The mean over all decisions, log K where nothing is decided and 0 where all is.
        def row(leaf):
            log_p = jax.nn.log_softmax(leaf)
            p = jnp.exp(log_p)
            return -jnp.sum(p * jnp.where(p > 0, log_p, 0), -1)  # p log p -> 0 as p -> 0

        return jnp.mean(jnp.concatenate([row(leaf) for leaf in jax.tree.leaves(logits)]))

    def decode(logits, derive):
        return derive(logits)

    return Policy(choices, init, sample, log_prob, mode, entropy, decode)
