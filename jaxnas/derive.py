"""From a supernet to the stand-alone network of one architecture, weights included.

A supernet normalises with the statistics of the batch at hand and keeps none. `network` hands its weights over by name;
`recalibrate` measures the statistics that the network needs to judge single images.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.traverse_util as traverse
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.architectures import arch_like
from jaxnas.base import Arch, Network, Params, SearchSpace, Tree, sparse_paths
from jaxnas.errors import UserError

__all__ = ["known_form", "network", "recalibrate"]

_Stats = dict[tuple[str, ...], tuple[jax.Array, jax.Array]]  # path of a layer -> mean [C], variance [C]


def network(space: SearchSpace, params: Params, arch: Arch, **changes: Any) -> tuple[Network, Tree]:
    """The stand-alone network of `arch` with the weights of the supernet.

    With the statistics of the batch (`train=True`) its logits are those of the supernet on the paths of `arch`. Its
    running averages start at mean 0 and variance 1: call `recalibrate` before `train=False`.

    A space without a stand-alone network gets a stand-in that runs the supernet on the paths of `arch`, always with
    the statistics of the batch, and whose variables are `{"params": params}`; its drop path is that of the space.

    Args:
      space: the space of the architecture.
      params: weights of the space's supernet.
      arch: one integer per decision, leaves `[E]`.
      **changes: further changes to `space.about.network`, beside those of `space.about.supernet`.

    Returns:
      The network and its variables.

    Raises:
      UserError: an architecture of another space, changes that alter the shape of a weight, or changes to a space
        that has no stand-alone network.

    Example:
      >>> from jaxnas.spaces.darts import snas_space
      >>> space = snas_space(channels=4, cells=1, nodes=1, operations=["none", "skip_connect"])
      >>> x = jnp.zeros((2, 8, 8, 1))
      >>> arch = {"normal": [1, 1], "reduce": [1, 0]}
      >>> child, variables = network(space, space.init(jax.random.key(0), x), arch)
      >>> child.apply(variables, x)[0].shape
      (2, 10)
    """
    arch = arch_like(space.choices, arch)
    if space.about.network is not None:
        child = space.about.network(arch, **{**space.about.supernet, **changes})
        if child.inherit is not None:
            return child, child.inherit(params)
    if changes:
        raise UserError(f"space {space.about.name!r} has no network to inherit weights, cannot change {list(changes)}")
    child = _within_supernet(space, arch)
    return child, {"params": params}


@contextlib.contextmanager
def known_form(space: SearchSpace, changes: Mapping[str, Any]) -> Iterator[None]:
    """Says in one line that a space has no network of a form, around a call of its `about` with `changes`.

    Raises:
      UserError: the call refused its arguments.
    """
    try:
        yield
    except TypeError as error:
        raise UserError(f"network: space {space.about.name!r} has no form {dict(changes)}: {error}") from None


def _within_supernet(space: SearchSpace, arch: Arch) -> Network:
    """A network that runs the supernet on the paths of one architecture."""
    paths = sparse_paths(arch)

    def init(key, x):
        return {"params": space.init(key, x)}

    def apply(variables, x, *, key=None, train=False, drop_path=0.0):
        del drop_path  # a setting of the space
        return space.apply(variables["params"], paths, x, key=key if train else None), variables

    return Network(init, apply, inherit=lambda params: {"params": params})


def recalibrate(network: Network, variables: Tree, batches: jax.Array | Iterable[jax.Array]) -> Tree:
    """Measures the running averages anew, as the mean and variance pooled over all batches.

    `mean = avg_n mean_n`, `var = avg_n var_n + avg_n (mean_n - mean)^2`, both biased, which in the first layer are
    the moments of all batches put together. Further layers see inputs normalised with their own batch, as in training.
    A batch counts by its number of examples. There is no decay: a moving average that starts at 0 and 1 with momentum
    0.9 still holds a third of its start after ten batches.

    Args:
      network: a network; without a Linen module, or without normalisation, nothing is measured.
      variables: weights and running averages of the network.
      batches: training images as the network takes them: an array `[N, B, H, W, C]`, which is scanned over and under
        which the function can be jitted, `jax.jit(partial(recalibrate, network))`; or an iterable of `[B, H, W, C]`.

    Returns:
      The variables with new `batch_stats`; everything else as it was.

    Raises:
      UserError: no batch, or a layer that keeps running averages and does not report its batch as `jaxnas.ops.Norm`
        does.

    References:
      Wu and Johnson (2021), Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3.
    """
    if network.module is None or not variables.get("batch_stats"):
        return variables

    # A batch: its moments, pooled with those of the `seen` examples before it.
    def step(variables, carry, x):
        stats, seen = carry
        _, new = network.module.apply(variables, x, train=True, mutable=["batch_stats", "batch_moments"])
        moments = _moments(new.get("batch_moments", {}), stats)
        share = x.shape[0] / (seen + x.shape[0])
        merged = {layer: _merge(stats[layer], moments[layer], share) for layer in stats}
        return merged, seen + x.shape[0]

    # Nothing is seen at the start, so the first batch counts whole.
    start = jax.tree.map(jnp.zeros_like, _layers(variables["batch_stats"]))
    stats, _ = _fold(step, variables, (start, jnp.float32(0)), batches)
    pooled = {(*layer, name): leaf for layer, pair in stats.items() for name, leaf in zip(("mean", "var"), pair)}
    return {**variables, "batch_stats": traverse.unflatten_dict(pooled)}


def _layers(batch_stats: Tree) -> _Stats:
    flat = traverse.flatten_dict(batch_stats)
    for path in flat:
        if path[-1] not in ("mean", "var"):
            raise UserError(f"layer {'/'.join(path[:-1])} keeps {path[-1]!r}, expected only 'mean' and 'var'")
    return {path[:-1]: (leaf, flat[*path[:-1], "var"]) for path, leaf in flat.items() if path[-1] == "mean"}


def _fold(step: Callable[..., Any], variables: Tree, carry: Any, batches: Any) -> Any:
    """Applies `carry = step(variables, carry, x)` to every batch."""
    if isinstance(batches, jax.Array | np.ndarray):
        if batches.ndim < 3 or not len(batches):
            raise UserError(f"batches must have shape [N, B, ...] with N >= 1, got {batches.shape}")
        return lax.scan(lambda carry, x: (step(variables, carry, x), None), carry, jnp.asarray(batches))[0]
    # Batches of an iterable go through one compiled step.
    compiled, first = jax.jit(step), carry
    for x in batches:
        carry = compiled(variables, carry, x)
    if carry is first:
        raise UserError("batches must hold at least one batch, got none")
    return carry


def _moments(sown: Tree, stats: _Stats) -> _Stats:
    """Mean and variance of one batch for every layer of `stats`; a layer that ran several times is pooled."""
    flat = traverse.flatten_dict(sown)
    # Statistics that every layer has sown; calls after the first are pooled with it.
    found = {}
    for layer in stats:
        if (*layer, "mean") not in flat:
            raise UserError(f"layer {'/'.join(layer)} keeps running averages and sows no 'batch_moments'")
        calls = list(zip(flat[*layer, "mean"], flat[*layer, "var"], strict=True))
        found[layer] = calls[0]
        for number, call in enumerate(calls[1:], start=2):
            found[layer] = _merge(found[layer], call, 1 / number)
    return found


def _merge(total, new, share):
    """Pools two groups, of which the new one holds `share` of the examples (Chan et al., 1979)."""
    # mean = (1 - s) m_1 + s m_2; variance = (1 - s) v_1 + s v_2 + s (1 - s) (m_2 - m_1)^2.
    (mean, variance), (new_mean, new_variance) = total, new
    gap = new_mean - mean
    variance = (1 - share) * variance + share * new_variance + share * (1 - share) * jnp.square(gap)
    # Images may be wider than the averages, which keep their type.
    return (mean + share * gap).astype(mean.dtype), variance.astype(mean.dtype)
