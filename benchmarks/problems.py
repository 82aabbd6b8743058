"""Losses whose exact gradient is known, on which `benchmarks.estimator_variance` measures estimators.

The exact gradient is the closed form over the losses of all architectures, in float64. On the toys these are a handful;
for the supernet they are 15,625, evaluated once at each of four moments of a search and kept in a file.
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import data
from jaxnas.base import Batch, LossFn, Params, Searcher, SearchSpace, Tree, sparse_paths
from jaxnas.estimators import ESTIMATORS, enumerate_architectures
from jaxnas.relaxations import annealed
from jaxnas.searchers import classification_loss, proxyless, snas
from jaxnas.spaces import function_space, nasbench201_space, proxyless_space, quadratic_space
from jaxnas.spaces.nasbench201 import OPERATIONS

# The quadratic toy that the library's tests use too; its exact gradient is (-0.0983, -0.0983, -0.2650, 0.4616).
UPPER = [
    [0.1363215, 0.24580253, -0.09484093, -0.34144431],
    [0.0, 0.90452134, -0.25626348, -0.34555518],
    [0.0, 0.0, 0.7460141, 0.79780577],
    [0.0, 0.0, 0.0, 2.26264424],
]
LINEAR = [1.0, -0.5, 0.3, 2.0]
LOGITS = [[0.3, -0.7, 1.1, 0.0]]


class Case(NamedTuple):
    """A loss at one policy.

    Attributes:
      name: for tables.
      logits: policy parameters, leaves `[E, K]`.
      params: weights of the loss.
      loss_fn: `(paths, params) -> (loss, aux)`.
      value: the expected loss.
      truth: its exact gradient in the logits, leaves one after the other, float64.
      parallel: whether draws are vmapped; otherwise they follow each other, so that a sparse path stays sparse.
    """

    name: str
    logits: Tree
    params: Params
    loss_fn: LossFn
    value: float
    truth: np.ndarray
    parallel: bool


class Problem(NamedTuple):
    """What `--problem` names.

    Attributes:
      cases: `(folder) -> cases` that share one loss; the folder keeps what takes long to compute.
      binary: the same with two options a decision, for estimators that need it, or None.
      draws: by default.
      supernet: whether it chooses between operations, as against a function of gates.
    """

    cases: Callable[[Path | None], list[Case]]
    binary: Callable[[Path | None], list[Case]] | None
    draws: int = 100_000
    supernet: bool = False


@dataclasses.dataclass(frozen=True)
class Search:
    """The search that the supernet's moments come from: SNAS on scikit-learn's digits."""

    channels: int = 4
    cells: int = 1
    operations: tuple[str, ...] = OPERATIONS
    batch: int = 32
    moments: tuple[int, ...] = (0, 100, 200, 300)  # steps
    policy_learning_rate: float = 0.03
    last_temperature: float = 0.1
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class GateSearch:
    """The search that the gates' moments come from: ProxylessNAS on scikit-learn's digits."""

    widths: tuple[int, ...] = (8, 12)
    blocks: tuple[int, ...] = (2, 3)
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 4)
    batch: int = 32
    moments: tuple[int, ...] = (0, 200, 400)  # steps
    warmup_steps: int = 100
    learning_rate: float = 0.05
    policy_learning_rate: float = 0.01
    seed: int = 0


def closed_form(losses: Any, logits: Tree) -> tuple[float, np.ndarray]:
    """The expected loss and its gradient, `p_e[k] (E[loss | a_e = k] - E[loss])`, from the losses of all architectures.

    Args:
      losses: `[P]`, in the order of `enumerate_architectures`.
      logits: leaves `[E, K]`.

    Returns:
      The value, and the gradient of all leaves in one row, float64.
    """
    rows = [row for leaf in jax.tree.leaves(logits) for row in np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])]
    shares = [np.exp(row - row.max()) for row in rows]
    shares = [share / share.sum() for share in shares]
    table = np.asarray(losses, np.float64).reshape([len(share) for share in shares])
    value, grads = 0.0, []
    for kept, share in enumerate(shares):
        given = table
        for axis in reversed(range(len(shares))):
            given = given if axis == kept else np.tensordot(given, shares[axis], (axis, 0))
        value = share @ given
        grads.append(share * (given - value))
    return float(value), np.concatenate(grads)


def all_losses(loss_fn: LossFn, params: Params, choices: Tree) -> np.ndarray:
    """The loss of every architecture, `[P]`, one after the other on sparse paths."""
    archs = jax.tree.map(jnp.asarray, enumerate_architectures(choices))
    run = jax.jit(lambda params, archs: jax.lax.map(lambda arch: loss_fn(sparse_paths(arch), params)[0], archs))
    return np.asarray(run(params, archs))


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
    """The same without the third option of every decision."""
    return three_edge(folder, 2, "three_edge_binary")


def own(name: str, shape: tuple[int, int], logits_seed: int | None) -> Problem:
    """A user's `loss(gates[E, K]) -> scalar`, given as `module:function`.

    Raises:
      ValueError: it cannot be imported, or does not give a scalar of gates of this shape.
    """
    module, _, attribute = name.partition(":")
    try:
        loss = getattr(importlib.import_module(module), attribute)
        found = jax.eval_shape(loss, jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:  # whatever a user's file may raise
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"problem {name!r}: {type(error).__name__}: {reason}") from None
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"problem {name!r}: expected a float scalar of gates of shape {shape}, got {found}")
    logits = np.zeros(shape) if logits_seed is None else np.random.default_rng(logits_seed).normal(size=shape)
    cases = toy(name, function_space(lambda params, gates: loss(gates), *shape), logits)
    return Problem(lambda folder: cases, (lambda folder: cases) if shape[1] == 2 else None)


def supernet(folder: Path | None = None, search: Search | None = None) -> list[Case]:
    """The NAS-Bench-201 supernet on digits, a fixed batch, at moments of a SNAS search."""
    search = search or Search()
    space = nasbench201_space(search.channels, search.cells, 10, operations=search.operations)
    searcher = snas(
        space,
        policy_learning_rate=search.policy_learning_rate,
        temperature=annealed(1.0, search.last_temperature, epochs=max(*search.moments, 1)),
    )
    return _cases("supernet", folder, search, space, searcher)


def gated(folder: Path | None = None, search: GateSearch | None = None) -> list[Case]:
    """A chain of inverted bottlenecks on digits, a fixed batch, at moments of a ProxylessNAS search."""
    search = search or GateSearch()
    space = proxyless_space(
        search.widths,
        search.blocks,
        (1, 2),
        stem_channels=search.widths[0],
        stem_stride=1,
        first_channels=search.widths[0],
        last_channels=2 * search.widths[-1],
        num_classes=10,
        kernels=search.kernels,
        expansions=search.expansions,
    )
    rates = {"learning_rate": search.learning_rate, "policy_learning_rate": search.policy_learning_rate}
    searcher = proxyless(space, **rates, policy_every=1, warmup_steps=search.warmup_steps, skip_zero_sampled=False)
    return _cases("proxyless", folder, search, space, searcher)


def _cases(name: str, folder: Path | None, search: Any, space: SearchSpace, searcher: Searcher) -> list[Case]:
    images = data.split(data.load("digits"), seed=search.seed)
    look = {"mean": images.mean, "std": images.std}
    batch = data.batch(jax.random.key(search.seed), images.policy, 0, search.batch, **look)
    loss = classification_loss(space)

    def loss_fn(paths, params):
        return loss(paths, params, batch, None)

    moments, losses = _kept(folder, search, space, searcher, images, loss_fn)
    cases = []
    for i, step in enumerate(search.moments):
        logits, params = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), moments)
        value, truth = closed_form(losses[i], logits)
        cases.append(Case(f"{name}, step {step}", logits, params, loss_fn, value, truth, parallel=False))
    return cases


def _kept(folder, search, space, searcher, images, loss_fn):
    """`(moments, losses[M, P])` from the folder's file if it is of this search, else computed and written there."""
    path = None if folder is None else folder / "moments.npz"
    images_like = jax.ShapeDtypeStruct((search.batch, *images.image_shape), jnp.float32)
    like = (space.choices, jax.eval_shape(space.init, jax.random.key(0), images_like))
    settings = json.dumps(dataclasses.asdict(search))
    if path is not None and path.exists():
        with np.load(path) as file:
            if str(file["settings"]) == settings:
                leaves = [file[f"leaf{j}"] for j in range(len(jax.tree.leaves(like)))]
                return jax.tree.unflatten(jax.tree.structure(like), leaves), file["losses"]
    moments = _moments(search, searcher, images)
    losses = []
    for i, step in enumerate(search.moments):
        print(f"step {step}: losses of all {space.about.size:,} architectures", file=sys.stderr)
        logits, params = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), moments)
        losses.append(all_losses(loss_fn, params, logits))
    losses = np.stack(losses)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        leaves = {f"leaf{j}": leaf for j, leaf in enumerate(jax.tree.leaves(moments))}
        np.savez(path, settings=settings, losses=losses, **leaves)
    return moments, losses


def _moments(search: Search | GateSearch, searcher: Searcher, images: data.SearchData) -> tuple[Tree, Params]:
    """Logits and weights at the moments of a search, stacked."""
    key_init, key_steps, key_data = jax.random.split(jax.random.key(search.seed), 3)

    def batch_of(images, step):
        both = data.batch(key_data, images.weights, step, search.batch, mean=images.mean, std=images.std)
        return Batch(both, both)

    @jax.jit
    def advance(state, images, until):
        def step(state):
            return searcher.step(jax.random.fold_in(key_steps, state.step), state, batch_of(images, state.step))[0]

        return jax.lax.while_loop(lambda state: state.step < until, step, state)

    state, found = jax.jit(searcher.init)(key_init, batch_of(images, 0)), []
    for until in search.moments:
        state = advance(state, images, until)
        found.append(jax.device_get((state.policy_params, state.params)))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


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
            raise ValueError(f"unknown problem {name!r}, accepted are {', '.join(PROBLEMS)} and MODULE:FUNCTION")
        if shape is not None or logits_seed is not None:
            raise ValueError("--shape and --logits-seed belong to a loss of your own, MODULE:FUNCTION")
        return PROBLEMS[name]
    decisions, _, options = (shape or "").partition("x")
    if not (decisions.isdecimal() and options.isdecimal() and int(decisions) >= 1 and int(options) >= 2):
        raise ValueError(f"--shape must be DECISIONSxOPTIONS such as 3x4, at least 1x2, got {shape!r}")
    return own(name, (int(decisions), int(options)), logits_seed)


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
