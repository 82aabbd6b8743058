"""ARSM: augment, reinforce, swap, merge. Unbiased, from the losses of architectures alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Estimator
from jaxnas.estimators.evaluation import estimate_of, evaluate, no_state, wide
from jaxnas.relaxations import exponential

__all__ = ["arsm"]


def arsm(*, dense: bool = False) -> Estimator:
    """`grad_c = sum_j (F_cj - mean_m F_mj) (1/K - w_j)` with `w ~ Dirichlet(1, ..., 1)`.

    `F_cj` is the loss at `argmin_i (log w_i - logits_i)` after `w_c` and `w_j` have changed places; all decisions swap
    at once. Unbiased; `K (K - 1) / 2 + 1` evaluations of the loss, with `K` the largest number of options of a
    decision, and no derivative with respect to the paths. A decision with fewer options sits out the swaps it lacks.

    Args:
      dense: whether architectures run as one-hot dense paths or as sparse ones.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`. `Estimate.value` is the loss without a swap;
      `paths` and `aux` are those of the last swap, `weight_grads` the mean over all evaluations.

    Example:
      >>> logits, loss = {"edges": jnp.zeros((2, 3))}, lambda paths, params: (jnp.float32(3), {})
      >>> _, found = jax.jit(arsm().estimate, static_argnums=3)(jax.random.key(0), None, logits, loss, {})
      >>> bool((found.policy_grads["edges"] == 0).all())  # a constant loss teaches nothing
      True

    References:
      Yin, Yue and Zhou, 2019, "ARSM: Augment-REINFORCE-swap-merge estimator for gradient backpropagation through
      categorical variables", arXiv 1905.01413.
    """

    def estimate(key, state, policy_params, loss_fn, params):
        # w ~ Dirichlet(1, ..., 1), as exponential noise before it is divided by its sum.
        logits = wide(policy_params)
        noise = jax.tree.map(exponential, optax.tree.split_key_like(key, logits), logits)
        options = max(leaf.shape[-1] for leaf in jax.tree.leaves(logits))
        orders, place = _swaps(options)

        def arch_of(order):
            def pick(noise, leaf):
                k = leaf.shape[-1]
                fits = jnp.all(order[:k] < k)  # else the swap needs an option that this decision does not have
                log_w = jnp.log(noise)[..., jnp.where(fits, order[:k], jnp.arange(k))]
                return jnp.argmin(log_w - leaf, -1).astype(jnp.int32)

            return jax.tree.map(pick, noise, logits)

        # F_cj for all pairs: every distinct swap is evaluated once.
        archs = jax.vmap(arch_of)(jnp.asarray(orders))
        found = evaluate(loss_fn, params, policy_params, archs, dense=dense)
        table = found.losses[place]

        def grad(noise):
            k = noise.shape[-1]
            # sum_j (F_cj - mean_m F_mj) (1/K - w_j).
            centred = table[:k, :k] - jnp.mean(table[:k, :k], 0, keepdims=True)
            share = noise / jnp.sum(noise, -1, keepdims=True)
            return jnp.einsum("cj,...j->...c", centred, 1 / k - share)

        estimate = estimate_of(found, jax.tree.map(grad, noise), policy_params, {})
        return state, estimate._replace(value=found.losses[0])

    return Estimator(no_state, estimate)


def _swaps(options: int) -> tuple[np.ndarray, np.ndarray]:
    """Orders `[n, K]`, the first without a swap, and which of them exchanges `c` and `j`: `[K, K]`."""
    # Row 0 swaps nothing, row r the r-th pair of options.
    pairs = list(itertools.combinations(range(options), 2))
    orders, place = np.tile(np.arange(options), (len(pairs) + 1, 1)), np.zeros((options, options), int)
    for row, (c, j) in enumerate(pairs, 1):
        orders[row, [c, j]] = j, c
        place[c, j] = place[j, c] = row
    return orders, place
