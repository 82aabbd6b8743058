"""What every gradient searcher has in common, checked for one table of all of them.

To add a searcher, add a row to `ROWS`: a name and a factory that takes a space, once for each of its modes that has
code of its own. Everything below then runs on it, over a small space written by hand; put what is special to it into a
test file named after the file of the searcher.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import arch_like
from jaxnas.base import Batch, Searcher, SearchSpace
from jaxnas.relaxations import annealed
from jaxnas.searchers import SearchInfo, SearchState, darts, proxyless, snas
from jaxnas.spaces import gates

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX


class Row(NamedTuple):
    name: str
    factory: Callable[[SearchSpace], Searcher]


def resource(weight):
    """The operations cost two, one and nothing."""
    return jnp.sum(weight["edges"] @ jnp.array([2.0, 1.0, 0.0]))


ANNEALED = annealed(1.0, 0.5, epochs=4)
CHARGED = {"resource": resource, "resource_weight": 0.1, "temperature": ANNEALED}
ROWS = [
    Row("darts first", darts),
    Row("darts second", lambda space: darts(space, order="second", temperature=ANNEALED)),
    Row("darts finite difference", lambda space: darts(space, order="finite_difference")),
    Row("snas", lambda space: snas(space, temperature=ANNEALED)),
    Row("snas resource", lambda space: snas(space, **CHARGED)),
    Row("snas discrete resource", lambda space: snas(space, **CHARGED, resource_mode="discrete")),
]
PROXYLESS = {"policy_every": 1, "skip_zero_sampled": False}  # the space's operations have no names
ROWS += [
    Row(f"proxyless {mode}", functools.partial(proxyless, mode=mode, num_samples=2, **PROXYLESS))
    for mode in ("full_v2", "two", "full", "reinforce")
]
EVERY = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])

KEY = jax.random.key(0)


def init(key, x):
    key_ops, key_head = jax.random.split(key)
    return {"ops": jax.random.normal(key_ops, (2, 3, x.shape[-1], 4)), "head": jax.random.normal(key_head, (4, 4))}


def apply(params, paths, x, *, key=None):
    weight = gates(paths.select(lambda tree: tree["edges"]), 3)
    return jnp.tanh(jnp.einsum("bi,ek,ekij->bj", x, weight, params["ops"])) @ params["head"]


SPACE = SearchSpace(
    init,
    apply,
    used=lambda params, paths: jax.tree.map(lambda leaf: True, params),
    derive=lambda scores: jax.tree.map(lambda leaf: jnp.argmax(leaf, -1).astype(jnp.int32), scores),
    choices={"edges": jax.ShapeDtypeStruct((2, 3), jnp.float32)},
)


def batches(number):
    """`number` batches of two halves, stacked."""
    key_x, key_y = jax.random.split(KEY)
    halves = (
        jax.random.normal(key_x, (2, number, 8, 4)),
        jax.random.randint(key_y, (2, number, 8), 0, 4),
    )
    return Batch(*(jax.tree.map(lambda leaf, i=i: leaf[i], halves) for i in (0, 1)))


BATCHES = batches(3)


def batch(i):
    return jax.tree.map(lambda leaf: leaf[i], BATCHES)


@functools.cache
def started(row):
    """A searcher, its first state and its step as a program that refuses to be traced twice; shared by all tests."""
    searcher, traces = row.factory(SPACE), []

    def once(key, state, batch):
        traces.append(None)
        assert len(traces) == 1, f"{row.name} was traced {len(traces)} times"
        return searcher.step(key, state, batch)

    return searcher, jax.jit(searcher.init)(KEY, batch(0)), jax.jit(once)


def close(found, expected):
    chex.assert_trees_all_close(found, expected, rtol=2e-4, atol=1e-5)


@EVERY
def test_parameter_names(row):
    searcher, _, _ = started(row)
    names = {"init": ["key", "batch"], "step": ["key", "state", "batch"], "decode": ["state"]}
    assert {name: list(inspect.signature(getattr(searcher, name)).parameters) for name in names} == names


@pytest.mark.leaks
@EVERY
def test_state_is_a_fixed_point_and_info_is_scalars(row):
    searcher, state, _ = started(row)
    assert isinstance(state, SearchState)
    new, info = jax.eval_shape(searcher.step, KEY, state, batch(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert isinstance(info, SearchInfo)
    assert all(leaf.shape == () and leaf.dtype == jnp.float32 for leaf in info)


@EVERY
def test_jit_equals_eager_and_every_leaf_moves(row):
    searcher, state, step = started(row)
    new, info = step(KEY, state, batch(0))
    close((new, info), searcher.step(KEY, state, batch(0)))
    known = {name: leaf for name, leaf in info._asdict().items() if name != "temperature" or not np.isnan(leaf)}
    chex.assert_tree_all_finite((new, known))
    for field in ("params", "policy_params"):
        moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), getattr(state, field), getattr(new, field))
        assert all(jax.tree.leaves(moved)), moved
    assert new.step == 1
    assert info.nonfinite == 0


@EVERY
def test_scan_equals_a_loop_and_repeats_do_not_trace_again(row):
    searcher, state, step = started(row)

    def body(state, batch):
        return searcher.step(jax.random.fold_in(KEY, state.step), state, batch)

    last, infos = jax.jit(lambda state: jax.lax.scan(body, state, BATCHES))(state)
    for i in range(3):
        state, info = step(jax.random.fold_in(KEY, state.step), state, batch(i))
        close(jax.tree.map(lambda leaf, i=i: leaf[i], infos), info)
    close(last, state)


def spoiled(kind):
    """The first batch with a mistake in it, and which searchers see that one."""
    (x, labels), policy = batch(0)
    bad = (x.at[0, 0].set(jnp.nan), labels) if kind == "images" else (x, labels.at[0].set(kind))
    return Batch(bad, policy), Batch((x, labels), bad)


@EVERY
@pytest.mark.parametrize("kind", ["images", 4, -1])
def test_a_bad_batch_then_thirty_good_ones(row, kind):
    """Of a rejected step nothing survives but two counts, and the search goes on."""
    _, start, step = started(row)
    seen = spoiled(kind)[:1] if row.name.startswith("snas") else spoiled(kind)
    for bad in seen:
        state, info = step(KEY, start, bad)
        assert info.nonfinite == 1
        chex.assert_trees_all_equal(state, start._replace(step=state.step, bad=state.bad))
        for i in range(30):
            state, info = step(jax.random.fold_in(KEY, i), state, batch(i % 3))
            assert info.nonfinite == 0
        assert (state.step, state.bad, state.policy_steps) == (31, 1, 30)
        chex.assert_tree_all_finite(state)
        for field in ("params", "policy_params"):
            moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), getattr(start, field), getattr(state, field))
            assert all(jax.tree.leaves(moved)), moved


@EVERY
def test_a_policy_of_nan_decodes_to_no_operation(row):
    searcher, state, _ = started(row)
    for bad, ruled_out in ((jnp.nan, False), (jnp.inf, False), (-jnp.inf, True)):
        logits = state.policy_params["edges"].at[0, 1].set(bad)
        arch = jax.jit(searcher.decode)(state._replace(policy_params={"edges": logits}))
        if ruled_out:
            arch_like(SPACE.choices, arch)
        else:
            with pytest.raises(ValueError, match=r"operations must lie in 0..2, got \[-1, -1\]"):
                arch_like(SPACE.choices, arch)


@EVERY
def test_decode_gives_an_architecture_of_the_space(row):
    searcher, state, _ = started(row)
    arch = searcher.decode(state)
    assert arch_like(SPACE.choices, arch)["edges"].shape == (2,)
    chex.assert_trees_all_equal(jax.jit(searcher.decode)(state), arch)
    scores = {"edges": jnp.eye(3)[jnp.array([2, 1])]}
    np.testing.assert_array_equal(searcher.decode(state._replace(policy_params=scores))["edges"], [2, 1])
