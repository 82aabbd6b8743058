"""The learning rule of NAS-RL: REINFORCE for a controller, on a fitness that somebody else measures.

The controller is any policy; `jaxnas.policies.controller` is that of the paper. Rewards are in
`jaxnas.searchers.rewards`; `jaxnas.searchers.outstanding` keeps the asks that several replicas have not been told yet.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.architectures import decisions
from jaxnas.base import Arch, BlackBox, Policy, Tree
from jaxnas.errors import UserError
from jaxnas.estimators.evaluation import score_gradient
from jaxnas.guard import guarded
from jaxnas.searchers.incumbent import BlackBoxInfo, Incumbent, better, check_at_least, no_incumbent, scalar_fitness
from jaxnas.searchers.outstanding import Ask, none_outstanding, put, take
from jaxnas.searchers.policy_gradient import Average, average_with, check_decay, descend, sample_archs
from jaxnas.searchers.rewards import Reward

__all__ = ["PPO", "NasRLState", "depth_schedule", "nas_rl"]

Growth = Callable[[jax.Array | int], jax.Array]  # number of children asked for so far -> number of tokens


class PPO(NamedTuple):
    """Settings of proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347) in place of one plain step.

    Attributes:
      clip: distance of the probability ratio from 1, above 0. A child whose ratio has moved further than this in the
        direction of its advantage adds nothing to the gradient.
      steps: number of optimiser steps that each batch is used for, at least 1.
    """

    clip: float = 0.2
    steps: int = 4


class NasRLState(NamedTuple):
    """What the next ask and the next tell start from.

    Attributes:
      policy_params: parameters of the policy.
      opt: state of the policy's optimiser.
      earlier: parameters before the last 1, 2, ..., `staleness` updates, with that leading axis in every leaf.
      baseline: moving average of the rewards of all batches told.
      asked: number of children asked for so far, int32.
      outstanding: asks that have not been told, in `replicas` slots.
      forgotten: number of asks that a later ask has overwritten before they were told, int32.
      best: the best architecture of all that were told.
    """

    policy_params: Tree
    opt: optax.OptState
    earlier: Tree
    baseline: Average
    asked: jax.Array
    outstanding: Ask
    forgotten: jax.Array
    best: Incumbent


def depth_schedule(start: int = 6, by: int = 2, every: int = 1600, most: int = 20, tokens_per_layer: int = 4) -> Growth:
    """A `growth` for `nas_rl`: networks of `start` layers at first, and `by` more after each `every` children.

    The defaults are those of Zoph & Le (2017, section 4.1).

    Args:
      start: number of layers of the first children.
      by: number of layers that are added each time.
      every: number of children after which layers are added.
      most: number of layers at which the growth ends, at least `start`.
      tokens_per_layer: number of tokens that the controller writes for a layer.

    Returns:
      A function from the number of children asked for so far to the number of tokens; both may be traced.

    Raises:
      UserError: a number below 1, or `most` below `start`.

    Example:
      >>> growth = depth_schedule()
      >>> [int(growth(asked)) for asked in (0, 1599, 1600, 12_799)]
      [24, 24, 32, 80]
    """
    check_at_least(start=start, by=by, every=every, tokens_per_layer=tokens_per_layer)
    if most < start:
        raise UserError(f"most must be at least start, which is {start}, got {most}")
    return lambda asked: tokens_per_layer * jnp.minimum(most, start + by * (asked // every))


def nas_rl(
    policy: Policy | Callable[[jax.Array], Policy],
    tx: optax.GradientTransformation,
    *,
    batch_size: int,
    reward: Reward,
    baseline_decay: float = 0.95,
    ppo: PPO | None = None,
    growth: Growth | None = None,
    staleness: int = 0,
    replicas: int = 1,
) -> BlackBox:
    """`g = 1/m sum_k (R_k - b) grad log p(arch_k)`, uphill in reward: NAS-RL (Zoph & Le 2017, section 3.2).

    The baseline `b` is the moving average of the rewards of *earlier* batches, corrected for its start, and 0 before
    there is any. A child whose fitness is not finite has diverged: its reward is 0, it counts as `bad`, and it teaches
    like every other. A step that would leave anything infinite or NaN is not taken (`jaxnas.guard`), and its whole
    batch counts as `bad`.

    *Parallel training.* In the paper many replicas of the controller ask a parameter server for parameters, sample
    children with them, and send back a gradient when those are trained. `replicas` is how many asks may wait to be told
    at the same time, in any order of telling: the gradient of each is taken at the parameters that it was sampled with,
    and moves the present ones. When all slots are taken, a new ask overwrites the oldest one. From then on a batch
    whose architectures are not those of an outstanding ask teaches nothing and counts as `bad`, because the parameters
    that it was sampled with may be lost. Before that its architectures are taken for changed ones of the oldest
    outstanding ask. `staleness` simulates replicas in a search whose asks are told at once: each ask takes the
    parameters of `d` updates ago, with `d` uniform from 0 to `staleness`.

    *Growing networks.* With `growth` the policy is a function of the number of tokens, for example
    `lambda length: controller(choices, tokens, length=length)`. The number is traced, so that one program serves all
    depths, and `origins` reports it as `{"length": [B]}`.

    *PPO.* With `ppo` each batch takes several steps up the gradient of
    `1/m sum_k min(r_k A_k, clip(r_k, 1 - clip, 1 + clip) A_k)`, where `A = R - b` and `r_k` is the probability of the
    architecture now, divided by that with which it was sampled. At equal parameters this gradient is `g`.

    The paper gives no decay for the baseline; 0.95 is taken from released code. PPO is an option of later work, and its
    ratio is that of whole architectures, as is the reward.

    Args:
      policy: the distribution that is learned; with `growth` a function of a number of tokens that returns it.
      tx: optimiser of the policy's parameters. The paper uses Adam with a learning rate of 6e-4 for images.
      batch_size: number of architectures `m` of an ask.
      reward: function from fitness `[B]`, which is minimised, to reward `[B]`, which is maximised. See
        `jaxnas.searchers.rewards`. It is not used for children whose fitness is not finite; their reward is 0.
      baseline_decay: weight of the old average when a batch is added, in [0, 1).
      ppo: settings of PPO; None for one step of REINFORCE.
      growth: function from the number of children asked for so far to the number of tokens in use.
      staleness: greatest number of updates that the parameters of an ask may be behind.
      replicas: number of asks that may be outstanding.

    Returns:
      The search. Its `tell` takes the architectures of one ask, which it recognises by their decisions.

    Raises:
      UserError: a setting out of range, a policy that does not fit `growth`, or while it is traced a reward of another
        shape than the fitness.

    Example:
      >>> from jaxnas.policies import controller
      >>> policy = controller({"layers": jax.ShapeDtypeStruct((3, 4), jnp.float32)})
      >>> search = nas_rl(policy, optax.adam(6e-4), batch_size=2, reward=lambda error: (1 - error) ** 3)
      >>> state, archs = search.ask(jax.random.key(1), search.init(jax.random.key(0)))
      >>> state, info = jax.jit(search.tell)(jax.random.key(2), state, archs, jnp.array([[0.5], [jnp.nan]]))
      >>> archs["layers"].shape, float(info.best), int(info.bad)
      ((2, 3), 0.5, 1)

    References:
      Zoph & Le, 2017, "Neural architecture search with reinforcement learning", arXiv 1611.01578, section 3.2.
      Schulman et al., 2017, "Proximal policy optimization algorithms", arXiv 1707.06347, equation 7.
    """
    check_at_least(batch_size=batch_size, replicas=replicas)
    check_decay(baseline_decay)
    _check_optional(staleness, ppo)
    policy_for = _by_number_asked(policy, growth)
    flat = decisions(policy_for(0).choices)

    def init(key):
        params = policy_for(0).init(key)
        earlier = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], staleness, 0), params)
        zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        outstanding = none_outstanding(replicas, batch_size, len(flat.counts), params)
        best = no_incumbent(len(flat.counts))
        return NasRLState(params, tx.init(params), earlier, Average(zero, zero), none, outstanding, none, best)

    def ask(key, state):
        key_age, key_archs = jax.random.split(key)
        # The parameters that a replica has fetched, `age` updates ago.
        age = jax.random.randint(key_age, (), 0, staleness + 1)
        params = jax.tree.map(lambda leaf: leaf[age], _by_age(state))
        archs = sample_archs(policy_for(state.asked), key_archs, params, batch_size)
        outstanding, overwritten = put(state.outstanding, Ask(state.asked, flat.join(archs), params))
        asked, forgotten = state.asked + batch_size, state.forgotten + overwritten.astype(jnp.int32)
        return state._replace(asked=asked, outstanding=outstanding, forgotten=forgotten), archs

    def tell(key, state, archs, fitness):
        del key
        values, bad = scalar_fitness(fitness)
        rows = flat.join(archs)
        now = Ask(state.asked, rows, state.policy_params)
        told, outstanding, known = take(state.outstanding, rows, now, forgotten=state.forgotten > 0)
        # The advantages: rewards above the average of all earlier batches.
        rewards = _rewards(reward, values)
        advantages = rewards - state.baseline.total / jnp.maximum(state.baseline.weight, 1 - baseline_decay)
        baseline = average_with(state.baseline, jnp.mean(rewards), baseline_decay)
        # The steps of the optimiser, taken back unless the ask is known and all of them are finite.
        params, opt = _ascend(policy_for(told.first), tx, ppo, state, told.policy_params, archs, advantages)
        earlier = jax.tree.map(lambda leaf: leaf[:staleness], _by_age(state))
        moved = params, opt, earlier, baseline
        before = state.policy_params, state.opt, state.earlier, state.baseline
        (params, opt, earlier, baseline), taught = guarded(moved, before, alive=known)
        best = better(state.best, rows, values)
        state = NasRLState(params, opt, earlier, baseline, state.asked, outstanding, state.forgotten, best)
        return state, BlackBoxInfo(best.fitness, jnp.where(taught, bad, len(values)))

    origins = None if growth is None else _lengths(growth, batch_size)
    return BlackBox(init, ask, tell, lambda state: flat.split(state.best.row), origins)


def _check_optional(staleness: int, ppo: PPO | None) -> None:
    """Raises `UserError` for a staleness or settings of PPO that are out of range."""
    if staleness < 0:
        raise UserError(f"staleness must be at least 0, got {staleness}")
    if ppo is not None and not (ppo.clip > 0 and ppo.steps >= 1):
        raise UserError(f"ppo must have a clip above 0 and at least 1 step, got {ppo}")


def _by_number_asked(
    policy: Policy | Callable[[jax.Array], Policy], growth: Growth | None
) -> Callable[[jax.Array | int], Policy]:
    """The policy by the number of children asked for so far.

    Raises:
      UserError: a policy that grows without `growth`, or the other way round.
    """
    if isinstance(policy, Policy) and growth is None:
        return lambda asked: policy
    if not isinstance(policy, Policy) and growth is not None:
        return lambda asked: policy(growth(asked))
    raise UserError(f"policy must be a function of the number of tokens with growth, else a Policy, got {policy}")


def _lengths(growth: Growth, batch_size: int) -> Callable[[NasRLState], Tree]:
    """The `origins` of a search with growing networks: the number of tokens of each child of the last ask."""
    return lambda state: {"length": jnp.full(batch_size, growth(state.asked - batch_size), jnp.int32)}


def _by_age(state: NasRLState) -> Tree:
    """Parameters of the policy by the number of updates since, `[1 + staleness, ...]`."""
    return jax.tree.map(lambda now, past: jnp.concatenate([now[None], past]), state.policy_params, state.earlier)


def _rewards(reward: Reward, values: jax.Array) -> jax.Array:
    """Rewards of fitness `[B]`; 0 for a child that has diverged, whose fitness is infinite here."""
    rewards = jnp.asarray(reward(values), jnp.float32)
    if rewards.shape != values.shape:
        raise UserError(f"reward must return an array of shape {values.shape}, got {rewards.shape}")
    return jnp.where(jnp.isfinite(values), rewards, 0)


def _ascend(
    policy: Policy,
    tx: optax.GradientTransformation,
    ppo: PPO | None,
    state: NasRLState,
    sampled_with: Tree,
    archs: Arch,
    advantages: jax.Array,
) -> tuple[Tree, optax.OptState]:
    """Parameters and state of the optimiser after what one batch teaches; the optimiser descends, hence the signs."""
    weights = -advantages / len(advantages)
    if ppo is None:
        # g = 1/m sum_k (R_k - b) grad log p(arch_k), at the parameters that the batch was sampled with.
        return descend(tx, score_gradient(policy, sampled_with, archs, weights), state.policy_params, state.opt)
    log_probs = jax.vmap(policy.log_prob, (None, 0))
    before = log_probs(sampled_with, archs)

    # The clipped surrogate; a minimum of gains is a maximum of losses.
    def loss(params):
        ratio = jnp.exp(log_probs(params, archs) - before)
        return jnp.sum(jnp.maximum(ratio * weights, jnp.clip(ratio, 1 - ppo.clip, 1 + ppo.clip) * weights))

    def step(_, carry):
        return descend(tx, jax.grad(loss)(carry[0]), *carry)

    return jax.lax.fori_loop(0, ppo.steps, step, (state.policy_params, state.opt))
