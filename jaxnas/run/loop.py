"""The one loop behind every phase: steps run in chunks, Python looks in between.

How the steps are cut into chunks is a matter of time and never of numbers. A compiled phase is one program with the
number of steps as an argument, so the last chunk, another checkpoint interval or a resumed run compute the same bits,
and there is one compilation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.devices import wait
from jaxnas.run._environment import compiler_options
from jaxnas.run.metrics import Row, rows_of
from jaxnas.run.progress import Ticker

__all__ = ["Advance", "compile_lowered", "compiled_steps", "drive", "python_steps"]

StepFn = Callable[..., tuple[Any, Any]]  # (key, state[, data]) -> (state, info)


class Advance(NamedTuple):
    """A way to do some steps.

    Attributes:
      run: `(state, first, count) -> (state, rows)` does the steps `first .. first + count - 1`, with one row for each.
      longest: the largest `count` that `run` takes.
      compile_seconds: the time that tracing and compiling took.
    """

    run: Callable[[Any, int, int], tuple[Any, list[Row]]]
    longest: int
    compile_seconds: float = 0.0


def drive(
    advance: Advance,
    state: Any,
    num_steps: int,
    *,
    first: int = 0,
    stops: Iterable[int | None] = (),
    seconds: float = 1.0,
    on_chunk: Callable[[int, Any, list[Row]], None] | None = None,
) -> Any:
    """Does steps `first .. num_steps - 1` and returns the last state.

    Args:
      advance: a way to do steps, from `compiled_steps` or `python_steps`; it may consume the state it is given.
      state: the state after `first` steps.
      num_steps: number of steps of the whole phase, not of this call.
      first: number of steps that are done already.
      stops: a chunk ends at every multiple of these (None and 0 mean nowhere), so that `on_chunk` sees the state there.
      seconds: aimed time between two calls of `on_chunk`; chunks grow or shrink towards it.
      on_chunk: `(step, state, rows)` after every chunk, `step` being the number of steps done; may raise to stop. The
        state is only valid during the call: the next chunk overwrites it.
    """
    # Chunks grow fourfold at most, so that a guess from one short chunk cannot make a very long one.
    step, count = first, 1
    every = [stop for stop in stops if stop]
    while step < num_steps:
        chunk = min(count, num_steps - step, *(stop - step % stop for stop in every))
        started = time.monotonic()
        state, rows = advance.run(state, step, chunk)
        step += chunk
        fitting = int(chunk * seconds / max(time.monotonic() - started, 1e-6))
        count = max(1, min(fitting, 4 * count, advance.longest))
        if on_chunk is not None:
            on_chunk(step, state, rows)
    return state


def python_steps(step_fn: StepFn, key: jax.Array, data: Any = None) -> Advance:
    """Steps as plain Python calls, for steps that cannot be traced.

    Args:
      step_fn: `(key, state) -> (state, info)`, or `(key, state, data) -> (state, info)` when there is data. Step `i`
        gets the key `fold_in(key, i)`.
      key: the key of the phase.
      data: anything that every step sees, passed on as it is.
    """

    def run(state: Any, first: int, count: int) -> tuple[Any, list[Row]]:
        rows = []
        for step in range(first, first + count):
            state, info = _call(step_fn, jax.random.fold_in(key, step), state, data)
            rows += rows_of(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], info), 1)
        return state, rows

    return Advance(run, longest=1)


def compiled_steps(
    step_fn: StepFn,
    key: jax.Array,
    state: Any,
    data: Any = None,
    *,
    chunk: int = 256,
    label: str = "steps",
    check: Callable[[], None] = lambda: None,
) -> Advance:
    """Compiles `step_fn` into one program that does any number of steps up to `chunk`.

    Args:
      step_fn: a function like that of `python_steps`, traceable; the state it returns has the shapes and dtypes of the
        one it gets.
      key: the key of the phase; step `i` gets `fold_in(key, i)`.
      state: an example of the state; its arrays are neither changed nor held on to.
      data: pytree of arrays that every step sees. Pass large arrays here: closed over, they become constants.
      chunk: capacity of the buffer that holds the infos.
      label: name that is shown while compiling.
      check: called while the compiler works; may raise to leave, and the compiler then ends in the background.

    Returns:
      The `Advance`. Its `run` copies the first state it gets and reuses the memory of those it made itself.
    """
    data = jax.tree.map(jnp.asarray, data)
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return python_steps(step_fn, key, data)  # JAX compiles nothing then, so that one can look into a step
    step_fn = jax.jit(step_fn)  # traced once, for the shapes of the info and for the loop

    # Any number of steps up to `chunk`; the buffer has room for the infos of all of them.
    def loop(state: Any, key: jax.Array, data: Any, first: jax.Array, count: jax.Array) -> tuple[Any, Any, jax.Array]:
        info = jax.eval_shape(lambda: _call(step_fn, key, state, data)[1])
        buffer = jax.tree.map(lambda leaf: jnp.zeros((chunk, *leaf.shape), leaf.dtype), info)

        def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, buffer = carry
            state, info = _call(step_fn, jax.random.fold_in(key, first + i), state, data)
            put = lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, i, 0)  # noqa: E731
            return jax.tree.map(_strong, state), jax.tree.map(put, buffer, info)

        state, buffer = lax.fori_loop(0, count, body, (state, buffer))
        return state, buffer, first + count

    # The state stays on the devices where the example is.
    state = jax.tree.map(_copy, state)
    with Ticker(f"compiling {label}") as ticker:
        placed = jax.tree.map(lambda leaf: leaf.sharding if leaf.committed else None, state)
        program = jax.jit(loop, donate_argnums=0, out_shardings=(placed, None, None))
        check()
        compiled = compile_lowered(program.lower(state, key, data, 0, 0), check)
    made: list[Any] = []  # the last state that came out of the program: only that one may be overwritten

    def run(state: Any, first: int, count: int) -> tuple[Any, list[Row]]:
        # A state from elsewhere is copied, since the program overwrites the one it gets.
        if not made or state is not made.pop():
            state = jax.tree.map(_copy, state)
        state, infos, done = compiled(state, key, data, first, count)
        made[:] = [state]
        wait(done)
        return state, rows_of(infos, count)

    return Advance(run, longest=chunk, compile_seconds=ticker.seconds)


def _call(step_fn: StepFn, key: jax.Array, state: Any, data: Any) -> tuple[Any, Any]:
    return step_fn(key, state) if data is None else step_fn(key, state, data)


def _strong(leaf: Any) -> jax.Array:
    """The leaf without weak type: otherwise a state that the program has made would not fit the program."""
    leaf = jnp.asarray(leaf)
    return lax.convert_element_type(leaf, leaf.dtype)


def _copy(leaf: Any) -> jax.Array:
    """A copy that may be overwritten: two leaves may share a buffer, and the caller may still hold the array."""
    return jnp.array(leaf, dtype=jnp.asarray(leaf).dtype, copy=True)


def compile_lowered(lowered: Any, check: Callable[[], None]) -> Any:
    """Compiles in a second thread, since a signal is only handled while Python runs."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["compiled"] = lowered.compile(compiler_options=compiler_options())
        except BaseException as error:
            outcome["error"] = error

    # The main thread looks for signals while the compiler works.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        check()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["compiled"]
