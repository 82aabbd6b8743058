"""REINFORCE: the score-function estimator, with the baselines in use."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxnas.base import Estimator, Policy
from jaxnas.dtypes import wide_dtype_of
from jaxnas.errors import UserError
from jaxnas.estimators.evaluation import estimate_of, evaluate, score_gradient, stacked, wide
from jaxnas.guard import guarded
from jaxnas.policies import categorical

__all__ = ["Baseline", "ReinforceState", "reinforce"]

Baseline = Literal["none", "moving_average", "inclusive_average", "self_critical", "leave_one_out"]


class ReinforceState(NamedTuple):
    """The moving average of losses, and of how many steps it is."""

    baseline: jax.Array
    step: jax.Array


def reinforce(
    policy: Policy | None = None,
    *,
    num_samples: int = 1,
    baseline: Baseline = "none",
    decay: float = 0.9,
    dense: bool = False,
) -> Estimator:
    """`grad = (1/S) sum_s (loss(a_s) - b_s) d/dtheta log p(a_s)` with `a_s ~ p`.

    Unbiased for the expected loss over architectures where no `b_s` depends on `a_s`; needs no derivative of the loss
    with respect to the paths. Variance falls like `1 / S`. Evaluations of the loss per step: `S`, with `self_critical`
    `S + 1`. The baseline `b_s` is:

    * `none`: 0.
    * `moving_average`: of the losses of earlier steps, `b <- decay b + (1 - decay) mean(loss)` after it was used; the
      first step sets it. Losses that are not finite are left out of it.
    * `inclusive_average`: the same average, but moved before it is used, as in the released code of ProxylessNAS with
      `decay=0.01`; `S >= 2`. A sample is then part of its own baseline, and the mean is `1 - (1 - decay) / S` of the
      gradient, in the first step `1 - 1 / S`.
    * `self_critical`: the loss of the most probable architecture.
    * `leave_one_out`: the mean of the other samples' losses, `S >= 2`.

    Args:
      policy: a distribution over architectures with `sample`, `log_prob` and, for `self_critical`, `mode`; None for
        independent categoricals whose parameters are logits, leaves `[E, K]`.
      num_samples: `S`; evaluated one after the other, so memory does not grow with it.
      baseline: see above.
      decay: of the averages, in [0, 1).
      dense: whether architectures run as one-hot dense paths (then the policy parameters must be logits) or as sparse
        ones.

    Returns:
      An estimator. `Estimate.paths` and `aux` are those of the last sample.

    Raises:
      UserError: an unknown baseline, too few samples, `decay` outside [0, 1), `dense` with a policy of one's own.

    References:
      Williams, 1992, "Simple statistical gradient-following algorithms"; self-critical: Rennie et al., 2017, arXiv
      1612.00563; leave-one-out: Kool et al., 2019, "Buy 4 REINFORCE samples, get a baseline for free!".
    """
    if baseline not in get_args(Baseline):
        raise UserError(f"baseline must be one of {', '.join(get_args(Baseline))}, got {baseline!r}")
    least = 2 if baseline in ("leave_one_out", "inclusive_average") else 1
    if num_samples < least:
        raise UserError(f"num_samples must be at least {least} with baseline={baseline!r}, got {num_samples}")
    if not 0.0 <= decay < 1.0:
        raise UserError(f"decay must lie in [0, 1), got {decay}")
    if dense and policy is not None:
        raise UserError("dense=True needs the logits of independent categoricals, not a policy of one's own")

    def init(key, policy_params):
        del key
        return ReinforceState(jnp.zeros((), wide_dtype_of(policy_params)), jnp.zeros((), jnp.int32))

    def estimate(key, state, policy_params, loss_fn, params):
        own, theta = (policy, policy_params) if policy else (categorical(policy_params), wide(policy_params))
        archs = jax.vmap(own.sample, (0, None))(jax.random.split(key, num_samples), theta)
        found = evaluate(loss_fn, params, policy_params, archs, dense=dense)
        losses, average = found.losses, state.baseline
        if baseline in ("moving_average", "inclusive_average"):
            mean = jnp.mean(losses).astype(average.dtype)
            average = jnp.where(state.step == 0, mean, decay * average + (1 - decay) * mean)
        if baseline == "leave_one_out":
            levels = (jnp.sum(losses) - losses) / (num_samples - 1)
        elif baseline == "self_critical":
            mode = stacked(own.mode(theta))
            levels = jax.lax.stop_gradient(evaluate(loss_fn, params, policy_params, mode, dense=dense).losses)
        else:
            levels = (average if baseline == "inclusive_average" else state.baseline)[None]  # zero where there is none
        grads = score_gradient(own, theta, archs, (losses - levels) / num_samples)
        info = {"baseline": jnp.mean(levels)}
        # A loss that is not finite would stay in the average for good.
        state, _ = guarded(ReinforceState(average, state.step + 1), state)
        return state, estimate_of(found, grads, policy_params, info)

    return Estimator(init, estimate)
