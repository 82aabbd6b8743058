"""Training what a search has found: children of a space through one program, and single stand-alone networks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Arch, Network, Params, SearchSpace, Tree, sparse_paths

__all__ = ["ChildrenState", "NetworkState", "Trainer", "accuracy", "children", "cross_entropy", "stand_alone"]


class Trainer(NamedTuple):
    """A training loop in two functions.

    Attributes:
      init: `(key, x, ...) -> state`.
      step: `(key, state, batch) -> (state, info)` for one batch `(images, labels)`.
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, dict[str, jax.Array]]]


class ChildrenState(NamedTuple):
    """Children of one space; every leaf has a leading axis `P`.

    Attributes:
      params: weights; those of operations that a child does not have get no gradient: weight decay alone moves them.
      opt: optimiser states.
      archs: their architectures.
    """

    params: Params
    opt: optax.OptState
    archs: Arch


class NetworkState(NamedTuple):
    """A stand-alone network in training.

    Attributes:
      step: steps done.
      variables: parameters and running statistics.
      opt: optimiser state.
    """

    step: jax.Array
    variables: Tree
    opt: optax.OptState


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Mean cross-entropy in nats of `logits[B, C]` against `labels[B]`."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32), label_smoothing)
    return jnp.mean(optax.safe_softmax_cross_entropy(logits.astype(jnp.float32), targets))


def children(space: SearchSpace, tx: optax.GradientTransformation) -> Trainer:
    """Trains architectures of one space side by side, each from its own random weights, on the same batches.

    The architecture is an argument of the program, which is compiled once for all of them: a child is a sparse path
    through the space. Children take turns inside `lax.map`, where `lax.switch` runs only what the child has.

    Args:
      space: the space.
      tx: optax transformation, the same for every child.

    Returns:
      A trainer with `init(key, x, archs) -> ChildrenState` for architectures with leaves `[P, E]`; `step` returns
      `{"loss": [P], "accuracy": [P]}`. A child whose loss is not finite stands still for that step.
    """

    def init(key, x, archs):
        population = len(jax.tree.leaves(archs)[0])
        params = jax.lax.map(lambda k: space.init(k, x), jax.random.split(key, population))
        return ChildrenState(params, jax.vmap(tx.init)(params), archs)

    def step(key, state, batch):
        images, labels = batch

        def advance(child):
            params, opt, arch = child

            def loss_fn(params):
                logits = space.apply(params, sparse_paths(arch), images, key=key)
                return cross_entropy(logits, labels), jnp.mean(jnp.argmax(logits, -1) == labels)

            (loss, correct), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, new_opt = tx.update(grads, opt, params)
            new = optax.apply_updates(params, updates), new_opt
            finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
            params, opt = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, (params, opt))
            return (params, opt), {"loss": loss, "accuracy": correct}

        (params, opt), info = jax.lax.map(advance, (state.params, state.opt, state.archs))
        return ChildrenState(params, opt, state.archs), info

    return Trainer(init, step)


def stand_alone(
    network: Network,
    tx: optax.GradientTransformation,
    *,
    drop_path: float | Callable[[jax.Array], jax.Array] = 0.0,
    auxiliary_weight: float = 0.4,
    label_smoothing: float = 0.0,
) -> Trainer:
    """Trains one stand-alone network, with running averages in its normalisation.

    Args:
      network: the network; with an auxiliary head its loss is added.
      tx: optax transformation of the parameters.
      drop_path: probability of drop path, a float or a schedule of the step.
      auxiliary_weight: factor of the auxiliary loss.
      label_smoothing: of both losses.

    Returns:
      A trainer with `init(key, x) -> NetworkState`; `step` returns `{"loss", "accuracy"}`. A step whose loss is not
      finite changes nothing but the count.
    """

    def init(key, x):
        variables = network.init(key, x)
        return NetworkState(jnp.zeros((), jnp.int32), variables, tx.init(variables["params"]))

    def step(key, state, batch):
        images, labels = batch
        rate = drop_path(state.step) if callable(drop_path) else drop_path
        dropping = callable(drop_path) or drop_path > 0

        def loss_fn(params):
            variables = {**state.variables, "params": params}
            y, variables = network.apply(
                variables, images, key=key if dropping else None, train=True, drop_path=rate if dropping else None
            )
            logits, extra = y if isinstance(y, tuple) else (y, None)
            loss = cross_entropy(logits, labels, label_smoothing)
            if extra is not None:
                loss = loss + auxiliary_weight * cross_entropy(extra, labels, label_smoothing)
            return loss, (variables, jnp.mean(jnp.argmax(logits, -1) == labels))

        (loss, (variables, correct)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.variables["params"])
        updates, opt = tx.update(grads, state.opt, state.variables["params"])
        new = {**variables, "params": optax.apply_updates(state.variables["params"], updates)}, opt
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, (state.variables, state.opt))
        return NetworkState(state.step + 1, *kept), {"loss": loss, "accuracy": correct}

    return Trainer(init, step)


def accuracy(
    predict: Callable[[jax.Array], jax.Array], images: jax.Array, labels: jax.Array, *, batch_size: int = 500
) -> jax.Array:
    """Share of examples whose greatest logit is the label's.

    Args:
      predict: `(images[batch_size, ...]) -> logits[batch_size, C]`; each example's logits must not depend on the
        other examples of its batch.
      images: `[N, ...]`, any dtype that `predict` takes.
      labels: `[N]` integers.
      batch_size: examples at a time; the last batch is filled up with copies that do not count.
    """
    count = len(labels)
    batch_size = min(batch_size, count)
    index = jnp.arange(-(-count // batch_size) * batch_size).reshape(-1, batch_size)

    def correct(rows):
        hit = jnp.argmax(predict(images[rows % count]), -1) == labels[rows % count]
        return jnp.sum(hit & (rows < count))

    return jnp.sum(jax.lax.map(correct, index)) / count
