"""ARM and DisARM: antithetic pairs for decisions between two options."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Estimator, Tree
from jaxnas.errors import UserError
from jaxnas.estimators.evaluation import estimate_of, evaluate, no_state, stacked, wide

__all__ = ["arm", "disarm"]


def arm(*, dense: bool = False) -> Estimator:
    """`grad_phi = (loss(1[u > s(-phi)]) - loss(1[u < s(phi)])) (u - 1/2)` with uniform `u`, per decision.

    `phi = logits[1] - logits[0]`, `s` the logistic function. Unbiased; two evaluations of the loss, no derivative with
    respect to the paths.

    Args:
      dense: whether architectures run as one-hot dense paths or as sparse ones.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, 2]`. `Estimate.paths` and `aux` are those of the
      second evaluation.

    Raises:
      UserError: at the first call, a decision with more than two options.

    Example:
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> key, loss = jax.random.key(0), lambda paths, params: (space.apply(params, paths), {})
      >>> _, found = jax.jit(arm().estimate, static_argnums=3)(key, None, logits, loss, {})
      >>> bool(found.policy_grads["edges"][0, 1] > 0)  # on average 0.75
      True

    References:
      Yin and Zhou, 2019, "ARM: Augment-REINFORCE-merge gradient for stochastic binary networks", arXiv 1807.11143.
    """

    def factor(phi, u, first, second):
        del phi, first, second
        return u - 0.5

    return _antithetic(factor, dense)


def disarm(*, dense: bool = False) -> Estimator:
    """`grad_phi = (loss(b) - loss(c)) (-1)^c 1[b != c] s(|phi|) / 2` with `b = 1[1 - u < s(phi)]`, `c = 1[u < s(phi)]`.

    ARM with the uniform noise averaged out, so never of more variance. Arguments, result and errors as in `arm`.

    Example:
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> key, loss = jax.random.key(0), lambda paths, params: (space.apply(params, paths), {})
      >>> _, found = jax.jit(disarm().estimate, static_argnums=3)(key, None, logits, loss, {})
      >>> found.policy_grads["edges"].tolist()
      [[-0.75, 0.75]]

    References:
      Dong, Mnih and Tucker, 2020, "DisARM: an antithetic gradient estimator for binary latent variables", arXiv
      2006.10680; Yin et al., 2020, "Probabilistic best subset selection via gradient-based optimization" (U2G).
    """

    def factor(phi, u, first, second):
        del u
        # (-1)^c 1[b != c] s(|phi|) / 2.
        sign = jnp.where(second == 1, -1.0, 1.0)
        return jnp.where(first == second, 0.0, 0.5 * sign * jax.nn.sigmoid(jnp.abs(phi)))

    return _antithetic(factor, dense)


def _antithetic(factor: Callable[..., jax.Array], dense: bool) -> Estimator:
    def estimate(key, state, policy_params, loss_fn, params):
        _check_binary(policy_params)
        phi = jax.tree.map(lambda leaf: leaf[..., 1] - leaf[..., 0], wide(policy_params))
        keys = optax.tree.split_key_like(key, phi)
        u = jax.tree.map(lambda k, leaf: jax.random.uniform(k, leaf.shape, leaf.dtype), keys, phi)
        # The antithetic pair from the same uniforms, mirrored.
        first = jax.tree.map(lambda u, phi: (1 - u < jax.nn.sigmoid(phi)).astype(jnp.int32), u, phi)
        second = jax.tree.map(lambda u, phi: (u < jax.nn.sigmoid(phi)).astype(jnp.int32), u, phi)
        found = evaluate(loss_fn, params, policy_params, stacked(first, second), dense=dense)
        difference = found.losses[0] - found.losses[1]
        # The gradient in phi, and with it that in both logits.
        slopes = jax.tree.map(lambda *leaves: difference * factor(*leaves), phi, u, first, second)
        grads = jax.tree.map(lambda slope: jnp.stack([-slope, slope], -1), slopes)
        return state, estimate_of(found, grads, policy_params, {})

    return Estimator(no_state, estimate)


def _check_binary(logits: Tree) -> None:
    for leaf in jax.tree.leaves(logits):
        if leaf.shape[-1] != 2:
            raise UserError(f"decisions must have two options here, got logits of shape {leaf.shape}; see disarm_iw")
