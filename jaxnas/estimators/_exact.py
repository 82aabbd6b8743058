"""The exact gradient of the expected loss, by enumeration: the oracle of every other estimator."""

import jax
import jax.numpy as jnp

from jaxnas.architectures import enumerate_architectures
from jaxnas.base import Estimate, Estimator, one_hot_paths, sparse_paths
from jaxnas.dtypes import wide_dtype
from jaxnas.estimators.evaluation import no_state, wide
from jaxnas.policies import categorical

__all__ = ["exact"]


def exact(*, dense: bool = True, limit: int = 100_000) -> Estimator:
    """`grad = d/dlogits sum_a p(a) loss(a)`, summed over every architecture of the space.

    No noise and no bias. One forward and backward pass per architecture, scanned, so memory does not grow.

    Args:
      dense: whether architectures run as one-hot dense paths or as sparse ones.
      limit: the largest number of architectures to enumerate.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`. `Estimate.aux` is the expectation of the loss's
      auxiliary output, `paths` are those of the most probable architecture.

    Raises:
      UserError: at the first call, if the space is larger than `limit`.
    """

    def estimate(key, state, policy_params, loss_fn, params):
        del key
        policy = categorical(policy_params)
        logits = wide(policy_params)
        archs = jax.tree.map(jnp.asarray, enumerate_architectures(policy_params, limit=limit))

        def to_paths(arch):
            return one_hot_paths(policy_params, arch) if dense else sparse_paths(arch)

        def term(arch):
            (loss, aux), weight_grads = jax.value_and_grad(lambda p: loss_fn(to_paths(arch), p), has_aux=True)(params)
            log_p, score = jax.value_and_grad(policy.log_prob)(logits, arch)
            policy_grads = jax.tree.map(lambda s: loss * s, score)
            p = jnp.exp(log_p)
            return jax.tree.map(
                lambda leaf: p * leaf.astype(wide_dtype(leaf.dtype)), (loss, policy_grads, weight_grads, aux)
            )

        def body(total, arch):
            return jax.tree.map(jnp.add, total, term(arch)), None

        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(term, first(archs)))
        (value, policy_grads, weight_grads, aux), _ = jax.lax.scan(body, zero, archs)
        policy_grads, weight_grads = jax.tree.map(
            lambda total, leaf: total.astype(leaf.dtype), (policy_grads, weight_grads), (policy_params, params)
        )
        paths = to_paths(policy.mode(policy_params))
        return state, Estimate(value, policy_grads, weight_grads, paths, aux, {})

    def first(archs):
        return jax.tree.map(lambda leaf: leaf[0], archs)

    return Estimator(no_state, estimate)
