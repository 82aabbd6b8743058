"""Every space in three forms: the dense one-hot supernet, the sparse one, and the stand-alone network that inherits.

A new space is one row of `ROWS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import SearchSpace, dense_paths, one_hot_paths, sparse_paths
from jaxnas.ops import Classifier, ConvNorm, DilConv, Identity, Pool, Style, from_linen
from jaxnas.spaces import chain_space, darts_space, nasbench201_space, snas_space
from jaxnas.spaces.parts import CellGraph, EdgeGroup, apply_cell, init_cell


def chain(lowering="auto", **settings):
    """Four image operations, three places."""
    style = Style(lowering=lowering)
    ops = {
        "skip": Identity(4),
        "max": Pool(4, 1, style, kind="max"),
        "conv": ConvNorm(4, 1, style, kernel=3),
        "dil": DilConv(4, 1, style),
    }
    stem = ConvNorm(4, 1, style, kernel=3, activation=None)
    return chain_space(ops, 3, stem=stem, head=Classifier(3), scanned=lowering != "lax", **settings)


class Row(NamedTuple):
    """One space: `build(lowering=...)`, an architecture with every kind of operation, settings of its network."""

    build: Callable[..., SearchSpace]
    arch: Any
    network: dict[str, Any]


# Between them the two cell spaces have every kind of operation, in orders that are not alphabetical.
DARTS_OPERATIONS = ("none", "skip_connect", "sep_conv_3x3")
SNAS_OPERATIONS = ("skip_connect", "avg_pool_3x3", "dil_conv_3x3", "max_pool_3x3")


SMALL = {"channels": 4, "cells": 3, "num_classes": 3, "nodes": 2, "stem_multiplier": 2}


def darts(**settings):
    """Three cells, of which the last two reduce, with five edges each."""
    return darts_space(**{**SMALL, "operations": DARTS_OPERATIONS, **settings})


def snas(**settings):
    """The same with one node."""
    return snas_space(**{**SMALL, "nodes": 1, "operations": SNAS_OPERATIONS, **settings})


def nasbench201(**settings):
    """Two cells in each of the three stages."""
    return nasbench201_space(**{"channels": 4, "cells": 2, "num_classes": 3, **settings})


ROWS = {
    "darts": Row(darts, {"normal": [2, 1, 0, 2, 0], "reduce": [1, 2, 1, 0, 2]}, {"affine": False, "pool_norm": True}),
    "snas": Row(snas, {"normal": [0, 3], "reduce": [2, 1]}, {"affine": False}),
    "nasbench201": Row(nasbench201, {"cell": [3, 1, 2, 4, 0, 3]}, {"affine": False}),
    "chain": Row(chain, {"chain": [2, 1, 3]}, {}),
}


def as_arrays(arch):
    """Lists of integers as arrays."""
    return jax.tree.map(jnp.asarray, arch, is_leaf=lambda leaf: isinstance(leaf, list))


def images(side=8, dtype=jnp.float32):
    """Four fixed images."""
    return jnp.asarray(np.random.default_rng(0).standard_normal((4, side, side, 3)), dtype)


class Case(NamedTuple):
    """A row with its space built and initialised, and `graded(space.apply)`."""

    row: Row
    space: SearchSpace
    params: Any
    arch: Any
    run: Callable[..., Any]


def graded(apply):
    """Jitted `(params, paths, x) -> ((loss, logits), gradients)`; a nonlinear loss, so every logit counts."""

    def loss(params, paths, x):
        logits = apply(params, paths, x)
        return jnp.sum(jnp.sin(3 * logits) + logits**2), logits

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module", params=ROWS)
def case(request):
    row = ROWS[request.param]
    space = row.build()
    params = jax.jit(space.init)(jax.random.key(0), images())
    return Case(row, space, params, as_arrays(row.arch), graded(space.apply))


def assert_close(found, wanted, tolerance):
    """Every leaf to `tolerance` of its greatest entry."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.abs(one - other).max(initial=0) <= tolerance * np.abs(other).max(initial=1e-3)


def test_dense_and_sparse_agree(case):
    _, space, params, arch, run = case
    (_, dense), dense_grads = run(params, one_hot_paths(space.choices, arch), images())
    (_, sparse), sparse_grads = run(params, sparse_paths(arch), images())
    assert dense.shape == (4, 3)
    assert_close(sparse, dense, 1e-5)
    assert_close(sparse_grads, dense_grads, 1e-4)
    _check_used(space, params, arch, sparse_grads)


def test_the_network_standing_alone_agrees(case):
    row, space, params, arch, run = case
    network = space.about.network(row.arch, **row.network)
    alone = graded(lambda params, paths, x: network.apply(network.inherit(params), x, train=True)[0])
    (_, dense), dense_grads = run(params, one_hot_paths(space.choices, arch), images())
    (_, derived), derived_grads = alone(params, None, images())
    assert_close(derived, dense, 1e-5)
    assert_close(derived_grads, dense_grads, 1e-4)


def _check_used(space, params, arch, grads):
    """What is not used has no gradient, and the mask of both forms is the same."""
    masks = [space.used(params, paths) for paths in (sparse_paths(arch), one_hot_paths(space.choices, arch))]
    full = jax.tree.map(lambda mask, leaf: np.broadcast_to(mask, leaf.shape), masks[0], params)
    chex.assert_trees_all_equal(*masks)
    assert not all(np.all(mask) for mask in jax.tree.leaves(full))
    for mask, grad in zip(jax.tree.leaves(full), jax.tree.leaves(grads), strict=True):
        assert not np.any(np.asarray(grad)[~mask])
        assert np.any(grad) or not np.any(mask)


def test_plain_form_computes_exactly_what_the_network_does(case):
    row, _, params, arch, _ = case
    space = row.build(lowering="lax")
    network = space.about.network(row.arch, **row.network)
    supernet = space.apply(params, one_hot_paths(space.choices, arch), images())
    derived, _ = network.apply(network.inherit(params), images(), train=True)
    assert np.abs(supernet - derived).max() == 0.0


def test_plain_and_fast_form_agree(case):
    row, space, params, _, run = case
    paths = dense_paths(
        jax.tree.map(lambda c: jax.nn.softmax(jax.random.normal(jax.random.key(1), c.shape)), space.choices)
    )
    (_, fast), fast_grads = run(params, paths, images())
    (_, plain), plain_grads = graded(row.build(lowering="lax").apply)(params, paths, images())
    assert_close(fast, plain, 1e-5)
    assert_close(fast_grads, plain_grads, 1e-4)


def test_one_trace_serves_every_architecture(case):
    _, space, params, arch, _ = case
    traces = []

    @jax.jit
    def apply(arch, x):
        traces.append(None)
        return space.apply(params, sparse_paths(arch), x)

    other = jax.tree.map(lambda leaf: (leaf + 1) % 3, arch)
    assert not np.array_equal(apply(arch, images()), apply(other, images()))
    assert len(traces) == 1


def test_space_describes_itself(case):
    row, space, _, arch, _ = case
    about = space.about
    for kind, values in row.arch.items():
        assert len(about.edges[kind]) == len(values)
        assert len(about.operations[kind]) == space.choices[kind].shape[-1]
    again = about.parse(about.genotype(arch))
    chex.assert_trees_all_equal(again, jax.tree.map(np.asarray, arch))
    if about.config is not None:
        again = row.build(**about.config)
        assert again.choices == space.choices
        assert again.about.config == about.config


def test_one_operation_everywhere(case):
    # With `none` everywhere normalisation sees zeros only, and gradients pass many of them.
    _, space, params, arch, run = case
    for k in range(min(choice.shape[-1] for choice in space.choices.values())):
        same = jax.tree.map(lambda leaf, k=k: jnp.full_like(leaf, k), arch)
        (_, dense), dense_grads = run(params, one_hot_paths(space.choices, same), images())
        (_, sparse), sparse_grads = run(params, sparse_paths(same), images())
        chex.assert_tree_all_finite((dense, dense_grads, sparse, sparse_grads))
        assert_close(sparse, dense, 1e-5)


def test_bfloat16_gives_float32_logits_and_gradients_close_by(case):
    row, _, params, arch, run = case
    half = row.build(dtype="bfloat16")
    (_, wide), wanted = run(params, sparse_paths(arch), images())
    for paths in (sparse_paths(arch), one_hot_paths(half.choices, arch)):
        narrow = jax.jit(half.apply)(params, paths, images())
        assert wide.dtype == narrow.dtype == jnp.float32
        assert 0 < np.abs(wide - narrow).max() < 0.1 * np.abs(wide).max()
    chex.assert_trees_all_equal_dtypes(jax.eval_shape(graded(half.apply), params, paths, images())[1], params)
    if row.build is chain:  # deeper ones turn the gradient of a few images by rounding alone, in the plain form too
        found = graded(half.apply)(params, sparse_paths(arch), images())[1]
        apart, length = (optax.tree.norm(tree) for tree in (jax.tree.map(jnp.subtract, found, wanted), wanted))
        assert 0 < apart < 0.2 * length
    with pytest.raises(ValueError, match="dtype must be 'float32', 'bfloat16' or 'float64', got 'float16'"):
        row.build(dtype="float16")


@pytest.mark.parametrize("name", ["darts", "snas", "nasbench201"])
def test_wrong_sizes_and_names_are_refused(name):
    space = ROWS[name].build()
    with pytest.raises(ValueError, match="even height and width, got 7x7"):
        jax.eval_shape(space.init, jax.random.key(0), images(7))
    with pytest.raises(ValueError, match="operations: unknown 'conv_9x9', accepted are none"):
        ROWS[name].build(operations=("none", "conv_9x9"))
    with pytest.raises(
        ValueError,
        match=r"operations must lie in 0\.\.",
    ):
        space.about.network(jax.tree.map(lambda c: np.full(c.shape[:-1], 9), space.choices))


def _drop_cell(rate):
    """A node that sums two identities, and a second node with one."""
    ops = {"skip": from_linen(Identity(1)), "twice": from_linen(Identity(1))}
    return CellGraph(((0, 2), (1, 2), (2, 3)), 2, {"edges": EdgeGroup(ops, (0, 1, 2))}, rate)


def test_drop_path_has_mean_one():
    graph, x = _drop_cell(0.25), jnp.ones((20_000, 1, 1, 1))
    params = init_cell(jax.random.key(0), graph, {"edges": x})
    paths = dense_paths(jnp.full((3, 2), 0.5))
    first, second = (np.ravel(node) for node in apply_cell(graph, params, paths, [x, x], jax.random.key(1)))
    error = np.sqrt(0.25 / 0.75 / len(x))
    assert abs(first.mean() - 2.0) < 4.5 * np.sqrt(2) * error
    assert abs(second.mean() - 2.0) < 4.5 * np.sqrt(2 + 4 + 2) * error
    assert set(np.round(np.unique(first) * 0.75)) == {0.0, 1.0, 2.0}


def test_drop_path_needs_a_key():
    plain, dropping = (ROWS["snas"].build(drop_path=rate) for rate in (0.0, 0.5))
    params = jax.jit(plain.init)(jax.random.key(0), images())
    paths = sparse_paths(as_arrays(ROWS["snas"].arch))
    apply = jax.jit(dropping.apply)
    undropped = jax.jit(plain.apply)(params, paths, images())
    assert np.array_equal(apply(params, paths, images()), undropped)
    first, second = (apply(params, paths, images(), key=jax.random.key(seed)) for seed in (1, 2))
    assert not np.array_equal(first, undropped)
    assert not np.array_equal(first, second)
    with pytest.raises(ValueError, match=r"drop_path must lie in \[0, 1\), got 1.0"):
        ROWS["snas"].build(drop_path=1.0)


def test_chain_agrees_with_a_network_of_its_blocks():
    # The same three blocks as one Linen module: nothing but the supernet's machinery lies between.
    x = images()
    style = Style()
    stem = ConvNorm(4, 1, style, kernel=3, activation=None)
    module = nn.Sequential([stem, Pool(4, 1, style, kind="max"), Classifier(3)])
    space = chain()
    params = jax.jit(space.init)(jax.random.key(0), x)
    one = chain_space(
        {"skip": Identity(4), "max": Pool(4, 1, style, kind="max")}, 1, stem=module.layers[0], head=module.layers[2]
    )
    own = {"stem": params["stem"], "blocks": {"skip": {}, "max": {}}, "head": params["head"]}
    logits = one.apply(own, sparse_paths({"chain": jnp.array([1])}), x)
    wanted = module.apply({"params": {"layers_0": params["stem"], "layers_2": params["head"]}}, x)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5)
