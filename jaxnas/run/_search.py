"""The driver of black-box searches: it asks, evaluates, tells, records and checkpoints, on the host.

Whoever evaluates stands between `ask` and `tell`: a table, a judge over a supernet, a trained population, a farm.
`jaxnas.tabular.simulate` is the same loop as one traced function, for tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, BlackBox, Tree
from jaxnas.errors import UserError
from jaxnas.run._in_flight import Evaluate, InFlight, Order, Outstanding
from jaxnas.run.history import History, HistoryFile, by_id, join
from jaxnas.run.phases import Watch
from jaxnas.run.runner import Run

__all__ = ["search"]


class _State(NamedTuple):
    """What the next step of a search starts from.

    Attributes:
      box: state of the black box.
      num_asks: number of asks so far.
      outstanding: children that were proposed and not told.
      history: children that were told, in the order of telling.
    """

    box: Tree
    num_asks: int
    outstanding: Outstanding
    history: History


def search(
    run: Run,
    name: str,
    black_box: BlackBox,
    evaluate: Evaluate,
    num_asks: int,
    *,
    in_flight: int = 1,
    order: Order = "proposal",
    traced: bool = True,
    watch: Watch | None = None,
    meta: Mapping[str, Any] | None = None,
) -> tuple[Tree, History]:
    """Asks a black box for architectures, has them evaluated and tells it their fitness, `num_asks` times.

    Every tell is a step of `Run.steps`. A search that was killed goes on after its last checkpoint and has evaluated
    again what came after it. Unless asks are told by arrival it ends in the same bits, history included except for its
    `seconds`. With the same key and a table as evaluator it proposes what `jaxnas.tabular.simulate` does, which takes
    `run.key(name)`.

    With `in_flight` = `K` up to `K` asks are out at a time: ask `n` is made right after `n - K + 1` asks were told,
    without the fitness of the `K - 1` others. The evaluator then returns a future, as `Farm.submit` does. Children of
    asks that are out when a search is killed are submitted again. By default asks are told in the order of proposal, so
    the search depends on `K` and never on which child is ready first.

    The history is also written to `history/<name>.jsonl`, one line for each child in the order of telling: `id`,
    `arch`, `fitness`, `origin` where there is one, and `seconds`. `read_history` reads it.

    Args:
      run: the work directory that the search lives in.
      name: the name of the phase, for example `"search"`.
      black_box: the search. Between two asks the shapes in its state may change, its tree may not. With several asks
        out it is asked again before it is told, so its `tell` has to know what it needs from the architectures alone.
      evaluate: gives children their fitness; see `Evaluate`.
      num_asks: number of times that the black box is asked. A black box may answer with several children at once.
      in_flight: the largest number of asks that are out at a time, at least 1.
      order: the order in which asks are told: `"proposal"`, or `"arrival"` to tell each as soon as it is ready. The
        latter never waits for a slow child and cannot be reproduced. It is saved after every tell, so that a search
        that was killed proposes under the same ids what it has proposed before.
      traced: compile `init`, `ask` and `tell`. False for a black box whose functions have to run in Python.
      watch: what is recorded of each tell and shown beside the progress bar; by default the best fitness is shown.
      meta: JSON data that checkpoints must carry, for example the name of the space.

    Returns:
      The last state of the black box, for `black_box.decode`, and the history.

    Raises:
      UserError: fitness of another shape than `[n, M]`, `in_flight` below 1, another order, or a checkpoint of another
        search.
      Interrupted: a signal came; what was told up to the last checkpoint is saved.

    Example:
      >>> import tempfile, jax, numpy as np
      >>> from jaxnas.run import Run, search
      >>> from jaxnas.searchers import random_search
      >>> choices = {"layer": jax.ShapeDtypeStruct((3, 4), np.float32)}
      >>> def evaluate(ids, archs, origins):
      ...     return archs["layer"].sum(1, keepdims=True)
      >>> with tempfile.TemporaryDirectory() as folder, Run(folder, writers=()) as run:
      ...     state, history = search(run, "toy", random_search(choices, batch_size=5), evaluate, 4)
      >>> history.fitness.shape, history.archs["layer"].shape
      ((20, 1), (20, 3))
    """
    if in_flight < 1 or order not in get_args(Order):
        orders = " or ".join(map(repr, get_args(Order)))
        raise UserError(f"in_flight must be at least 1 and order {orders}, got {in_flight} and {order!r}")
    if traced:
        programs = {field: jax.jit(getattr(black_box, field)) for field in ("init", "ask", "tell")}
        black_box = black_box._replace(**programs)
    keys = _ask_keys(run.key(name))
    calls = InFlight(evaluate, order, run.check)
    file = HistoryFile(run.path / "history" / f"{name}.jsonl")

    # The file follows the state, which a checkpoint holds whole.
    def step(_: jax.Array, state: _State) -> tuple[_State, dict[str, Any]]:
        file.begin(state.history)
        while state.num_asks < num_asks and len(state.outstanding.numbers) < in_flight:
            state = _ask(keys, state, black_box)
        calls.submit(state.outstanding)
        state, children, row = _tell(keys, state, black_box, *calls.next(state.outstanding))
        file.append(children)
        return state, row

    # The history grows, so a checkpoint names the shapes of its state.
    def target(shapes: list[list[int]]) -> _State:
        leaves, treedef = jax.tree.flatten(_start(run.key(name), black_box))
        return jax.tree.unflatten(treedef, map(_of_shape, leaves, shapes))

    try:
        state = run.steps(
            name,
            lambda key: _start(key, black_box),
            step,
            num_asks,
            watch=watch or Watch(show=("best",)),
            meta={"in_flight": in_flight, "order": order, **(meta or {})},
            describe=lambda state: [list(np.shape(leaf)) for leaf in jax.tree.leaves(state)],
            target=target,
            save_every=1 if order == "arrival" else None,
        )
    finally:
        calls.cancel()
    file.begin(state.history)
    return state.box, by_id(state.history)


def _ask_keys(key: jax.Array) -> Callable[[int], jax.Array]:
    """The keys of ask number `n` and of its tell, wherever they happen: the first and the last of `keys(n)`.

    They are those of `jaxnas.tabular.simulate`, where the one between them is the evaluator's.
    """
    _, key_steps = jax.random.split(key)
    return lambda number: jax.random.split(jax.random.fold_in(key_steps, number), 3)


def _start(key: jax.Array, black_box: BlackBox) -> _State:
    """The state before the first ask."""
    box = black_box.init(key)
    # One ask, whose state is dropped, shows what architectures and origins are like.
    _, *example = _propose(key, box, black_box)
    archs, origins = jax.tree.map(lambda leaf: np.asarray(leaf)[:0], example)
    none = np.zeros(0, np.int64)
    history = History(none, archs, np.zeros((0, 0)), origins, np.zeros(0), none)
    return _State(box, 0, Outstanding(none, none, archs, origins), history)


def _propose(key: jax.Array, box: Tree, black_box: BlackBox) -> tuple[Tree, Arch, Tree]:
    """The state after an ask, and on the host the architectures and where they come from."""
    box, archs = black_box.ask(key, box)
    origins = None if black_box.origins is None else black_box.origins(box)
    return box, *jax.device_get((archs, origins))


def _ask(keys: Callable[[int], jax.Array], state: _State, black_box: BlackBox) -> _State:
    """The state after one more ask, whose children are outstanding."""
    number, outstanding = state.num_asks, state.outstanding
    box, archs, origins = _propose(keys(number)[0], state.box, black_box)
    # Ids count all children that were ever proposed.
    num_out, num_new = len(outstanding.ids), len(jax.tree.leaves(archs)[0])
    if not num_new:
        raise UserError("black_box must propose at least one architecture for each ask, got none")
    num_known = len(state.history.ids) + num_out
    ids = np.arange(num_known, num_known + num_new)
    children = Outstanding(np.full(num_new, number), ids, archs, origins)
    return state._replace(box=box, num_asks=number + 1, outstanding=join(outstanding, children, num_out))


def _tell(
    keys: Callable[[int], jax.Array],
    state: _State,
    black_box: BlackBox,
    ask: int,
    fitness: np.ndarray,
    seconds: float,
) -> tuple[_State, History, dict[str, Any]]:
    """The state after an ask was told, the children that were told, and what is recorded of them."""
    asked, num_told = state.outstanding.of(ask), len(state.history.ids)
    # The history has the numbers as they are, the black box is told them in float32.
    box, info = black_box.tell(keys(ask)[2], state.box, asked.archs, jnp.asarray(fitness, jnp.float32))
    num_new = len(asked.ids)
    share, told = np.full(num_new, seconds / num_new), np.arange(num_told, num_told + num_new)
    children = History(asked.ids, asked.archs, fitness, asked.origins, share, told)
    joined = join(state.history, children, num_told)
    # One row of metrics.
    best = np.min(joined.fitness[:, 0], where=joined.good, initial=np.inf)
    row = {"evaluations": len(joined.ids), "best": best, "failed": int((~children.good).sum())}
    shown = info if isinstance(info, Mapping) else info._asdict() if hasattr(info, "_asdict") else {"info": info}
    state = state._replace(box=box, outstanding=state.outstanding.without(ask), history=joined)
    return state, children, {**shown, **row}


def _of_shape(leaf: Any, shape: list[int]) -> Any:
    """What `Checkpoints.restore` takes for a leaf of another shape."""
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)
    return np.empty(shape, leaf.dtype) if isinstance(leaf, np.ndarray) else leaf
