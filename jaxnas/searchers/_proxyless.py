"""ProxylessNAS: one path in memory for the weights, binary gates for the architecture, latency in the loss."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import CostTable, Estimator, Params, Paths, Searcher, SearchSpace, Tree
from jaxnas.costs import cost
from jaxnas.errors import UserError
from jaxnas.estimators import (
    NoState,
    Objective,
    binary_gate,
    pathwise,
    reinforce,
    two_path_gate,
    two_path_rescale,
    with_objective,
)
from jaxnas.policies import categorical
from jaxnas.relaxations import st_softmax
from jaxnas.searchers._skip_unused import skip_unused
from jaxnas.searchers.gradient import SearchStep, gradient_search, policy_step, weight_step
from jaxnas.searchers.optimisers import Schedule, sgd_l2
from jaxnas.searchers.state import SearchLoss, classification_loss

__all__ = ["Mode", "proxyless", "reward_loss"]

Mode = Literal["full_v2", "two", "full", "reinforce"]


def proxyless(
    space: SearchSpace,
    *,
    mode: Mode = "full_v2",
    learning_rate: float | Schedule = 0.025,
    momentum: float = 0.9,
    weight_decay: float = 4e-5,
    label_smoothing: float = 0.1,
    policy_learning_rate: float = 1e-3,
    objective: Objective | None = None,
    warmup_steps: int = 0,
    rest_steps: int = 0,
    policy_every: int = 5,
    skip_zero_sampled: bool = True,
    num_samples: int = 10,
    baseline: Literal["inclusive_average", "leave_one_out"] = "inclusive_average",
    reward: SearchLoss | None = None,
) -> Searcher:
    """ProxylessNAS (Cai, Zhu and Han, 2019, arXiv 1812.00332), algorithm and defaults of the released code.

    A step trains the weights of one sampled path; what did not run keeps its weights and momentum. In every
    `policy_every`-th step, after the warm-up, the architecture moves first, on its own batch and without label
    smoothing:

    * `full_v2`: one path runs, the gates of all others are asked for in the backward pass (equation 4).
    * `two`: two sampled operations per block, the others keep their probabilities.
    * `full`: the gradient of `full_v2` with all operations in memory.
    * `reinforce`: `num_samples` networks, forward only.

    Args:
      space: the supernet, usually `jaxnas.spaces.proxyless_space`.
      mode: name of the gradient of the architecture, as listed above.
      learning_rate: learning rate of the weights, a float or a schedule of the step.
      momentum: Nesterov's momentum of the weights' SGD.
      weight_decay: L2 coefficient for the weights, added to the gradient before momentum.
      label_smoothing: share of the target that is spread over all classes, in the loss of the weights.
      policy_learning_rate: learning rate of Adam, betas `(0, 0.999)`, on the logits. Without the first moment a logit
        that is not asked about stays where it is.
      objective: `(loss, logits, paths) -> scalar`, for example `jaxnas.costs.latency.latency_objective(...)`.
      warmup_steps: number of first steps in which the architecture does not move, so that paths are drawn almost
        uniformly.
      rest_steps: number of steps after the warm-up in which the architecture rests, too; in the released code one
        epoch.
      policy_every: number of steps of the weights for each step of the architecture.
      skip_zero_sampled: whether a block whose sampled operation is `zero` learns nothing from that batch, neither from
        the loss nor from the latency, as in the released code; False follows equation 4. It holds for the three modes
        with gates. `reinforce`, whose samples all count, skips nothing, as in the released code.
      num_samples: number of networks in a step of `reinforce`, at least 2.
      baseline: baseline of `reinforce`. `"inclusive_average"` is that of the released code: an average of all rewards
        so far, in which the samples of the step weigh most, so that with ten samples the gradient is a tenth too small.
        `"leave_one_out"` is unbiased.
      reward: the loss of `reinforce`, for example `reward_loss(...)`; by default the cross-entropy.

    Returns:
      The searcher.

    Raises:
      UserError: another mode, a number of steps below zero, `policy_every` below one, a reward without `reinforce`,
        too few samples, `skip_zero_sampled` with a space whose operations have no names.

    Example:
      >>> from jaxnas.base import Batch
      >>> from jaxnas.spaces import chain_space
      >>> space = chain_space({"tanh": jnp.tanh, "zero": jnp.zeros_like}, length=2)
      >>> search, half = proxyless(space, policy_every=2), (jnp.ones((4, 3)), jnp.zeros(4, jnp.int32))
      >>> state, step = search.init(jax.random.key(0), Batch(half, half)), jax.jit(search.step)
      >>> for i in range(4):
      ...     state, info = step(jax.random.key(i), state, Batch(half, half))
      >>> int(state.step), int(state.policy_steps)
      (4, 2)
    """
    if mode not in ("full_v2", "two", "full", "reinforce"):
        raise UserError(f"mode must be 'full_v2', 'two', 'full' or 'reinforce', got {mode!r}")
    if warmup_steps < 0 or rest_steps < 0 or policy_every < 1:
        raise UserError(
            "warmup_steps and rest_steps must be at least 0 and policy_every at least 1, "
            f"got {warmup_steps}, {rest_steps} and {policy_every}"
        )
    if reward is not None and mode != "reinforce":
        raise UserError(f"a reward needs mode='reinforce', got {mode!r}")
    policy = categorical(space.choices)
    # The estimator of the policy's gradient, and Adam on the logits.
    if mode == "reinforce":
        estimator = reinforce(policy, num_samples=num_samples, baseline=baseline, decay=0.01)
    else:
        estimator = {"full_v2": binary_gate(), "two": two_path_gate(), "full": pathwise(st_softmax)}[mode]
    policy_tx = _policy_adam(policy_learning_rate, rescale=mode == "two")
    # The objective whose gradient the policy follows, and the rows of the logits that a step may move.
    if objective is not None:
        estimator = with_objective(estimator, objective)
    if skip_zero_sampled and mode != "reinforce":
        moves = _without_sampled_zero(space)
        estimator, policy_tx = _moving_only(estimator, moves), skip_unused(policy_tx, moves)
    # The weights: SGD that leaves alone what did not run, on the smoothed loss.
    weight_tx = sgd_l2(learning_rate, momentum=momentum, weight_decay=weight_decay, clip=None, nesterov=True)
    policy_loss = classification_loss(space) if reward is None else reward
    return gradient_search(
        space,
        policy,
        estimator,
        skip_unused(weight_tx, space.used),
        policy_tx,
        loss=classification_loss(space, label_smoothing=label_smoothing),
        step=_in_turn(policy_loss, warmup_steps, rest_steps, policy_every),
    )


def _in_turn(policy_loss: SearchLoss, warmup_steps: int, rest_steps: int, policy_every: int) -> SearchStep:
    """A step of the weights, in every `policy_every`-th step after one of the policy."""

    def step(parts, key, state, batch):
        key_policy, key_weights = jax.random.split(key)

        # Policy step in its turn, without label smoothing: equation 4, or REINFORCE.
        def move(state):
            return policy_step(parts._replace(loss=policy_loss), key_policy, state, batch.policy)

        def rest(state):
            return state, optax.tree.zeros_like(jax.eval_shape(move, state)[1])

        late = state.step >= warmup_steps + rest_steps
        turn = late & ((state.step - warmup_steps) % policy_every == policy_every - 1)
        moved, policy_seen = jax.lax.cond(turn, move, rest, state)
        # Weight step: one sampled path; what did not run keeps weights and momentum.
        one_path = parts._replace(estimator=binary_gate())
        new, weights_seen = weight_step(one_path, key_weights, moved._replace(estimator=NoState()), batch.weights)
        return new._replace(estimator=moved.estimator), policy_seen | weights_seen

    return step


def reward_loss(space: SearchSpace, table: CostTable, target: float, *, exponent: float = 0.1) -> SearchLoss:
    """`-accuracy * (target / latency)^exponent` of the architecture that ran, to be minimised by `reinforce`.

    Args:
      space: the supernet, which classifies images.
      table: latency of its blocks in milliseconds, from `jaxnas.costs.latency.latency_cost`.
      target: target latency in milliseconds, above zero.
      exponent: weight of the latency; 0.1 in the released code, 0.07 in MnasNet (arXiv 1807.11626).

    Raises:
      UserError: a target that is not above zero.
    """
    if not target > 0:
        raise UserError(f"target must be above 0 ms, got {target}")
    inner = classification_loss(space)

    def loss(paths: Paths, params: Any, batch: Any, key: jax.Array | None = None):
        _, aux = inner(paths, params, batch, key)
        latency = cost(table, jax.tree.map(lambda leaf: leaf[..., 0], paths.index))
        return -aux["accuracy"] * (target / latency) ** exponent, aux

    return loss


def _policy_adam(learning_rate: float, *, rescale: bool) -> optax.GradientTransformation:
    """Adam without a first moment; with `rescale` a pair of logits keeps its total probability."""
    links = [optax.scale_by_adam(b1=0.0, b2=0.999, eps=1e-8), optax.scale_by_learning_rate(learning_rate)]
    return optax.chain(*links, two_path_rescale()) if rescale else optax.chain(*links)


def _moving_only(estimator: Estimator, moves: Callable[[Params, Paths], Tree]) -> Estimator:
    """The estimator with a policy gradient of zero in the rows of the logits that a step may not move."""

    def estimate(key, state, policy_params, loss_fn, params):
        state, found = estimator.estimate(key, state, policy_params, loss_fn, params)
        rows = moves(policy_params, found.paths)
        grads = jax.tree.map(lambda g, on: jnp.where(on, g, jnp.zeros_like(g)), found.policy_grads, rows)
        return state, found._replace(policy_grads=grads)

    return Estimator(estimator.init, estimate)


def _without_sampled_zero(space: SearchSpace) -> Callable[[Params, Paths], Tree]:
    """Which rows of the logits a step may move: those whose sampled operation is not called `zero`.

    The sampled operation is the one that runs in sparse paths, and the one with weight one in dense paths.
    """
    names = space.about.operations
    if names is None:
        raise UserError("skip_zero_sampled needs a space that names its operations in about.operations")

    def moves(logits: Tree, paths: Paths) -> Tree:
        del logits

        def row(sampled: jax.Array, operations: tuple[str, ...]) -> jax.Array:
            return sampled != operations.index("zero") if "zero" in operations else jnp.ones(sampled.shape, bool)

        # The sampled operation of every decision, `[E, 1]`.
        sparse, dense = paths.index, paths.weight
        sampled = {kind: sparse[kind][:, :1] if sparse else jnp.argmax(dense[kind], -1)[:, None] for kind in dense}
        return {kind: row(index, names[kind]) for kind, index in sampled.items()}

    return moves
