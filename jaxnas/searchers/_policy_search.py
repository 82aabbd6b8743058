"""REINFORCE on any policy, as a black-box search: it asks for samples and is told their fitness."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.architectures import decisions
from jaxnas.base import BlackBox, Policy, Tree
from jaxnas.estimators.evaluation import score_gradient
from jaxnas.guard import guarded
from jaxnas.searchers.incumbent import BlackBoxInfo, Incumbent, better, check_at_least, no_incumbent, scalar_fitness
from jaxnas.searchers.policy_gradient import Average, average_with, check_decay, descend, sample_archs

__all__ = ["PolicySearchState", "policy_search"]


class PolicySearchState(NamedTuple):
    """The policy, its optimiser and its baseline.

    Attributes:
      policy_params: parameters of the policy.
      opt: state of the policy's optimiser.
      total: moving average of fitness, before the correction for its start at zero.
      weight: divisor that corrects `total`, from 0 to 1.
      best: the best architecture of all that were told.
    """

    policy_params: Tree
    opt: optax.OptState
    total: jax.Array
    weight: jax.Array
    best: Incumbent


def policy_search(
    policy: Policy,
    tx: optax.GradientTransformation,
    *,
    batch_size: int = 1,
    baseline_decay: float = 0.9,
) -> BlackBox:
    """REINFORCE with a moving-average baseline (Williams 1992), as NAS-Bench-201 and NATS-Bench run it.

    The policy's parameters follow `mean_b (f_b - baseline) grad log p(arch_b)`, downhill in fitness. The baseline is
    the average over what was told, the batch included, as in the released code: the estimate is biased by that, less
    the closer the decay is to one. Fitness that is not finite teaches nothing, and a step that would leave the policy,
    its optimiser or the baseline infinite or NaN is not taken (`jaxnas.guard`).

    Args:
      policy: the distribution that is learned, for example `categorical(space.choices)`.
      tx: optimiser of the policy's parameters. NATS-Bench uses Adam with a learning rate of 0.01.
      batch_size: number of architectures per `ask`.
      baseline_decay: weight of the old average when a batch is added, in [0, 1).

    Raises:
      UserError: a batch below one, a decay outside of [0, 1).

    Example:
      >>> from jaxnas.policies import categorical
      >>> search = policy_search(categorical({"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)}), optax.adam(0.1))
      >>> state, archs = search.ask(jax.random.key(1), search.init(jax.random.key(0)))
      >>> state, info = jax.jit(search.tell)(jax.random.key(2), state, archs, jnp.array([[0.5]]))
      >>> float(info.best), archs["edges"].shape
      (0.5, (1, 2))
    """
    check_at_least(batch_size=batch_size)
    check_decay(baseline_decay)
    flat = decisions(policy.choices)

    def init(key):
        policy_params = policy.init(key)
        zero = jnp.zeros((), jnp.float32)
        return PolicySearchState(policy_params, tx.init(policy_params), zero, zero, no_incumbent(len(flat.counts)))

    def ask(key, state):
        return state, sample_archs(policy, key, state.policy_params, batch_size)

    def tell(key, state, archs, fitness):
        del key
        values, bad = scalar_fitness(fitness)
        good = jnp.isfinite(values)
        # The baseline: a moving average that counts this batch too, corrected for its start at zero.
        number = jnp.maximum(jnp.sum(good, dtype=values.dtype), 1)
        mean = jnp.where(good, values, 0).sum() / number
        total, weight = average_with(Average(state.total, state.weight), mean, baseline_decay)
        advantage = jnp.where(good, values - total / jnp.maximum(weight, 1 - baseline_decay), 0)
        # The gradient of REINFORCE: mean_b (f_b - baseline) grad log p(arch_b).
        grads = score_gradient(policy, state.policy_params, archs, advantage * (1 / number))
        # The step of the optimiser, taken back unless all of it is finite.
        moved = *descend(tx, grads, state.policy_params, state.opt), total, weight
        before = state.policy_params, state.opt, state.total, state.weight
        (policy_params, opt, total, weight), taught = guarded(moved, before, alive=good.any())
        best = better(state.best, flat.join(archs), values)
        # A batch whose step is rejected has taught nothing, so that all of it counts as bad.
        state = PolicySearchState(policy_params, opt, total, weight, best)
        return state, BlackBoxInfo(best.fitness, jnp.where(taught, bad, len(values)))

    return BlackBox(init, ask, tell, lambda state: flat.split(state.best.row))
