"""REINFORCE: the score-function estimator, with the baselines in use."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxnas.base import Estimator, Policy
from jaxnas.dtypes import wide_dtype_of
from jaxnas.errors import UserError
from jaxnas.estimators.evaluation import estimate_of, evaluate, score_gradient, stacked, wide
from jaxnas.guard import guarded

__all__ = ["Baseline", "ReinforceState", "reinforce"]

Baseline = Literal["none", "moving_average", "inclusive_average", "self_critical", "leave_one_out"]


class ReinforceState(NamedTuple):
    """What REINFORCE remembers.

    Attributes:
      baseline: moving average of the losses, a scalar.
      step: number of steps that the average has seen.
    """

    baseline: jax.Array
    step: jax.Array


def reinforce(
    policy: Policy,
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
    * `moving_average`: the average of the losses of earlier steps, `b <- decay b + (1 - decay) mean(loss)` after it was
      used; the first step sets it. Losses that are not finite are left out of it.
    * `inclusive_average`: the same average, but moved before it is used, as in the released code of ProxylessNAS with
      `decay=0.01`; `S >= 2`. A sample is then part of its own baseline, and the mean is `1 - (1 - decay) / S` of the
      gradient, in the first step `1 - 1 / S`.
    * `self_critical`: the loss of the policy's mode.
    * `leave_one_out`: the mean of the other samples' losses, `S >= 2`.

    Args:
      policy: any policy, such as `categorical(space.choices)` or an autoregressive controller.
      num_samples: number `S` of architectures per step; evaluated one after the other, so memory does not grow with it.
      baseline: the name of `b_s` in the list above.
      decay: factor of the moving average's past, in [0, 1).
      dense: whether architectures run as one-hot dense paths or as sparse ones.

    Returns:
      An estimator. `Estimate.paths` and `aux` are those of the last sample.

    Raises:
      UserError: an unknown baseline, too few samples, `decay` outside [0, 1).

    Example:
      >>> from jaxnas.policies import categorical
      >>> logits, loss = {"edges": jnp.zeros((1, 2))}, lambda paths, params: (jnp.float32(3), {})
      >>> estimator = reinforce(categorical(logits), num_samples=4, baseline="leave_one_out")
      >>> key = jax.random.key(0)
      >>> _, found = jax.jit(estimator.estimate, static_argnums=3)(key, estimator.init(key, logits), logits, loss, {})
      >>> found.policy_grads["edges"].tolist()  # a constant loss teaches nothing
      [[0.0, 0.0]]

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

    def init(key, policy_params):
        del key
        return ReinforceState(jnp.zeros((), wide_dtype_of(policy_params)), jnp.zeros((), jnp.int32))

    def estimate(key, state, policy_params, loss_fn, params):
        theta = wide(policy_params)
        archs = jax.vmap(policy.sample, (0, None))(jax.random.split(key, num_samples), theta)
        found = evaluate(loss_fn, params, policy.choices, archs, dense=dense)
        losses, average = found.losses, state.baseline
        # The average of the losses up to this step.
        if baseline in ("moving_average", "inclusive_average"):
            mean = jnp.mean(losses).astype(average.dtype)
            average = jnp.where(state.step == 0, mean, decay * average + (1 - decay) * mean)
        # The baselines b_s.
        if baseline == "leave_one_out":
            levels = (jnp.sum(losses) - losses) / (num_samples - 1)
        elif baseline == "self_critical":
            mode = stacked(policy.mode(theta))
            levels = jax.lax.stop_gradient(evaluate(loss_fn, params, policy.choices, mode, dense=dense).losses)
        else:
            levels = (average if baseline == "inclusive_average" else state.baseline)[None]  # zero where there is none
        # (1/S) sum_s (loss(a_s) - b_s) d log p(a_s).
        grads = score_gradient(policy, theta, archs, (losses - levels) / num_samples)
        info = {"baseline": jnp.mean(levels)}
        # A loss that is not finite would stay in the average for good.
        state, _ = guarded(ReinforceState(average, state.step + 1), state)
        return state, estimate_of(found, grads, policy_params, info)

    return Estimator(init, estimate)
