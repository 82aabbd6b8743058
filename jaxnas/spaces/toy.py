"""Spaces whose every loss is known, for tests, examples and studies of estimators.

Their `apply` does not look at `x` and returns the loss itself, a scalar, as a function of *gates*: the dense `[E, K]`
form of the paths, one-hot rows for an architecture, anything between for a relaxation. So
`loss_fn = lambda paths, params: (space.apply(params, paths, x), None)`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Params, Paths, SearchSpace
from jaxnas.errors import UserError

__all__ = ["function_space", "gates", "quadratic_space", "table_space"]


def function_space(
    loss_fn: Callable[[Params, jax.Array], jax.Array],
    num_edges: int,
    num_ops: int,
    *,
    params: Params = None,
    name: str = "function",
    config: dict[str, Any] | None = None,
) -> SearchSpace:
    """A space whose loss is `loss_fn(params, gates[E, K])`.

    Args:
      loss_fn: differentiable function of the weights and of gates `[E, K]` that returns a scalar.
      num_edges: number of decisions `E`.
      num_ops: operations `K` of each.
      params: weights that `init` returns; no weights when `None`.
      name: name of the space.
      config: settings that rebuild the space by its name, if there are any.

    Returns:
      The space, with `choices = {"edges": [E, K]}`; `derive` takes the greatest score of each row. All weights take
      part in every architecture.

    Raises:
      UserError: no decision, or fewer than two operations.

    Example:
      >>> space = function_space(lambda params, gates: jnp.sum((gates - 0.5) ** 2), 2, 3)
      >>> float(space.apply({}, one_hot_paths(space.choices, {"edges": jnp.array([0, 2])}), None))
      1.5
    """
    if num_edges < 1 or num_ops < 2:
        raise UserError(f"need num_edges >= 1 and num_ops >= 2, got {num_edges} and {num_ops}")
    choices = {"edges": jax.ShapeDtypeStruct((num_edges, num_ops), jnp.float32)}

    def init(key, x):
        del key, x
        return {} if params is None else jax.tree.map(jnp.asarray, params)

    def apply(params, paths, x=None, *, key=None):
        del x, key
        return loss_fn(params, gates(paths.select(lambda tree: tree["edges"]), num_ops))

    def used(params, paths):
        del paths
        return jax.tree.map(lambda leaf: True, params)

    return SearchSpace(init, apply, used, greatest, choices, _about(name, config, choices))


def _about(name: str, config: dict[str, Any] | None, choices: Any) -> About:
    num_edges, num_ops = choices["edges"].shape
    return About(
        name=name,
        operations={"edges": tuple(f"op{k}" for k in range(num_ops))},
        size=num_ops**num_edges,
        genotype=lambda arch: arch_like(choices, arch)["edges"].tolist(),
        parse=lambda genotype: arch_like(choices, {"edges": genotype}),
        edges={"edges": tuple((i, i + 1) for i in range(num_edges))},
        config=config,
    )


def gates(paths: Paths, num_ops: int) -> jax.Array:
    """The dense form `[E, K]` of paths with leaves `[E, K]` or `[E, k]`: how much every operation counts.

    A probe adds nothing in value; the cotangent of its weights is that of the gates it asks about.

    Raises:
      UserError: paths of `jaxnas.estimators.gdas`, which are about outputs of operations and not about gates.
    """
    if paths.index is not None and paths.index.shape != paths.weight.shape:
        raise UserError(
            "gdas is a form of jaxnas.spaces.parts.mixed_op; for a function of gates use pathwise(st_gumbel)"
        )
    dense = paths.weight if paths.index is None else _scatter(paths.index, paths.weight, num_ops)
    if paths.probe is not None:  # zero in value; its cotangent is that of the gates
        probed = gates(paths.probe, num_ops)
        dense = dense + (probed - jax.lax.stop_gradient(probed))
    return dense


def _scatter(index: jax.Array, weight: jax.Array, num_ops: int) -> jax.Array:
    return jnp.einsum("...k,...kn->...n", weight, jax.nn.one_hot(index, num_ops, dtype=weight.dtype))


def table_space(values: Any) -> SearchSpace:
    """A space whose losses are the entries of a table: architecture `a` has the loss `values[a[0], a[1], ...]`.

    Between architectures the loss is the multilinear extension, `sum_a values[a] prod_e gates[e, a[e]]`: for gates
    that are probabilities, the expected loss of independent choices.

    Args:
      values: losses `[K, K, ..., K]`, one axis per decision.

    Returns:
      The space, without weights. See `function_space`.

    Raises:
      UserError: axes of different lengths, or shorter than two.

    Example:
      >>> space = table_space([[3.0, 1.0], [4.0, 2.0]])
      >>> float(space.apply({}, sparse_paths({"edges": jnp.array([1, 0])}), None))
      4.0
    """
    table = np.asarray(values, np.float32)
    if table.ndim < 1 or len(set(table.shape)) != 1 or table.shape[0] < 2:
        raise UserError(f"values must have axes of one length of at least two, got shape {table.shape}")

    def loss_fn(params, gates):
        del params
        rest = jnp.asarray(table)
        for row in gates:  # one decision after the other is averaged out
            rest = jnp.tensordot(row, rest, 1)
        return rest

    config = {"values": table.tolist()}
    return function_space(loss_fn, table.ndim, table.shape[0], name="table", config=config)


def quadratic_space(matrix: Any, linear: Any, num_edges: int = 1) -> SearchSpace:
    """A space whose loss is a quadratic form, `f(g) = g'Ag + b'g` with the gates `g` written out in one row.

    Between architectures the form is not the expected loss, so relaxations of it are biased, as those of a network are.

    Args:
      matrix: quadratic coefficients `A`, `[E K, E K]`.
      linear: linear coefficients `b`, `[E K]`.
      num_edges: number of decisions `E`.

    Returns:
      The space, without weights. See `function_space`.

    Raises:
      UserError: shapes that do not fit together.

    Example:
      >>> space = quadratic_space([[1.0, 0.0], [0.0, 3.0]], [0.5, 0.0])
      >>> float(space.apply({}, dense_paths({"edges": jnp.array([[0.5, 0.5]])}), None))
      1.25
    """
    matrix, linear = np.asarray(matrix, np.float32), np.asarray(linear, np.float32)
    length = linear.size
    if linear.ndim != 1 or matrix.shape != (length, length) or num_edges < 1 or length % num_edges:
        shapes = f"{matrix.shape} and {linear.shape}"
        raise UserError(f"matrix and linear must have shapes [E K, E K] and [E K] with E={num_edges}, got {shapes}")

    def loss_fn(params, gates):
        del params
        # f(g) = g'Ag + b'g.
        row = gates.reshape(-1)
        return row @ matrix @ row + linear @ row

    config = {"matrix": matrix.tolist(), "linear": linear.tolist(), "num_edges": num_edges}
    return function_space(loss_fn, num_edges, length // num_edges, name="quadratic", config=config)
