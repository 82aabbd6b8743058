"""Gradient search over weights and policy: the step that DARTS, SNAS and ProxylessNAS share.

They differ in the estimator, in which data the policy sees, and in what is added to the policy's gradient.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Batch, Estimator, Params, Paths, Policy, Searcher, SearchSpace, Tree
from jaxnas.policies import entropy
from jaxnas.train import cross_entropy

__all__ = ["SearchInfo", "SearchLoss", "SearchState", "classification_loss", "gradient_search"]

SearchLoss = Callable[[Paths, Params, Any, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]
PolicyGradient = Callable[["SearchState", Batch, jax.Array], tuple[jax.Array, Tree]]


class SearchState(NamedTuple):
    """All that the next step needs.

    Attributes:
      step: steps done.
      params: weights of the supernet.
      policy_params: logits, or the parameters of another policy. Never in the weight optimiser.
      weight_opt: state of the weights' optax transformation.
      policy_opt: state of the policy's.
      estimator: state of the estimator.
    """

    step: jax.Array
    params: Params
    policy_params: Tree
    weight_opt: optax.OptState
    policy_opt: optax.OptState
    estimator: Tree


class SearchInfo(NamedTuple):
    """What a person wants to see of a step; every field a float32 scalar.

    Attributes:
      loss: on the weights' batch, mean nats per example, without the penalty.
      accuracy: on the weights' batch, with the paths of the step.
      policy_loss: on the policy's batch, without the penalty; the same as `loss` when single-level.
      penalty: what was added to the policy's loss, or by the loss itself to its own (`aux["penalty"]`).
      entropy: mean entropy of the decisions, nats.
      temperature: of the relaxation, where there is one.
      weight_norm: global norm of the weights' gradient, before clipping.
      policy_norm: of the policy's gradient.
      nonfinite: 1 if a loss or a gradient was not finite. The step then changes neither weights, policy nor moments;
        counters go on, those in the optimisers too, so that schedules keep to the step.
    """

    loss: jax.Array
    accuracy: jax.Array
    policy_loss: jax.Array
    penalty: jax.Array
    entropy: jax.Array
    temperature: jax.Array
    weight_norm: jax.Array
    policy_norm: jax.Array
    nonfinite: jax.Array


def classification_loss(space: SearchSpace, *, label_smoothing: float = 0.0) -> SearchLoss:
    """Mean cross-entropy in nats of a space on `(images, labels)`.

    Returns:
      `loss(paths, params, batch, key) -> (loss, {"accuracy": ...})`; a key turns drop path on.
    """

    def loss(paths, params, batch, key=None):
        images, labels = batch
        logits = space.apply(params, paths, images, key=key)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
        return cross_entropy(logits, labels, label_smoothing), {"accuracy": accuracy}

    return loss


def gradient_search(
    space: SearchSpace,
    policy: Policy,
    estimator: Estimator,
    weight_tx: optax.GradientTransformation,
    policy_tx: optax.GradientTransformation,
    *,
    loss: SearchLoss | None = None,
    level: Literal["joint", "bilevel"] = "bilevel",
    penalty: Callable[[Tree], jax.Array] | None = None,
    policy_gradient: PolicyGradient | None = None,
) -> Searcher:
    """A search that descends on weights and policy in turn or together.

    * `joint`: one estimate on the weights' batch gives both gradients (SNAS).
    * `bilevel`: first the policy descends on its own batch, then the weights on theirs, under the new policy (DARTS).

    A step whose loss or gradient is not finite is counted in `info.nonfinite` and changes nothing but counters.

    Args:
      space: the supernet.
      policy: its parameters are initialised and decoded here.
      estimator: see `jaxnas.estimators`.
      weight_tx: optax transformation of the weights.
      policy_tx: optax transformation of the policy's parameters.
      loss: `(paths, params, batch, key) -> (loss, {"accuracy": ...})`; by default `classification_loss(space)`. What
        of the loss is a penalty may be named in `aux["penalty"]`.
      level: see above.
      penalty: `(policy_params) -> scalar` in nats, added to the policy's loss.
      policy_gradient: `(state, batch, key) -> (loss, grads)`, in place of the estimator for the policy's step when
        bilevel (second-order DARTS).

    Returns:
      The searcher; `state` is a `SearchState`, `info` a `SearchInfo`.

    Raises:
      ValueError: an unknown `level`, or `policy_gradient` with a joint search.
    """
    if level not in ("joint", "bilevel"):
        raise ValueError(f"level must be 'joint' or 'bilevel', got {level!r}")
    if policy_gradient is not None and level == "joint":
        raise ValueError("policy_gradient needs level='bilevel'")
    loss_fn = classification_loss(space) if loss is None else loss
    extra = (lambda policy_params: jnp.zeros(())) if penalty is None else penalty

    def init(key, batch):
        key_params, key_policy, key_estimator = jax.random.split(key, 3)
        params = space.init(key_params, batch.weights[0])
        policy_params = policy.init(key_policy)
        return SearchState(
            jnp.zeros((), jnp.int32),
            params,
            policy_params,
            weight_tx.init(params),
            policy_tx.init(policy_params),
            estimator.init(key_estimator, policy_params),
        )

    def run(key, state, data):
        key_noise, key_drop = jax.random.split(key)
        return estimator.estimate(
            key_noise,
            state.estimator,
            state.policy_params,
            lambda paths, p: loss_fn(paths, p, data, key_drop),
            state.params,
        )

    def ask_policy(key, state, batch):
        """The policy's gradient, and the estimate that the weights use too when joint."""
        if policy_gradient is not None:
            return None, policy_gradient(state, batch, key)
        after, estimate = run(key, state, batch.weights if level == "joint" else batch.policy)
        own = estimate.aux.get("penalty", jnp.zeros(()))
        return (after, estimate), (estimate.value - own, estimate.policy_grads)

    def step(key, state, batch):
        key_policy, key_weights = jax.random.split(key)
        asked, (policy_loss, policy_grads) = ask_policy(key_weights if level == "joint" else key_policy, state, batch)
        cost, cost_grads = jax.value_and_grad(extra)(state.policy_params)
        policy_grads = jax.tree.map(jnp.add, policy_grads, cost_grads)
        new = _descend(policy_tx, state, "policy_params", "policy_opt", policy_grads)
        after, estimate = run(key_weights, new, batch.weights) if asked is None or level == "bilevel" else asked
        new = _descend(weight_tx, new, "params", "weight_opt", estimate.weight_grads)
        norms = optax.tree.norm(estimate.weight_grads), optax.tree.norm(policy_grads)
        finite = jnp.all(jnp.isfinite(jnp.stack([estimate.value, policy_loss, cost, *norms])))
        new = jax.tree.map(lambda a, b: _unless(finite, a, b), new, state)
        new = new._replace(step=state.step + 1, estimator=after if asked is None else asked[0])
        own = estimate.aux.get("penalty", jnp.zeros(()))
        info = SearchInfo(
            estimate.value - own,
            estimate.aux["accuracy"],
            policy_loss,
            cost + own,
            entropy(new.policy_params) if _is_logits(space, new.policy_params) else jnp.zeros(()),
            estimate.info.get("temperature", jnp.zeros(())),
            *norms,
            ~finite,
        )
        return new, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), info)

    def decode(state):
        scores = state.policy_params
        return space.derive(scores) if _is_logits(space, scores) else policy.mode(scores)

    return Searcher(init, step, decode)


def _descend(tx, state, params_name, opt_name, grads):
    params = getattr(state, params_name)
    updates, opt = tx.update(grads, getattr(state, opt_name), params)
    return state._replace(**{params_name: optax.apply_updates(params, updates), opt_name: opt})


def _unless(finite: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """The new leaf, or the old one where the step was not finite; integers count on."""
    return new if jnp.issubdtype(new.dtype, jnp.integer) else jnp.where(finite, new, old)


def _is_logits(space: SearchSpace, policy_params: Tree) -> bool:
    """Whether the policy's parameters are scores in the shape of the space's choices."""
    if jax.tree.structure(policy_params) != jax.tree.structure(space.choices):  # type: ignore[operator]
        return False
    pairs = zip(jax.tree.leaves(policy_params), jax.tree.leaves(space.choices), strict=True)
    return all(a.shape == b.shape for a, b in pairs)
