"""Gradient search over weights and policy: the step that DARTS, SNAS and ProxylessNAS share.

They differ in the estimator, in which data the policy sees, and in what is added to the policy's gradient.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Batch, Estimate, Estimator, Params, Paths, Policy, Searcher, SearchSpace, Tree
from jaxnas.errors import UserError
from jaxnas.guard import guarded
from jaxnas.policies import entropy
from jaxnas.searchers.incumbent import NO_OPERATION
from jaxnas.searchers.state import (
    Objective,
    PolicyGradient,
    SearchInfo,
    SearchLoss,
    SearchState,
    classification_loss,
)

__all__ = ["gradient_search"]


def gradient_search(
    space: SearchSpace,
    policy: Policy,
    estimator: Estimator,
    weight_tx: optax.GradientTransformation,
    policy_tx: optax.GradientTransformation,
    *,
    loss: SearchLoss | None = None,
    policy_loss: SearchLoss | None = None,
    level: Literal["joint", "bilevel"] = "bilevel",
    objective: Objective | None = None,
    policy_gradient: PolicyGradient | None = None,
    policy_when: Callable[[jax.Array], jax.Array] | None = None,
    policy_used: Callable[[Paths], Tree] | None = None,
    weight_used: Callable[[Params, Paths], Tree] | None = None,
    weight_estimator: Estimator | None = None,
) -> Searcher:
    """A search that descends on weights and policy in turn or together.

    * `joint`: one estimate on the weights' batch gives both gradients (SNAS).
    * `bilevel`: first the policy descends on its own batch, then the weights on theirs, under the new policy (DARTS,
      ProxylessNAS).

    A step whose loss, gradients or resulting state are not all finite is rejected: `info.nonfinite` and the state's
    `bad` count it, and all else stays as it was before the step (`jaxnas.guard`).

    Args:
      space: the supernet.
      policy: its parameters are initialised and decoded here.
      estimator: see `jaxnas.estimators`.
      weight_tx: optax transformation of the weights.
      policy_tx: optax transformation of the policy's parameters. It is told `paths`, as `two_path_rescale` needs, and
        `used`.
      loss: `(paths, params, batch, key) -> (loss, {"accuracy": ...})`; by default `classification_loss(space)`. What
        of the loss is a penalty may be named in `aux["penalty"]`.
      policy_loss: the same for the policy's batch when bilevel; by default `loss`.
      level: see above.
      objective: `(loss, policy_params, paths) -> scalar` in nats, what the policy minimises; by default the loss. For
        terms in the policy's probabilities, such as an expected cost. `paths` are those that ran, None with
        `policy_gradient`.
      policy_gradient: `(state, batch, key) -> (loss, grads)`, in place of the estimator for the policy's step when
        bilevel (second-order DARTS).
      policy_when: `(step) -> bool`, in which steps the policy descends when bilevel; in all of them by default.
      policy_used: `(paths) -> tree` of bools like the policy's parameters: what of them the step may move, by default
        all. The gradient of the rest is dropped.
      weight_used: `(params, paths) -> tree` of bools, usually `space.used`, that `weight_tx` is told as `used`: see
        `skip_unused`.
      weight_estimator: without a state of its own, for the weights' step when bilevel; by default `estimator`.

    Returns:
      The searcher; `state` is a `SearchState`, `info` a `SearchInfo`. `decode` gives -1, which is no operation, for
      every decision of a policy whose parameters are NaN or infinite.

    Raises:
      UserError: an unknown `level`, or what only a bilevel search knows with a joint one.
    """
    if level not in ("joint", "bilevel"):
        raise UserError(f"level must be 'joint' or 'bilevel', got {level!r}")
    bilevel_only = {
        "policy_gradient": policy_gradient,
        "policy_loss": policy_loss,
        "policy_when": policy_when,
        "weight_estimator": weight_estimator,
    }
    for name, value in bilevel_only.items():
        if value is not None and level == "joint":
            raise UserError(f"{name} needs level='bilevel'")
    loss_fn = classification_loss(space) if loss is None else loss
    parts = _Parts(
        estimator,
        optax.with_extra_args_support(weight_tx),
        optax.with_extra_args_support(policy_tx),
        loss_fn,
        loss_fn if policy_loss is None else policy_loss,
        (lambda value, policy_params, paths: value) if objective is None else objective,
        policy_gradient,
        policy_used,
        weight_used,
        weight_estimator,
    )
    when = (lambda step: True) if policy_when is None else policy_when

    def init(key, batch):
        key_params, key_policy, key_estimator = jax.random.split(key, 3)
        params = space.init(key_params, batch.weights[0])
        policy_params = policy.init(key_policy)
        zero = jnp.zeros((), jnp.int32)
        return SearchState(
            zero,
            zero,
            zero,
            params,
            policy_params,
            weight_tx.init(params),
            policy_tx.init(policy_params),
            estimator.init(key_estimator, policy_params),
        )

    def step(key, state, batch):
        moved = _joint(parts, key, state, batch) if level == "joint" else _bilevel(parts, when, key, state, batch)
        new, seen = moved
        new, good = guarded(new, state, *seen.policy, seen.loss, seen.weight_norm)
        new = new._replace(step=state.step + 1, bad=state.bad + (~good).astype(jnp.int32))
        info = SearchInfo(
            seen.loss - seen.own,
            seen.accuracy,
            seen.policy.loss,
            seen.policy.penalty + (seen.own if level == "joint" else 0.0),
            entropy(new.policy_params) if _is_logits(space, new.policy_params) else jnp.zeros(()),
            seen.temperature,
            seen.weight_norm,
            seen.policy.norm,
            ~good,
        )
        return new, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), info)

    def decode(state):
        scores = state.policy_params
        arch = space.derive(scores) if _is_logits(space, scores) else policy.mode(scores)
        # Minus infinity rules an operation out; with NaN or infinity the greatest score says nothing.
        known = jax.tree.reduce(lambda so_far, leaf: so_far & jnp.all(leaf < jnp.inf), scores, jnp.array(True))
        return jax.tree.map(lambda leaf: jnp.where(known, leaf, NO_OPERATION), arch)

    return Searcher(init, step, decode)


class _Parts(NamedTuple):
    """What `gradient_search` was made of."""

    estimator: Estimator
    weight_tx: optax.GradientTransformationExtraArgs
    policy_tx: optax.GradientTransformationExtraArgs
    loss: SearchLoss
    policy_loss: SearchLoss
    objective: Objective
    policy_gradient: PolicyGradient | None
    policy_used: Callable[[Paths], Tree] | None
    weight_used: Callable[[Params, Paths], Tree] | None
    weight_estimator: Estimator | None


class _PolicySeen(NamedTuple):
    """Of the policy's step: its loss, what the objective added, the norm of its gradient."""

    loss: jax.Array
    penalty: jax.Array
    norm: jax.Array


class _Seen(NamedTuple):
    """Of a whole step; `own` is the penalty in the weights' loss itself."""

    policy: _PolicySeen
    loss: jax.Array
    own: jax.Array
    accuracy: jax.Array
    temperature: jax.Array
    weight_norm: jax.Array


def _joint(parts: _Parts, key, state: SearchState, batch: Batch) -> tuple[SearchState, _Seen]:
    """One estimate for both."""
    _, key = jax.random.split(key)
    after, estimate = _run(parts.estimator, parts.loss, key, state, batch.weights)
    own = _own(estimate)
    new, seen = _move_policy(parts, state, estimate.value - own, estimate.policy_grads, estimate.paths)
    new, weights = _move_weights(parts, new, estimate)
    return new._replace(estimator=after), _Seen(seen, *weights)


def _bilevel(parts: _Parts, when, key, state: SearchState, batch: Batch) -> tuple[SearchState, _Seen]:
    """The policy on its batch, if it is its turn, then the weights on theirs."""
    key_policy, key_weights = jax.random.split(key)

    def move(state: SearchState) -> tuple[SearchState, _PolicySeen]:
        if parts.policy_gradient is not None:
            value, grads = parts.policy_gradient(state, batch, key_policy)
            return _move_policy(parts, state, value, grads, None)
        after, estimate = _run(parts.estimator, parts.policy_loss, key_policy, state, batch.policy)
        own = _own(estimate)
        new, seen = _move_policy(parts, state, estimate.value - own, estimate.policy_grads, estimate.paths)
        return new._replace(estimator=after), seen._replace(penalty=seen.penalty + own)

    def rest(state: SearchState) -> tuple[SearchState, _PolicySeen]:
        return state, jax.tree.map(jnp.zeros_like, jax.eval_shape(move, state)[1])

    turn = when(state.step)
    new, seen = move(state) if turn is True else jax.lax.cond(turn, move, rest, state)
    own = parts.weight_estimator
    # The weights' estimate starts from where the policy's did; of the two only the policy's state goes on.
    begin = new._replace(estimator=state.estimator if own is None else own.init(key_weights, new.policy_params))
    after, estimate = _run(parts.estimator if own is None else own, parts.loss, key_weights, begin, batch.weights)
    estimator = after if parts.policy_gradient is not None and own is None else new.estimator
    new, weights = _move_weights(parts, new, estimate)
    return new._replace(estimator=estimator), _Seen(seen, *weights)


def _run(estimator: Estimator, loss: SearchLoss, key, state: SearchState, data: Any) -> tuple[Tree, Estimate]:
    key_noise, key_drop = jax.random.split(key)

    def loss_fn(paths: Paths, params: Params):
        return loss(paths, params, data, key_drop)

    return estimator.estimate(key_noise, state.estimator, state.policy_params, loss_fn, state.params)


def _own(estimate: Estimate) -> jax.Array:
    """The penalty that the loss itself has added."""
    return estimate.aux.get("penalty", jnp.zeros_like(estimate.value))


def _move_policy(parts: _Parts, state: SearchState, value, grads, paths) -> tuple[SearchState, _PolicySeen]:
    """Chain rule through the objective, then the policy's optimiser."""
    total, (factor, direct) = jax.value_and_grad(parts.objective, (0, 1))(value, state.policy_params, paths)
    grads = jax.tree.map(lambda g, d: (factor * g + d).astype(d.dtype), grads, direct)
    extra = {} if paths is None else {"paths": paths}
    if parts.policy_used is not None and paths is not None:
        extra["used"] = parts.policy_used(paths)
        grads = jax.tree.map(lambda g, own: jnp.where(own, g, jnp.zeros_like(g)), grads, extra["used"])
    updates, opt = parts.policy_tx.update(grads, state.policy_opt, state.policy_params, **extra)
    moved = optax.apply_updates(state.policy_params, updates)
    new = state._replace(policy_steps=state.policy_steps + 1, policy_params=moved, policy_opt=opt)
    return new, _PolicySeen(value, total - value, optax.tree.norm(grads))


def _move_weights(parts: _Parts, state: SearchState, estimate: Estimate):
    """The weights' optimiser; the state, and what `_Seen` wants to know of the estimate."""
    extra = {} if parts.weight_used is None else {"used": parts.weight_used(state.params, estimate.paths)}
    updates, opt = parts.weight_tx.update(estimate.weight_grads, state.weight_opt, state.params, **extra)
    new = state._replace(params=optax.apply_updates(state.params, updates), weight_opt=opt)
    temperature = estimate.info.get("temperature", jnp.zeros(()))
    norm = optax.tree.norm(estimate.weight_grads)
    return new, (estimate.value, _own(estimate), estimate.aux["accuracy"], temperature, norm)


def _is_logits(space: SearchSpace, policy_params: Tree) -> bool:
    """Whether the policy's parameters are scores in the shape of the space's choices."""
    if jax.tree.structure(policy_params) != jax.tree.structure(space.choices):  # type: ignore[operator]
        return False
    pairs = zip(jax.tree.leaves(policy_params), jax.tree.leaves(space.choices), strict=True)
    return all(a.shape == b.shape for a, b in pairs)
