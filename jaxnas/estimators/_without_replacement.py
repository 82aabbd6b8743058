"""Two different samples: the estimator of sampling without replacement."""

import math

import jax
import jax.numpy as jnp

from jaxnas.base import Arch, Estimator, Tree
from jaxnas.estimators.evaluation import estimate_of, evaluate, no_state, score_gradient, stacked, wide
from jaxnas.policies import categorical

__all__ = ["another", "without_replacement"]


def without_replacement(*, dense: bool = False) -> Estimator:
    """`grad = w (loss(a) - loss(b)) d/dtheta (log p(a) - log p(b))`, `w = (1 - p(a)) (1 - p(b)) / (2 - p(a) - p(b))`.

    `a ~ p` and `b ~ p` given that it differs from `a` in some decision. Unbiased; two evaluations of the loss, no
    derivative with respect to the paths, and no evaluation is spent twice on one architecture, which pays where the
    policy has nearly settled. It is the importance-weighted estimator of an unordered set of two, in which the
    probability of the set cancels.

    Args:
      dense: whether architectures run as one-hot dense paths or as sparse ones.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`. `Estimate.paths` and `aux` are those of `b`.
      `value` is the mean of the two losses, which is not an unbiased estimate of the expected loss.

    Example:
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> key, loss = jax.random.key(0), lambda paths, params: (space.apply(params, paths), {})
      >>> _, found = jax.jit(without_replacement().estimate, static_argnums=3)(key, None, logits, loss, {})
      >>> found.policy_grads["edges"].tolist()
      [[-0.75, 0.75]]

    References:
      Kool, van Hoof and Welling, 2020, "Estimating gradients for discrete random variables by sampling without
      replacement", arXiv 2002.06043.
    """

    def estimate(key, state, policy_params, loss_fn, params):
        key_first, key_second = jax.random.split(key)
        logits, policy = wide(policy_params), categorical(policy_params)
        # Two different architectures, and their losses.
        first = policy.sample(key_first, logits)
        archs = stacked(first, another(key_second, logits, first))
        found = evaluate(loss_fn, params, policy_params, archs, dense=dense)
        # w (loss(a) - loss(b)) as a factor of the score of a, and minus that of b.
        rest = -jnp.expm1(jax.vmap(policy.log_prob, (None, 0))(logits, archs))  # 1 - p, exact where p is nearly one
        rest = jnp.maximum(rest, jnp.finfo(rest.dtype).tiny)
        weight = rest[0] * rest[1] / (rest[0] + rest[1]) * (found.losses[0] - found.losses[1])
        grads = score_gradient(policy, logits, archs, jnp.stack([weight, -weight]))
        return state, estimate_of(found, grads, policy_params, {})

    return Estimator(no_state, estimate)


def another(key: jax.Array, logits: Tree, arch: Arch) -> Arch:
    """A sample of independent categoricals, given that it is not `arch`.

    The first decision at which it differs is drawn; those before are as in `arch`, those after are free.

    Args:
      key: random key.
      logits: logits of the categoricals, leaves `[E, K]`.
      arch: the architecture that is not drawn again, leaves `[E]`.
    """
    # Log-probability of every decision to be as in `arch`, and to be another.
    leaves, treedef = jax.tree.flatten(logits)
    chosen = [
        jax.nn.one_hot(leaf, row.shape[-1], dtype=bool) for leaf, row in zip(jax.tree.leaves(arch), leaves, strict=True)
    ]
    log_p = [jax.nn.log_softmax(row) for row in leaves]
    same = jnp.concatenate([jnp.sum(jnp.where(c, p, 0.0), -1).ravel() for c, p in zip(chosen, log_p, strict=True)])
    other = [jax.nn.logsumexp(jnp.where(c, -jnp.inf, p), -1).ravel() for c, p in zip(chosen, log_p, strict=True)]
    # The first decision that differs: all before it are as in `arch`, and it is not.
    before = jnp.cumsum(same) - same
    key_first, key_free, key_other = jax.random.split(key, 3)
    first = jax.random.categorical(key_first, before + jnp.concatenate(other))
    # Before it the decisions of `arch`, in its place another option, after it free draws.
    drawn, start = [], 0
    for k, (row, c, old) in enumerate(zip(leaves, chosen, jax.tree.leaves(arch), strict=True)):
        place = start + jnp.arange(math.prod(old.shape)).reshape(old.shape)
        free = jax.random.categorical(jax.random.fold_in(key_free, k), row)
        differing = jax.random.categorical(jax.random.fold_in(key_other, k), jnp.where(c, -jnp.inf, row))
        new = jnp.where(place < first, old, jnp.where(place == first, differing, free))
        drawn.append(new.astype(old.dtype))
        start += old.size
    return jax.tree.unflatten(treedef, drawn)
