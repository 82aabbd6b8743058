"""The exact gradient of the expected loss, by enumeration: the oracle of every other estimator."""

import jax
import jax.numpy as jnp
import optax

from jaxnas.architectures import enumerate_architectures
from jaxnas.base import Estimate, Estimator, Policy
from jaxnas.dtypes import wide_dtype
from jaxnas.estimators.evaluation import no_state, paths_of, wide

__all__ = ["exact"]


def exact(policy: Policy, *, dense: bool = True, limit: int = 100_000) -> Estimator:
    """`grad = d/dtheta sum_a p_theta(a) loss(a)`, summed over every architecture of the space.

    No noise and no bias. One forward and backward pass per architecture, scanned, so memory does not grow.

    Args:
      policy: any policy over independent or dependent decisions.
      dense: whether architectures run as one-hot dense paths or as sparse ones.
      limit: the largest number of architectures that are enumerated.

    Returns:
      An estimator. `Estimate.aux` is the expectation of the loss's auxiliary output, `paths` are those of the policy's
      mode.

    Raises:
      UserError: at the first call, if the space has more than `limit` architectures.

    Example:
      >>> from jaxnas.policies import categorical
      >>> logits, loss = {"edges": jnp.zeros((1, 2))}, lambda paths, params: (paths.weight["edges"][0, 1], {})
      >>> _, found = jax.jit(exact(categorical(logits)).estimate, static_argnums=3)(None, (), logits, loss, {})
      >>> float(found.value), found.policy_grads["edges"].tolist()  # half of the architectures cost 1
      (0.5, [[-0.25, 0.25]])
    """

    def estimate(key, state, policy_params, loss_fn, params):
        del key
        theta = wide(policy_params)
        archs = jax.tree.map(jnp.asarray, enumerate_architectures(policy.choices, limit=limit))

        def term(arch):
            def loss_at(params):
                return loss_fn(paths_of(policy.choices, arch, dense), params)

            # One term of the sum: p(a) loss(a), and its gradient p(a) loss(a) d log p(a).
            (loss, aux), weight_grads = jax.value_and_grad(loss_at, has_aux=True)(params)
            log_p, score = jax.value_and_grad(policy.log_prob)(theta, arch)
            policy_grads = jax.tree.map(lambda s: loss * s, score)
            p = jnp.exp(log_p)
            return jax.tree.map(
                lambda leaf: p * leaf.astype(wide_dtype(leaf.dtype)), (loss, policy_grads, weight_grads, aux)
            )

        # The sum over all architectures, one term at a time.
        def body(total, arch):
            return jax.tree.map(jnp.add, total, term(arch)), None

        # Sums start from zeros in the wide types of the terms.
        first = jax.tree.map(lambda leaf: leaf[0], archs)
        zero = optax.tree.zeros_like(jax.eval_shape(term, first))
        (value, policy_grads, weight_grads, aux), _ = jax.lax.scan(body, zero, archs)
        policy_grads, weight_grads = optax.tree.cast_like((policy_grads, weight_grads), (policy_params, params))
        paths = paths_of(policy.choices, policy.mode(policy_params), dense)
        return state, Estimate(value, policy_grads, weight_grads, paths, aux, {})

    return Estimator(no_state, estimate)
