"""Losses whose exact gradient is known, on which `benchmarks.estimator_variance` measures estimators.

The exact gradient is the closed form over the losses of all architectures, in float64: a handful on the toys, 15,625
and 2,500 on the supernets of `benchmarks.supernets`.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.supernets import gated, supernet
from benchmarks.truth import Case, all_losses, closed_form
from jaxnas.base import SearchSpace
from jaxnas.errors import UserError
from jaxnas.estimators import ESTIMATORS
from jaxnas.spaces import function_space, quadratic_space

# The quadratic toy that the library's tests use too; its exact gradient is (-0.0983, -0.0983, -0.2650, 0.4616).
UPPER = [
    [0.1363215, 0.24580253, -0.09484093, -0.34144431],
    [0.0, 0.90452134, -0.25626348, -0.34555518],
    [0.0, 0.0, 0.7460141, 0.79780577],
    [0.0, 0.0, 0.0, 2.26264424],
]
LINEAR = [1.0, -0.5, 0.3, 2.0]
LOGITS = [[0.3, -0.7, 1.1, 0.0]]


class Problem(NamedTuple):
    """What `--problem` names.

    Attributes:
      cases: `(folder) -> cases` that share one loss; the folder keeps what takes long to compute.
      binary: `(folder) -> cases` with two options a decision, for estimators that need it, or None.
      draws: number of draws unless another is asked for.
      supernet: whether the loss chooses between operations, as against a function of gates.
    """

    cases: Callable[[Path | None], list[Case]]
    binary: Callable[[Path | None], list[Case]] | None
    draws: int = 100_000
    supernet: bool = False


def toy(name: str, space: SearchSpace, logits: Any) -> list[Case]:
    """A space whose `apply` is its loss, at one policy."""

    def loss_fn(paths, params):
        return space.apply(params, paths, None), {}

    tree = {"edges": jnp.asarray(logits, jnp.float32)}
    value, truth = closed_form(all_losses(loss_fn, {}, tree), tree)
    return [Case(name, tree, {}, loss_fn, value, truth, parallel=True)]


def golden(folder: Path | None = None) -> list[Case]:
    """One decision between four options, a quadratic form of the gates."""
    upper = np.array(UPPER)
    return toy("golden", quadratic_space(upper + np.triu(upper, 1).T, LINEAR), LOGITS)


def golden_binary(folder: Path | None = None) -> list[Case]:
    """One decision between two options, `3 (b - 0.499)^2 + exp(b)` of the gate `b` of the second."""
    space = function_space(lambda params, gates: 3 * (gates[0, 1] - 0.499) ** 2 + jnp.exp(gates[0, 1]), 1, 2)
    return toy("golden_binary", space, [[0.0, 0.4]])


def three_edge(folder: Path | None = None, num_ops: int = 3, name: str = "three_edge") -> list[Case]:
    """Three decisions between three options, a small tanh network of all nine gates."""
    rng = np.random.default_rng(7)
    first, offset, last = (rng.normal(size=shape) for shape in ((8, 3, 3), 8, 8))
    logits = rng.normal(size=(3, 3))[:, :num_ops]
    first, offset, last = (jnp.asarray(part, jnp.float32) for part in (first[:, :, :num_ops], offset, last))

    def loss(params, gates):
        return last @ jnp.tanh(jnp.einsum("hek,ek->h", first, gates) + offset)

    return toy(name, function_space(loss, 3, num_ops), logits)


def three_edge_binary(folder: Path | None = None) -> list[Case]:
    """`three_edge` without the third option of every decision."""
    return three_edge(folder, 2, "three_edge_binary")


def users_loss(name: str, shape: tuple[int, int], logits_seed: int | None) -> Problem:
    """A user's `loss(gates[E, K]) -> scalar`, given as `module:function`.

    Raises:
      UserError: it cannot be imported, or does not give a scalar of gates of this shape.
    """
    module, _, attribute = name.partition(":")
    try:
        loss = getattr(importlib.import_module(module), attribute)
        found = jax.eval_shape(loss, jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:  # whatever a user's file may raise
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"problem {name!r}: {type(error).__name__}: {reason}") from None
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise UserError(f"problem {name!r}: expected a float scalar of gates of shape {shape}, got {found}")
    logits = np.zeros(shape) if logits_seed is None else np.random.default_rng(logits_seed).normal(size=shape)
    cases = toy(name, function_space(lambda params, gates: loss(gates), *shape), logits)
    return Problem(lambda folder: cases, (lambda folder: cases) if shape[1] == 2 else None)


PROBLEMS = {
    "golden": Problem(golden, golden_binary),
    "golden_binary": Problem(golden_binary, golden_binary),
    "three_edge": Problem(three_edge, three_edge_binary),
    "three_edge_binary": Problem(three_edge_binary, three_edge_binary),
    "supernet": Problem(supernet, None, draws=100, supernet=True),
    "proxyless": Problem(gated, None, draws=100, supernet=True),
}


def find_problem(name: str, shape: str | None, logits_seed: int | None) -> Problem:
    """A problem by name, or a user's own loss."""
    if ":" not in name:
        if name not in PROBLEMS:
            raise UserError(f"unknown problem {name!r}, accepted are {', '.join(PROBLEMS)} and MODULE:FUNCTION")
        if shape is not None or logits_seed is not None:
            raise UserError("--shape and --logits-seed belong to a loss of your own, MODULE:FUNCTION")
        return PROBLEMS[name]
    decisions, _, options = (shape or "").partition("x")
    if not (decisions.isdecimal() and options.isdecimal() and int(decisions) >= 1 and int(options) >= 2):
        raise UserError(f"--shape must be DECISIONSxOPTIONS such as 3x4, at least 1x2, got {shape!r}")
    return users_loss(name, (int(decisions), int(options)), logits_seed)


def obstacle(estimator: str, name: str, problem: Problem) -> str | None:
    """Why an estimator cannot be measured on a problem, or None."""
    entry = ESTIMATORS[estimator]
    if entry.binary and problem.binary is None:
        return f"{estimator} is for decisions between two options, which {name} does not have"
    if entry.supernet and not problem.supernet:
        return f"{estimator} is a form of choosing between operations: it needs --problem supernet, not {name}"
    if estimator == "exact" and problem.supernet:
        return f"exact is what the estimates on {name} are compared with, and every draw would take minutes"
    return None
