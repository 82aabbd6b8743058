"""How good a network is on examples: one program for all architectures of a space, each example judged by itself.

Paths through a supernet, children that were trained by themselves and stand-alone networks are all judged here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnas.base import Tree
from jaxnas.errors import UserError
from jaxnas.strategies import Strategy, lift, member_mesh, resolve
from jaxnas.train import cross_entropy, hits

__all__ = ["classification", "judge", "judge_children", "judge_paths", "mean_score"]

Score = Callable[[Any, jax.Array], Any]  # (outputs, targets) -> [B], or the scalar mean, or a pytree of those
Judge = Callable[..., Any]  # (params, paths, inputs, targets) -> metrics


def classification(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """The score of classifiers: `accuracy`, the share of examples classified rightly, and `loss` in nats.

    Args:
      logits: one row of `C` logits for each example, `[B, C]`.
      labels: the right classes as integers, `[B]`.
    """
    return {"accuracy": hits(logits, labels), "loss": cross_entropy(logits, labels)}


def judge(
    apply: Callable[[Any, Any, jax.Array], Any],
    *,
    reference: jax.Array | None = None,
    prepare: Callable[[jax.Array], jax.Array] | None = None,
    score: Score = classification,
    batch_size: int = 256,
) -> Judge:
    """A function `(params, paths, inputs, targets) -> metrics` that judges any architecture through one program.

    A supernet normalises with the statistics of its batch. So that an example's verdict does not depend on the examples
    beside it, the same reference examples stand at the head of every batch, and a space built with `reference=R` takes
    its statistics from those alone. Without a reference the statistics are those of the judged batch.

    Args:
      apply: `(params, paths, x) -> outputs`. For a space this is `space.apply`; for a stand-alone network
        `lambda variables, _, x: network.apply(variables, x)[0]`, whose running averages need no reference examples.
      reference: the `R` reference inputs, `[R, ...]`, unprepared; their outputs are dropped.
      prepare: `(inputs) -> inputs`, what is done to a batch before `apply` sees it, such as scaling.
      score: `(outputs, targets) -> [B]` or a scalar mean over the batch, or a pytree of those.
      batch_size: number of examples that are judged at a time, reference examples not counted.

    Returns:
      The judge, a pure function: jit it, or lift it with `judge_paths` or `judge_children`. The metrics have the
      structure of the score, each a scalar mean over all examples. By default they are `accuracy` and `loss`; the
      accuracy is NaN if the greatest logit of one example is not finite. With the optional last argument `count`, only
      the first `count` examples count: examples of several sizes, filled up to one, share a program.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxnas.judge import judge
      >>> verdict = jax.jit(judge(lambda params, paths, x: x * params))
      >>> float(verdict(2.0, None, jnp.eye(4), jnp.array([0, 1, 2, 0]))["accuracy"])
      0.75
    """

    def metrics(params: Any, paths: Any, inputs: jax.Array, targets: jax.Array, count: Any = None) -> Tree:
        def predict(x: jax.Array) -> Any:
            # Reference examples stand at the head, and their outputs are dropped.
            seen = x if reference is None else jnp.concatenate([reference, x])
            outputs = apply(params, paths, seen if prepare is None else prepare(seen))
            return outputs if reference is None else jax.tree.map(lambda leaf: leaf[len(reference) :], outputs)

        return mean_score(predict, score, inputs, targets, batch_size=batch_size, count=count)

    return metrics


def judge_paths(judge: Judge, *, strategy: Strategy = "auto", mesh: Mesh | None = None) -> Judge:
    """Judges many architectures with the weights of one supernet: `(params, paths, inputs, targets) -> metrics`.

    Args:
      judge: a judge of one architecture, from `judge`.
      strategy: how architectures run on the devices; see `jaxnas.population.resolve`.
      mesh: a mesh of one axis for `"shard"`; all devices if not given.

    Returns:
      A function whose `paths` and metrics have leaves with a leading axis `P`, for example
      `sparse_paths(archs)` with architectures `[P, E]`; any `P` goes, whatever the number of devices.
    """

    def judged(params: Any, paths: Any, inputs: jax.Array, targets: jax.Array) -> Tree:
        one = lambda paths, data: judge(data[0], paths, *data[1:])  # noqa: E731
        return _spread(one, paths, (params, inputs, targets), strategy, mesh)

    return judged


def judge_children(judge: Judge, *, strategy: Strategy = "auto", mesh: Mesh | None = None) -> Judge:
    """Judges many architectures, each with separate weights: `(params, paths, inputs, targets) -> metrics`.

    Args:
      judge: a judge of one architecture, from `judge`.
      strategy: how architectures run on the devices; see `jaxnas.population.resolve`.
      mesh: a mesh of one axis for `"shard"`; all devices if not given.

    Returns:
      A function whose `params`, `paths` and metrics have leaves with a leading axis `P`.
    """

    def judged(params: Any, paths: Any, inputs: jax.Array, targets: jax.Array) -> Tree:
        return _spread(lambda child, data: judge(*child, *data), (params, paths), (inputs, targets), strategy, mesh)

    return judged


def _spread(one: Callable[[Any, Any], Tree], members: Tree, data: Tree, strategy: Strategy, mesh: Mesh | None) -> Tree:
    """`lift` for any number of members: a mesh gets copies of the first ones to fill it up."""
    strategy = resolve(strategy, mesh)
    mesh = (mesh or member_mesh()) if strategy == "shard" else None
    size, devices = len(jax.tree.leaves(members)[0]), 1 if mesh is None else mesh.size
    # As many rows as the devices share evenly; copies of the first members fill them up.
    rows = np.arange(-(-size // devices) * devices) % size
    filled = jax.tree.map(lambda leaf: leaf[rows], members) if len(rows) > size else members
    return jax.tree.map(lambda leaf: leaf[:size], lift(one, strategy, mesh)(filled, data))


def mean_score(
    predict: Callable[[jax.Array], Any],
    score: Score,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    batch_size: int,
    count: Any = None,
) -> Tree:
    """The mean of `score` over all examples, taken in batches of one size.

    Args:
      predict: `(inputs[batch_size, ...]) -> outputs` with a leading axis of examples.
      score: `(outputs, targets) -> [B]`, or a scalar, or a pytree of those. One that is a scalar for a batch is
        evaluated example by example, so that it is exact.
      inputs: `[N, ...]`.
      targets: `[N, ...]`.
      batch_size: number of examples that are taken at a time; copies that do not count fill up the last batch.
      count: number of examples that count, which may be traced; all if not given.

    Returns:
      A pytree of scalars like the score.

    Raises:
      UserError: another number of inputs than of targets, or what the score refuses.
    """
    size = len(targets)
    if len(inputs) != size:
        raise UserError(f"targets must be one for each of the {len(inputs)} inputs, got {size}")
    if not size or batch_size < 1:
        raise UserError(f"examples and batch_size must be at least 1, got {size} and {batch_size}")
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    count, batch_size = size if count is None else count, min(batch_size, size)
    # Rows of batches of one size; those beyond the last example are copies that do not count.
    index = jnp.arange(-(-size // batch_size) * batch_size, dtype=jnp.int32).reshape(-1, batch_size)

    def total(rows: jax.Array) -> Tree:
        scores = _by_example(score, predict(inputs[rows % size]), targets[rows % size])
        return jax.tree.map(lambda leaf: jnp.sum(jnp.where(rows < count, leaf, 0.0)), scores)

    return jax.tree.map(lambda leaf: jnp.sum(leaf) / count, jax.lax.map(total, index))


def _by_example(score: Score, outputs: Any, targets: jax.Array) -> Tree:
    """The score with a leading axis of examples in every leaf."""
    scores = score(outputs, targets)
    if all(jnp.ndim(leaf) for leaf in jax.tree.leaves(scores)):
        return scores

    # A scalar for a batch is evaluated example by example.
    def of_one(output: Any, target: jax.Array) -> Tree:
        return score(*jax.tree.map(lambda leaf: leaf[None], (output, target)))

    return jax.tree.map(lambda leaf, one: leaf if leaf.ndim else one, scores, jax.vmap(of_one)(outputs, targets))
