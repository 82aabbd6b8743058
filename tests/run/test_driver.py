"""The loop below every phase: chunks are a matter of time and never of numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.run import (
    compiled_steps,
    drive,
    python_steps,
)
from tests.run.toy import digest, init_fn, make_data, step_fn

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX


def advance_of(state, **options):
    return compiled_steps(step_fn, jax.random.key(3), state, make_data(), **options)


def test_bits_do_not_depend_on_the_chunks():
    start = init_fn(jax.random.key(0), make_data())
    whole = advance_of(start, chunk=100)
    state, rows = whole.run(start, 0, 60)
    for options in ({"seconds": 1e-9}, {"stops": (7, None)}, {"stops": (7, 16)}, {"seconds": 1e9}):
        seen = []
        again = drive(whole, start, 60, on_chunk=lambda step, state, rows, seen=seen: seen.extend(rows), **options)
        assert digest(again) == digest(state), options
        assert seen == rows
    other = drive(advance_of(start, chunk=11), start, 60)  # another program: the buffer is shorter
    assert digest(other) == digest(state)
    half = drive(whole, start, 23)
    assert digest(drive(whole, half, 60, first=23)) == digest(state)


def test_each_step_has_its_own_key_and_chunks_end_where_asked():
    key, ends = jax.random.key(5), []

    def step(key, state):
        return state, jax.random.key_data(key)

    rows = []

    def on_chunk(done, state, new):
        ends.append(done)
        rows.extend(new)

    drive(compiled_steps(step, key, {}, chunk=4), {}, 10, stops=(3,), seconds=1e9, on_chunk=on_chunk)
    assert [row["value"] for row in rows] == [
        jax.random.key_data(jax.random.fold_in(key, i)).tolist() for i in range(10)
    ]
    assert {3, 6, 9, 10} <= set(ends)
    _, python = python_steps(lambda key, state: (state, jax.random.key_data(key)), key).run({}, 0, 10)
    assert python == rows


def test_a_phase_is_traced_once():
    start, data = init_fn(jax.random.key(0), make_data()), make_data()
    counted = chex.assert_max_traces(step_fn, n=1)
    advance = compiled_steps(counted, jax.random.key(0), start, data, chunk=8)
    drive(advance, start, 21, seconds=1e9)
    assert advance.compile_seconds > 0


def test_the_callers_arrays_survive_and_leaves_may_share_a_buffer():
    shared = jnp.ones(3)
    start = {"a": shared, "b": shared, "weak": jnp.asarray(1.0), "python": 2, "key": jax.random.key(0)}

    def step(key, state):
        return state | {"a": state["a"] + 1, "weak": state["weak"] * 2.0, "python": state["python"] + 1}, None

    end = drive(compiled_steps(step, jax.random.key(0), start), start, 3)
    assert end["a"].tolist() == [4, 4, 4]
    assert shared.tolist() == [1, 1, 1]
    assert (end["weak"], end["python"]) == (8.0, 5)


def test_sharded_state_stays_sharded():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    start = {"x": jax.device_put(jnp.arange(8.0), split), "mean": jax.device_put(jnp.zeros(()), everywhere)}

    def step(key, state):
        return {"x": state["x"] + 1, "mean": jnp.mean(state["x"])}, {"loss": state["mean"]}

    end = drive(compiled_steps(step, jax.random.key(0), start), start, 5)
    assert end["x"].sharding == split
    np.testing.assert_array_equal(end["x"], np.arange(8.0) + 5)


def test_a_state_of_another_shape_and_a_bug_in_the_step_are_raised():
    with pytest.raises(TypeError, match="carry"):
        compiled_steps(lambda key, x: (jnp.stack([x, x]), None), jax.random.key(0), jnp.zeros(2))
    with pytest.raises(ZeroDivisionError):
        compiled_steps(lambda key, x: (x, 1 // 0), jax.random.key(0), jnp.zeros(2))


def test_without_compilation_steps_are_plain_calls():
    seen = []

    def step(key, state, data):
        return state + jax.random.uniform(key) * data, {"loss": state}

    def looking(key, state, data):
        seen.append(float(state))  # a tracer would refuse
        return step(key, state, data)

    def run(step):
        return drive(compiled_steps(step, jax.random.key(3), jnp.zeros(()), jnp.full((), 2.0)), jnp.zeros(()), 3)

    with jax.disable_jit():
        plain = run(looking)
    assert len(seen) == 3
    np.testing.assert_allclose(run(step), plain, rtol=1e-6)
