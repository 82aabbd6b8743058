"""Training one stand-alone network, and the loss and the score of classifiers.

Many networks that share a program are trained by `jaxnas.population`, and all are judged by `jaxnas.judge`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Network, Tree
from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError
from jaxnas.guard import guarded

__all__ = ["NetworkState", "Trainer", "cross_entropy", "hits", "stand_alone"]


class Trainer(NamedTuple):
    """A training loop in two functions.

    Attributes:
      init: `(key, x, ...) -> state`.
      step: `(key, state, batch) -> (state, info)` for one batch `(images, labels)`.
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, dict[str, jax.Array]]]


class NetworkState(NamedTuple):
    """A stand-alone network in training.

    Attributes:
      step: the number of steps done, rejected ones included.
      bad: the number of steps that were rejected because something about them was not finite.
      variables: the parameters and running statistics of the network.
      opt: the state of the optimiser.
    """

    step: jax.Array
    bad: jax.Array
    variables: Tree
    opt: optax.OptState


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Mean cross-entropy in nats of `logits[B, C]` against `labels[B]`; NaN if a label lies outside of `0..C-1`.

    Args:
      logits: one row of `C` logits for each example, `[B, C]`.
      labels: the right classes, `[B]` integers.
      label_smoothing: the share of a target that is spread evenly over all classes, from 0 to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnas.train import cross_entropy
      >>> round(float(cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))), 4)
      1.3863

    Raises:
      UserError: labels that are no integers, or that are not one for each row of logits.
    """
    labels = _checked(labels, logits)
    logits = logits.astype(wide_dtype(logits.dtype))
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    losses = optax.safe_softmax_cross_entropy(logits, targets)
    return jnp.mean(jnp.where(_is_class(labels, logits), losses, jnp.nan))


def hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Which examples are classified rightly, float32 `[B]`: 1 where the greatest logit is that of the label, else 0.

    It is NaN where nothing can be said: where the label lies outside of `0..C-1`, or where the greatest logit is NaN or
    infinite. A single logit of minus infinity only rules its class out.

    Args:
      logits: one row of `C` logits for each example, `[B, C]`.
      labels: the right classes, `[B]` integers.

    Raises:
      UserError: labels that are no integers, or that are not one for each row of logits.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnas.train import hits
      >>> hits(jnp.eye(3), jnp.array([0, 1, 0])).tolist()
      [1.0, 1.0, 0.0]
    """
    labels = _checked(labels, logits)
    # Known is the answer where the greatest logit is finite and the label is a class.
    greatest = jnp.argmax(logits, -1)
    known = jnp.isfinite(jnp.max(logits, -1)) & _is_class(labels, logits)
    return jnp.where(known, (greatest == labels.astype(greatest.dtype)).astype(jnp.float32), jnp.nan)


def _checked(labels: jax.Array, logits: jax.Array) -> jax.Array:
    shape, dtype = jnp.shape(labels), jnp.result_type(labels)
    if shape != logits.shape[:-1] or not jnp.issubdtype(dtype, jnp.integer):
        raise UserError(f"labels must be integers of shape {logits.shape[:-1]}, got {dtype} of shape {shape}")
    return jnp.asarray(labels)


def _is_class(labels: jax.Array, logits: jax.Array) -> jax.Array:
    return (labels >= 0) & (labels < logits.shape[-1])


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
      network: the network; where it has an auxiliary head, the loss of that head is added.
      tx: the optax transformation that turns gradients of the parameters into updates.
      drop_path: the probability of drop path, a float or a schedule of the step.
      auxiliary_weight: the factor of the auxiliary head's loss.
      label_smoothing: the label smoothing of both losses; see `cross_entropy`.

    Returns:
      A trainer with `init(key, x) -> NetworkState`, whose `step` returns scalars `loss`, `accuracy` and `nonfinite`.
      A step whose loss, gradient or new state is not finite is rejected: `nonfinite` is 1, and nothing but the two
      counts of steps moves (`jaxnas.guard`).
    """

    def init(key, x):
        # The optimiser holds state for the parameters alone.
        variables = network.init(key, x)
        zero = jnp.zeros((), jnp.int32)
        return NetworkState(zero, zero, variables, tx.init(variables["params"]))

    def step(key, state, batch):
        images, labels = batch
        rate = drop_path(state.step) if callable(drop_path) else drop_path
        dropping = callable(drop_path) or drop_path > 0

        # Loss: that of the logits, and with its weight that of the auxiliary head.
        def loss_fn(params):
            variables = {**state.variables, "params": params}
            y, variables = network.apply(
                variables, images, key=key if dropping else None, train=True, drop_path=rate if dropping else None
            )
            logits, extra = y if isinstance(y, tuple) else (y, None)
            loss = cross_entropy(logits, labels, label_smoothing)
            if extra is not None:
                loss = loss + auxiliary_weight * cross_entropy(extra, labels, label_smoothing)
            return loss, (variables, jnp.mean(hits(logits, labels)))

        # Step: the running statistics move with the parameters, and stay with them if anything is not finite.
        (loss, (variables, correct)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.variables["params"])
        updates, opt = tx.update(grads, state.opt, state.variables["params"])
        new = {**variables, "params": optax.apply_updates(state.variables["params"], updates)}, opt
        after, good = guarded(new, (state.variables, state.opt), loss, optax.tree.norm(grads))
        info = {"loss": loss, "accuracy": correct, "nonfinite": (~good).astype(jnp.float32)}
        return NetworkState(state.step + 1, state.bad + (~good).astype(jnp.int32), *after), info

    return Trainer(init, step)
