"""Supernets at moments of a search, on which `benchmarks.estimator_variance` measures estimators.

The losses of all architectures are evaluated once at every moment and stored with the weights and the logits.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.truth import Case, all_losses, closed_form
from jaxnas import data
from jaxnas.base import Batch, Params, Searcher, SearchSpace, Tree
from jaxnas.relaxations import annealed
from jaxnas.searchers import classification_loss, proxyless, snas
from jaxnas.spaces import nasbench201_space, proxyless_space
from jaxnas.spaces.nasbench201 import OPERATIONS


@dataclasses.dataclass(frozen=True)
class Search:
    """A SNAS search on scikit-learn's digits, at some moments of which the supernet is taken."""

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
    """A ProxylessNAS search on scikit-learn's digits, at some moments of which the supernet is taken."""

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


def supernet(folder: Path | None = None, search: Search | None = None) -> list[Case]:
    """The NAS-Bench-201 supernet with a fixed batch of digits, at moments of a SNAS search."""
    search = search or Search()
    space = nasbench201_space(search.channels, search.cells, 10, operations=search.operations)
    searcher = snas(
        space,
        policy_learning_rate=search.policy_learning_rate,
        temperature=annealed(1.0, search.last_temperature, epochs=max(*search.moments, 1)),
    )
    return _cases("supernet", folder, search, space, searcher)


def gated(folder: Path | None = None, search: GateSearch | None = None) -> list[Case]:
    """A chain of inverted bottlenecks with a fixed batch of digits, at moments of a ProxylessNAS search."""
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
    """One case per moment: its logits, its weights, and the true gradient from the losses of all architectures."""
    images = data.split(data.load("digits"), seed=search.seed)
    look = {"mean": images.mean, "std": images.std}
    batch = data.batch(jax.random.key(search.seed), images.policy, 0, search.batch, **look)
    loss = classification_loss(space)

    def loss_fn(paths, params):
        return loss(paths, params, batch, None)

    # The truth at each moment needs the losses of all architectures, which are evaluated once.
    moments, losses = _stored(folder, search, space, searcher, images, loss_fn)
    cases = []
    for i, step in enumerate(search.moments):
        logits, params = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), moments)
        value, truth = closed_form(losses[i], logits)
        cases.append(Case(f"{name}, step {step}", logits, params, loss_fn, value, truth, parallel=False))
    return cases


def _stored(folder, search, space, searcher, images, loss_fn):
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
    """The logits and the weights at the moments of a search, stacked over moments."""
    key_init, key_steps, key_data = jax.random.split(jax.random.key(search.seed), 3)

    def batch_of(images, step):
        both = data.batch(key_data, images.weights, step, search.batch, mean=images.mean, std=images.std)
        return Batch(both, both)

    # The search runs in one compiled loop from moment to moment, where logits and weights are copied.
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
