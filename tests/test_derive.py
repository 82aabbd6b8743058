"""Inherited weights compute what the supernet computed, and recalibration pools what numpy pools."""

import functools

import chex
import flax.linen as nn
import flax.traverse_util as traverse
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import derive
from jaxnas.base import About, Network, SearchSpace, one_hot_paths
from jaxnas.errors import UserError
from jaxnas.ops import Norm
from jaxnas.spaces import registry
from jaxnas.spaces.parts.inherit import linen_network

OPERATIONS = ("none", "avg_pool_3x3", "skip_connect")
SETTINGS = {
    "darts": {"cells": 3, "nodes": 2, "stem_multiplier": 1},
    "snas": {"cells": 1, "nodes": 2, "stem_multiplier": 1},
    "nasbench201": {"cells": 1},
}
X = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
OFFSETS = np.array([-2.0, 0.0, 1.0, 5.0, 0.5])


@functools.cache
def supernet(name):
    space = registry.build(name, channels=4, num_classes=5, operations=OPERATIONS, lowering="lax", **SETTINGS[name])
    shapes = jax.eval_shape(space.init, jax.random.key(0), X)
    rng = np.random.default_rng(0)
    return space, jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def random_arch(space, seed=0):
    rng = np.random.default_rng(seed)
    return space.derive(jax.tree.map(lambda c: jnp.asarray(rng.normal(size=c.shape), jnp.float32), space.choices))


@functools.cache
def child(seed=0):
    space, params = supernet("snas")
    return derive.network(space, params, random_arch(space, seed))


def batches(num=5, size=4):
    """Batches whose means differ, `[N, B, H, W, C]`."""
    x = np.random.default_rng(0).normal(size=(num, size, 8, 8, 3)) + OFFSETS[:num, None, None, None, None]
    return x.astype(np.float32)


@pytest.mark.parametrize("name", SETTINGS)
def test_logits_are_those_of_the_supernet(name):
    space, params = supernet(name)
    arch = random_arch(space, 1)
    network, variables = derive.network(space, params, arch)
    expected = jax.jit(space.apply)(params, one_hot_paths(space.choices, arch), X)
    logits, _ = jax.jit(functools.partial(network.apply, train=True))(variables, X)
    chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_every_space_says_what_its_supernet_does_otherwise():
    both = {"affine": False, "pool_norm": True}
    expected = {"darts": both, "snas": both, "nasbench201": {"affine": False}, "nasbench201-small": {}, "proxyless": {}}
    assert {name: registry.build(name).about.supernet for name in expected} == expected
    assert bare_space().about.supernet == {}


def test_an_error_inside_a_network_is_not_taken_for_a_missing_form():
    def network(arch, **changes):
        raise UserError("of its own")

    with pytest.raises(UserError, match="of its own"):
        derive.network(bare_space(BARE._replace(network=network)), None, [1])


def test_changes_reach_the_network():
    space, params = supernet("snas")
    _, plain = derive.network(space, params, random_arch(space))
    _, affine = derive.network(space, params, random_arch(space), affine=True)
    assert set(plain["params"]["cell0_pre0"]) == {"kernel"}
    assert set(affine["params"]["cell0_pre0"]) == {"kernel", "norm"}
    with pytest.raises(ValueError, match="cannot inherit shape"):
        derive.network(space, params, random_arch(space), channels=8)


def test_an_architecture_of_another_space_is_refused():
    space, params = supernet("snas")
    with pytest.raises(ValueError, match=r"expected integers of shape \(5,\)"):
        derive.network(space, params, {"normal": [0, 0], "reduce": [0, 0]})


BARE = About(name="bare")


def bare_space(about=BARE):
    """A choice between `w0 x` and `w1 x`; only its functions are known."""

    def apply(params, paths, x, *, key=None):
        return x * params[paths.index[0, 0]] * (1.0 if key is None else 100.0)

    choices = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    return SearchSpace(lambda key, x: jnp.ones(2), apply, lambda *_: None, lambda s: jnp.argmax(s, -1), choices, about)


@pytest.mark.parametrize("about", [BARE, BARE._replace(network=lambda arch, **changes: Network(None, None))])
def test_a_space_without_a_network_runs_its_supernet(about):
    x, params = jnp.arange(3.0), jnp.array([2.0, 5.0])
    network, variables = derive.network(bare_space(about), params, [1])
    assert variables is not params
    chex.assert_trees_all_equal(network.inherit(params), variables, {"params": params})
    y, same = network.apply(variables, x, key=jax.random.key(0))
    chex.assert_trees_all_equal(y, 5 * x)
    assert same is variables
    assert network.apply(variables, x, key=jax.random.key(0), train=True)[0][1] == 500.0
    assert derive.recalibrate(network, variables, [x]) is variables
    with pytest.raises(ValueError, match=r"'bare' has no network .* \['channels'\]"):
        derive.network(bare_space(about), params, [1], channels=3)


class OneLayer(nn.Module):
    """A normalisation layer that runs once, or twice on different inputs."""

    calls: int = 1

    @nn.compact
    def __call__(self, x, train=False, drop_rate=None):
        norm = Norm(running=True, train=train, name="norm")
        return sum(norm(x * (i + 1) + i) for i in range(self.calls))


@pytest.mark.parametrize("calls", [1, 2])
def test_one_layer_gets_the_moments_of_all_batches_put_together(calls):
    network = linen_network(OneLayer(calls))
    x = batches()
    variables = network.init(jax.random.key(0), x[0])
    stats = derive.recalibrate(network, variables, x)["batch_stats"]["norm"]
    seen = np.concatenate([x * (i + 1) + i for i in range(calls)]).astype(np.float64)
    np.testing.assert_allclose(stats["mean"], seen.mean((0, 1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], seen.var((0, 1, 2, 3)), rtol=1e-5)


def test_batches_count_by_their_size():
    network = linen_network(OneLayer())
    x = batches(3)
    uneven = [x[0], x[1][:1], x[2][:3]]
    variables = network.init(jax.random.key(0), x[0])
    stats = derive.recalibrate(network, variables, iter(uneven))["batch_stats"]["norm"]
    together = np.concatenate(uneven).astype(np.float64)
    np.testing.assert_allclose(stats["mean"], together.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], together.var((0, 1, 2)), rtol=1e-5)


def test_every_layer_gets_the_pooled_moments_of_its_batches():
    network, variables = child()
    x = batches()
    found = jax.jit(functools.partial(derive.recalibrate, network))(variables, x)
    chex.assert_trees_all_equal(found["params"], variables["params"])
    apply = jax.jit(lambda x: network.module.apply(variables, x, train=True, mutable=["batch_moments"])[1])
    sown = [traverse.flatten_dict(apply(batch)["batch_moments"]) for batch in x]
    stats = traverse.flatten_dict(found["batch_stats"])
    assert stats.keys() == sown[0].keys()
    assert len(stats) >= 6
    for *layer, name in stats:
        mean, variance = (np.array([moments[*layer, n][0] for moments in sown], np.float64) for n in ("mean", "var"))
        expected = mean.mean(0) if name == "mean" else variance.mean(0) + mean.var(0)
        np.testing.assert_allclose(stats[*layer, name], expected, rtol=1e-4, atol=1e-5)


def test_after_one_batch_single_images_are_judged_as_in_the_batch():
    network, variables = child()
    expected, _ = jax.jit(functools.partial(network.apply, train=True))(variables, X)
    apply = jax.jit(lambda variables: network.apply(variables, X)[0])
    fresh, logits = apply(variables), apply(derive.recalibrate(network, variables, [X]))
    chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert float(jnp.max(jnp.abs(fresh - expected))) > 1e-2


def test_a_moving_average_is_not_the_pooled_average():
    network = linen_network(OneLayer())
    x = batches()
    averaged = variables = network.init(jax.random.key(0), x[0])
    for batch in x:
        _, averaged = network.apply(averaged, batch, train=True)
    mean, variance = (averaged["batch_stats"]["norm"][name] for name in ("mean", "var"))
    pooled = derive.recalibrate(network, variables, x)["batch_stats"]["norm"]
    assert float(jnp.min(jnp.abs(mean - pooled["mean"]))) > 0.1
    assert float(jnp.min(pooled["var"] - variance)) > 1.0  # it also misses the variance between batches


def test_without_normalisation_nothing_changes():
    network = linen_network(nn.Dense(2))
    variables = network.init(jax.random.key(0), X)
    assert derive.recalibrate(network, variables, [X]) is variables


class Foreign(nn.Module):
    """A layer with statistics that nobody sows."""

    @nn.compact
    def __call__(self, x, train=False, drop_rate=None):
        return nn.BatchNorm(use_running_average=not train, name="foreign")(x)


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        (OneLayer(), [], "at least one batch, got none"),
        (OneLayer(), np.zeros((0, 4, 8, 8, 3)), r"N >= 1, got \(0, 4, 8, 8, 3\)"),
        (Foreign(), [X], "layer foreign keeps running averages and sows no 'batch_moments'"),
    ],
)
def test_what_cannot_be_measured_is_refused(module, given, message):
    network = linen_network(module)
    variables = network.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=message):
        derive.recalibrate(network, variables, given)
