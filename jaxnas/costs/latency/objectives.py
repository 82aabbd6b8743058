"""Latency in the loss: what a search minimises besides the cross-entropy."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxnas.base import CostTable, Paths, Tree
from jaxnas.costs.tables import expected_cost
from jaxnas.errors import UserError

__all__ = ["Form", "latency_objective", "policy_probabilities"]

Form = Literal["mul#log", "add#linear", "limit"]


def latency_objective(
    table: CostTable,
    target: float,
    form: Form = "mul#log",
    *,
    weight: float | None = None,
    exponent: float = 0.3,
) -> Callable[[jax.Array, Tree, Paths | None], jax.Array]:
    """`(loss, logits, paths) -> scalar` for `estimators.with_objective`, from the expected latency `E`.

    * `mul#log`: `weight * loss * (log E / log target)^exponent`, the default of the released code.
    * `add#linear`: `loss + weight * (E - target) / target`.
    * `limit`: `loss + weight * max(0, E / target - 1)`, which lets everything below the target latency alone.

    `E` is exact, the sum of all blocks' expectations; with a pair of paths (`two_path_gate`) it is taken with
    the pair's probabilities, which add up to one, as in the released code.

    Args:
      table: latency in milliseconds, from `latency_cost`.
      target: target latency in milliseconds, above 1 for `mul#log`, whose logarithms depend on the unit.
      form: one of the three forms above.
      weight: the factor in front; None for 0.2 with `mul#log`, 0.1 with `add#linear` and 1 with `limit`.
      exponent: the power to which `mul#log` takes the ratio of logarithms.

    Raises:
      UserError: another form, a target that is not above 0, or 1 for `mul#log`; a fixed part of at most 1 ms for
        `mul#log`, as the logarithm of the cheapest architecture must be above 0.

    References:
      Cai, Zhu and Han, 2019, "ProxylessNAS", arXiv 1812.00332, section 3.3.

    Example:
      >>> table = jn.base.CostTable(2.0, {"layer": np.array([[1.0, 3.0]])})
      >>> objective = latency_objective(table, 3.0, "add#linear")
      >>> round(float(objective(1.0, {"layer": jnp.zeros([1, 2])}, None)), 4)  # expected: 2 + (1 + 3) / 2 ms
      1.0333
    """
    defaults = {"mul#log": 0.2, "add#linear": 0.1, "limit": 1.0}
    if form not in defaults:
        raise UserError(f"form must be one of {', '.join(defaults)}, got {form!r}")
    # `mul#log` takes logarithms of latencies in ms, which must be above 0.
    least = 1.0 if form == "mul#log" else 0.0
    if not least < target < math.inf:
        raise UserError(f"target must be above {least:g} ms for {form}, got {target}")
    lowest = table.fixed + sum(float(leaf.min(-1).sum()) for leaf in jax.tree.leaves(table.table))
    if form == "mul#log" and lowest <= 1:
        raise UserError(f"mul#log needs latencies above 1 ms, the cheapest architecture takes {lowest:g}: other units?")
    factor = defaults[form] if weight is None else weight

    def objective(loss: jax.Array, logits: Tree, paths: Paths | None) -> jax.Array:
        # E, and the form in which it joins the loss.
        expected = expected_cost(table, policy_probabilities(logits, paths))
        if form == "mul#log":
            return factor * loss * (jnp.log(expected) / math.log(target)) ** exponent
        if form == "add#linear":
            return loss + factor * (expected - target) / target
        return loss + factor * jnp.maximum(expected / target - 1, 0.0)

    return objective


def policy_probabilities(logits: Tree, paths: Paths | None = None) -> Tree:
    """`softmax(logits)`, or where `paths` ask about a pair of operations the softmax of the pair and zero elsewhere."""
    if paths is None or paths.probe is None or paths.probe.index is None:
        return jax.tree.map(jax.nn.softmax, logits)

    def of_pair(leaf: jax.Array, pair: jax.Array) -> jax.Array:
        # Softmax over the pair, in its two places of the row.
        two = jax.nn.softmax(jnp.take_along_axis(leaf, pair, -1))
        return jnp.put_along_axis(jnp.zeros_like(leaf), pair, two, -1, inplace=False)

    return jax.tree.map(of_pair, logits, paths.probe.index)
