"""Gradient search over weights and policy in parts: a policy step, a weight step, and two ways to join them.

DARTS, SNAS and ProxylessNAS differ in the estimator, in which data the policy sees, and in what they add to a step.
What a paper adds stands in the file of that paper, as a step made of the parts below.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Batch, Estimate, Estimator, Params, Paths, Policy, Searcher, SearchSpace, Tree
from jaxnas.guard import guarded
from jaxnas.searchers.incumbent import NO_OPERATION
from jaxnas.searchers.state import SearchInfo, SearchLoss, SearchState, classification_loss

__all__ = [
    "SearchParts",
    "SearchStep",
    "alternating",
    "estimate_on",
    "gradient_search",
    "joint",
    "move_policy",
    "move_weights",
    "policy_step",
    "weight_step",
]

Seen = dict[str, jax.Array]  # entries of `SearchInfo` by name
OF_THE_POLICY = ("policy_loss", "penalty", "policy_norm")  # what `move_policy` shows


class SearchParts(NamedTuple):
    """The arguments of `gradient_search`, kept together for its step functions.

    Attributes:
      space: the supernet.
      policy: the distribution over its architectures.
      estimator: estimator of the gradients of the expected loss.
      weight_tx: optax transformation of the weights.
      policy_tx: optax transformation of the policy's parameters.
      loss: `(paths, params, batch, key) -> (loss, aux)`.
    """

    space: SearchSpace
    policy: Policy
    estimator: Estimator
    weight_tx: optax.GradientTransformation
    policy_tx: optax.GradientTransformation
    loss: SearchLoss


SearchStep = Callable[[SearchParts, jax.Array, SearchState, Batch], tuple[SearchState, Seen]]


def estimate_on(parts: SearchParts, key: jax.Array, state: SearchState, data: Any) -> tuple[Tree, Estimate]:
    """One estimate of the loss on `data` and of its gradients: the estimator's next state, and the estimate."""
    key_noise, key_drop = jax.random.split(key)

    def loss_fn(paths: Paths, params: Params):
        return parts.loss(paths, params, data, key_drop)

    return parts.estimator.estimate(key_noise, state.estimator, state.policy_params, loss_fn, state.params)


def move_policy(parts: SearchParts, state: SearchState, found: Estimate) -> tuple[SearchState, Seen]:
    """Returns the state after a step of the policy's optimiser, which is told `found.paths`, and what `info` shows."""
    tx = optax.with_extra_args_support(parts.policy_tx)
    updates, opt = tx.update(found.policy_grads, state.policy_opt, state.policy_params, paths=found.paths)
    moved = optax.apply_updates(state.policy_params, updates)
    # The penalty is shown beside the loss, not in it.
    charge = _charge(found)
    seen = {
        "policy_loss": found.value - charge,
        "penalty": found.info.get("penalty", jnp.zeros_like(found.value)) + charge,
        "policy_norm": optax.tree.norm(found.policy_grads),
    }
    return state._replace(policy_steps=state.policy_steps + 1, policy_params=moved, policy_opt=opt), seen


def move_weights(parts: SearchParts, state: SearchState, found: Estimate) -> tuple[SearchState, Seen]:
    """Returns the state after a step of the weights' optimiser, which is told `found.paths`, and what `info` shows."""
    tx = optax.with_extra_args_support(parts.weight_tx)
    updates, opt = tx.update(found.weight_grads, state.weight_opt, state.params, paths=found.paths)
    seen = {
        "loss": found.value - _charge(found),
        "accuracy": found.aux.get("accuracy", jnp.nan),
        "temperature": found.info.get("temperature", jnp.nan),
        "weight_norm": optax.tree.norm(found.weight_grads),
    }
    return state._replace(params=optax.apply_updates(state.params, updates), weight_opt=opt), seen


def _charge(found: Estimate) -> jax.Array:
    """The part of the loss that the loss function calls a penalty."""
    return found.aux.get("penalty", jnp.zeros_like(found.value))


def policy_step(parts: SearchParts, key: jax.Array, state: SearchState, data: Any) -> tuple[SearchState, Seen]:
    """The policy descends on `data`; the weights stay."""
    estimator, found = estimate_on(parts, key, state, data)
    return move_policy(parts, state._replace(estimator=estimator), found)


def weight_step(parts: SearchParts, key: jax.Array, state: SearchState, data: Any) -> tuple[SearchState, Seen]:
    """The weights descend on `data`; the policy stays."""
    estimator, found = estimate_on(parts, key, state, data)
    return move_weights(parts, state._replace(estimator=estimator), found)


def joint(parts: SearchParts, key: jax.Array, state: SearchState, batch: Batch) -> tuple[SearchState, Seen]:
    """One estimate on the weights' batch moves both (SNAS); the policy's batch is not used."""
    estimator, found = estimate_on(parts, jax.random.split(key)[1], state, batch.weights)
    moved, policy_seen = move_policy(parts, state._replace(estimator=estimator), found)
    new, weights_seen = move_weights(parts, moved, found)
    return new, policy_seen | weights_seen


def alternating(parts: SearchParts, key: jax.Array, state: SearchState, batch: Batch) -> tuple[SearchState, Seen]:
    """First the policy descends on its own batch, then the weights on theirs, under the new policy (DARTS)."""
    key_policy, key_weights = jax.random.split(key)
    moved, policy_seen = policy_step(parts, key_policy, state, batch.policy)
    # Both estimates start from one state of the estimator, as if they were one; that of the policy's estimate goes on.
    new, weights_seen = weight_step(parts, key_weights, moved._replace(estimator=state.estimator), batch.weights)
    return new._replace(estimator=moved.estimator), policy_seen | weights_seen


def gradient_search(
    space: SearchSpace,
    policy: Policy,
    estimator: Estimator,
    weight_tx: optax.GradientTransformation,
    policy_tx: optax.GradientTransformation,
    *,
    loss: SearchLoss | None = None,
    step: SearchStep = alternating,
) -> Searcher:
    """A search that descends on the weights of a supernet and on the parameters of a policy.

    A step whose loss, gradients or resulting state are not all finite is rejected: `info.nonfinite` and the state's
    `bad` count it, and all else stays as it was before the step (`jaxnas.guard`).

    Args:
      space: the supernet.
      policy: the distribution over its architectures, whose parameters are learned.
      estimator: an estimator of `jaxnas.estimators`. Terms in the policy's probabilities, such as an expected latency,
        come in by `jaxnas.estimators.with_objective`.
      weight_tx: optax transformation of the weights. Like `policy_tx` it is told `paths`, those of the estimate, which
        `skip_unused` and `two_path_rescale` need.
      policy_tx: optax transformation of the policy's parameters.
      loss: `(paths, params, batch, key) -> (loss, aux)`, by default `classification_loss(space)`. The dictionary `aux`
        may have an `"accuracy"`, and the part of the loss that is a `"penalty"`; both are shown.
      step: `(parts, key, state, batch) -> (state, seen)`, how the steps of policy and weights are joined:
        `alternating`, `joint`, or another function made of `policy_step` and `weight_step`. `seen` has the
        entries of `SearchInfo` that the parts give.

    Returns:
      The searcher; `state` is a `SearchState`, `info` a `SearchInfo`. `decode` gives -1, which is no operation, for
      every decision of a policy whose parameters are NaN or infinite.

    Example:
      >>> from jaxnas import estimators, policies, spaces
      >>> space = spaces.table_space([3.0, 1.0, 2.0])  # one decision; the losses of its three options
      >>> policy, batch = policies.categorical(space.choices), Batch((None,), (None,))
      >>> loss = lambda paths, params, batch, key: (space.apply(params, paths), {})
      >>> txs = optax.sgd(0.1), optax.sgd(1.0)
      >>> search = gradient_search(space, policy, estimators.exact(policy), *txs, loss=loss, step=joint)
      >>> state = jax.jit(search.init)(jax.random.key(0), batch)
      >>> state, info = jax.jit(search.step)(jax.random.key(1), state, batch)
      >>> search.decode(state)["edges"].tolist(), round(float(info.loss), 1)
      ([1], 2.0)
    """
    parts = SearchParts(
        space, policy, estimator, weight_tx, policy_tx, classification_loss(space) if loss is None else loss
    )

    def init(key, batch):
        # Weights from an example of the images; policy, optimisers and estimator from their parameters.
        key_params, key_policy, key_estimator = jax.random.split(key, 3)
        params = space.init(key_params, batch.weights[0])
        policy_params = policy.init(key_policy)
        opts = weight_tx.init(params), policy_tx.init(policy_params)
        zero = jnp.zeros((), jnp.int32)
        return SearchState(zero, zero, zero, params, policy_params, *opts, estimator.init(key_estimator, policy_params))

    def guarded_step(key, state, batch):
        new, seen = step(parts, key, state, batch)
        seen = dict.fromkeys(OF_THE_POLICY, jnp.zeros(())) | seen  # for a step in which no policy ever moves
        rests = new.policy_steps == state.policy_steps
        signals = [seen[name] for name in ("loss", "weight_norm", *OF_THE_POLICY)]
        # A step that is not finite is taken back; the counts of steps and of rejected ones go on.
        new, good = guarded(new, state, *signals)
        new = new._replace(step=state.step + 1, bad=state.bad + (~good).astype(jnp.int32))
        # The policy's entries mean nothing in a step in which the policy rests.
        seen |= {name: jnp.where(rests, jnp.nan, seen[name]) for name in OF_THE_POLICY}
        info = SearchInfo(**seen, entropy=policy.entropy(new.policy_params), nonfinite=~good)
        return new, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), info)

    def decode(state):
        scores = state.policy_params
        arch = policy.decode(scores, space.derive)
        # Minus infinity rules an operation out; with NaN or infinity the greatest score says nothing.
        known = jax.tree.reduce(lambda so_far, leaf: so_far & jnp.all(leaf < jnp.inf), scores, jnp.array(True))
        return jax.tree.map(lambda leaf: jnp.where(known, leaf, NO_OPERATION), arch)

    return Searcher(init, guarded_step, decode, policy)
