"""The driver of black-box searches: it asks, evaluates, tells, records and checkpoints, on the host.

Whoever evaluates stands between `ask` and `tell`: a table, a judge over a supernet, a trained population, a farm.
`jaxnas.tabular.simulate` is the same loop as one traced function, for tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import Arch, BlackBox, Tree
from jaxnas.checkpoint import is_writer
from jaxnas.errors import UserError
from jaxnas.files import plain, write_text, writing
from jaxnas.run.phases import Watch
from jaxnas.run.runner import Run

__all__ = ["Evaluate", "History", "read_history", "search"]


class Evaluate(Protocol):
    """Gives every proposed architecture its fitness: `(ids, archs, origins) -> fitness[n, M]`, minimised.

    Weights stay with the evaluator, under the id of the child they belong to. A resumed search may ask again for
    children that were evaluated before it was killed: the same ids and architectures must then give the same fitness.
    """

    def __call__(self, ids: np.ndarray, archs: Arch, origins: Tree, /) -> Any:
        """Evaluates `n` children.

        Args:
          ids: int64 `[n]`, the place of each child in the order of proposal, from 0.
          archs: architectures as numpy arrays, leaves `[n, E]`.
          origins: what `BlackBox.origins` says of the children, leaves `[n, ...]`; None for a search without it.

        Returns:
          Numbers `[n, M]`. A row that is not finite stands for a child that failed: it never wins.
        """
        ...


class History(NamedTuple):
    """All `T` children of a search in the order of proposal, as numpy arrays.

    Attributes:
      ids: int64 `[T]`, counted from 0.
      archs: architectures, leaves `[T, E]`.
      fitness: float64 `[T, M]`, the numbers of the evaluator as they were.
      origins: what `BlackBox.origins` said, leaves `[T, ...]`; None for a search without it.
      seconds: float64 `[T]`, wall time of the call that evaluated the child, divided by the children in it. Of all
        fields this is the only one in which a resumed search differs from one that was never stopped.
    """

    ids: np.ndarray
    archs: Arch
    fitness: np.ndarray
    origins: Tree
    seconds: np.ndarray

    @property
    def good(self) -> np.ndarray:
        """Which children have a fitness that is finite in every objective: bool `[T]`."""
        return np.isfinite(self.fitness).all(-1)


class _State(NamedTuple):
    """What the next ask starts from: the state of the black box, and all that has been told."""

    box: Tree
    history: History


def search(
    run: Run,
    name: str,
    black_box: BlackBox,
    evaluate: Evaluate,
    num_asks: int,
    *,
    traced: bool = True,
    watch: Watch | None = None,
    meta: Mapping[str, Any] | None = None,
) -> tuple[Tree, History]:
    """Asks a black box for architectures, has them evaluated and tells it their fitness, `num_asks` times.

    Every ask is a step of `Run.steps`. A search that was killed goes on after its last checkpoint, evaluates again what
    came after it, and ends in the same bits, history included. Children are told in the order of proposal. With the
    same key and a table as evaluator it proposes what `jaxnas.tabular.simulate` does, which takes `run.key(name)`.

    The history is also written to `history/<name>.jsonl`, one line for each child: `id`, `arch`, `fitness`, `origin`
    where there is one, and `seconds`. `read_history` reads it.

    Args:
      run: the work directory that the search lives in.
      name: the name of the phase, for example `"search"`.
      black_box: the search. Between two asks the shapes in its state may change, its tree may not.
      evaluate: gives children their fitness; see `Evaluate`.
      num_asks: number of times that the black box is asked. A black box may answer with several children at once.
      traced: compile `init`, `ask` and `tell`. False for a black box whose functions have to run in Python.
      watch: what is recorded of each ask and shown beside the progress bar; by default the best fitness is shown.
      meta: JSON data that checkpoints must carry, for example the name of the space.

    Returns:
      The last state of the black box, for `black_box.decode`, and the history.

    Raises:
      UserError: fitness of another shape than `[n, M]`, or a checkpoint of another search.
      Interrupted: a signal came; the search is saved.

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
    if traced:
        programs = {field: jax.jit(getattr(black_box, field)) for field in ("init", "ask", "tell")}
        black_box = black_box._replace(**programs)
    file = _HistoryFile(run.path / "history" / f"{name}.jsonl")

    # The file follows the state, which a checkpoint holds whole.
    def step(key: jax.Array, state: _State) -> tuple[_State, dict[str, Any]]:
        file.begin(state.history)
        state, children, row = _ask_and_tell(key, state, black_box, evaluate)
        file.append(children)
        return state, row

    # The history grows, so a checkpoint names the shapes of its state.
    def target(shapes: list[list[int]]) -> _State:
        leaves, treedef = jax.tree.flatten(_start(run.key(name), black_box))
        return jax.tree.unflatten(treedef, map(_of_shape, leaves, shapes))

    state = run.steps(
        name,
        lambda key: _start(key, black_box),
        step,
        num_asks,
        watch=watch or Watch(show=("best",)),
        meta=meta,
        describe=lambda state: [list(np.shape(leaf)) for leaf in jax.tree.leaves(state)],
        target=target,
    )
    file.begin(state.history)
    return state.box, state.history


def _start(key: jax.Array, black_box: BlackBox) -> _State:
    """The state before the first ask."""
    box = black_box.init(key)
    # One ask, whose state is dropped, shows what architectures and origins are like.
    _, *example = _propose(key, box, black_box)
    archs, origins = jax.tree.map(lambda leaf: np.asarray(leaf)[:0], example)
    return _State(box, History(np.zeros(0, np.int64), archs, np.zeros((0, 0)), origins, np.zeros(0)))


def _propose(key: jax.Array, box: Tree, black_box: BlackBox) -> tuple[Tree, Arch, Tree]:
    """The state after an ask, and on the host the architectures and where they come from."""
    box, archs = black_box.ask(key, box)
    origins = None if black_box.origins is None else black_box.origins(box)
    return box, *jax.device_get((archs, origins))


def _ask_and_tell(
    key: jax.Array, state: _State, black_box: BlackBox, evaluate: Evaluate
) -> tuple[_State, History, dict[str, Any]]:
    """One step of the search: its state, the new children, and what is recorded of them."""
    # Ask. Of the three keys the middle one is the evaluator's in `jaxnas.tabular.simulate`.
    key_ask, _, key_tell = jax.random.split(key, 3)
    box, archs, origins = _propose(key_ask, state.box, black_box)
    num_known, num_new = len(state.history.ids), len(jax.tree.leaves(archs)[0])
    ids = np.arange(num_known, num_known + num_new)

    # Evaluate. The history has the numbers as they are, the black box is told them in float32.
    started = time.monotonic()
    fitness = np.asarray(evaluate(ids, archs, origins), np.float64)
    seconds = np.full(num_new, (time.monotonic() - started) / max(num_new, 1))
    if fitness.ndim != 2 or len(fitness) != num_new or not fitness.shape[1]:
        raise UserError(f"evaluate must return fitness of shape ({num_new}, objectives), got {fitness.shape}")

    # Tell, in the order of proposal.
    box, info = black_box.tell(key_tell, box, archs, jnp.asarray(fitness, jnp.float32))
    children = History(ids, archs, fitness, origins, seconds)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), state.history, children) if num_known else children
    best = np.min(joined.fitness[:, 0], where=joined.good, initial=np.inf)
    row = {"evaluations": len(joined.ids), "best": best, "failed": int((~children.good).sum())}
    told = info if isinstance(info, Mapping) else info._asdict() if hasattr(info, "_asdict") else {"info": info}
    return _State(box, joined), children, {**told, **row}


def read_history(path: str | Path) -> History:
    """Reads a file that `search` has written, for example to draw it.

    Args:
      path: the file `history/<name>.jsonl` in a work directory.

    Returns:
      The children that stand in it, the same numbers as those of `search`.

    Raises:
      UserError: there is no such file, or a line of it is not that of a child.
    """
    try:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        stacked = jax.tree.map(lambda *values: np.array(values), *rows, is_leaf=lambda node: isinstance(node, list))
        fitness = np.array([[float(value) for value in row["fitness"]] for row in rows])  # JSON has NaN as text
        return History(stacked["id"], stacked["arch"], fitness, stacked.get("origin"), stacked["seconds"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"history {path} cannot be read: {error}") from None


class _HistoryFile:
    """The history of a search as JSON lines; a file that a kill has torn is made again from the state."""

    def __init__(self, path: Path):
        self._path, self._begun = path, False

    def begin(self, history: History) -> None:
        """Writes the file anew with what a run starts from; without effect from the second call on."""
        if not self._begun and is_writer():
            write_text(self._path, _lines(history))
        self._begun = True

    def append(self, children: History) -> None:
        """Adds the children of one ask."""
        if is_writer():
            with writing(self._path), self._path.open("a") as file:
                file.write(_lines(children))


def _lines(history: History) -> str:
    """One JSON object for each child."""
    lines = []
    for number in range(len(history.ids)):
        child = jax.tree.map(lambda leaf, number=number: leaf[number], history)
        row = {"id": child.ids, "arch": child.archs, "fitness": child.fitness}
        row |= {} if child.origins is None else {"origin": child.origins}
        lines.append(json.dumps(plain({**row, "seconds": child.seconds})) + "\n")
    return "".join(lines)


def _of_shape(leaf: Any, shape: list[int]) -> Any:
    """What `Checkpoints.restore` takes for a leaf of another shape."""
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)
    return np.empty(shape, leaf.dtype) if isinstance(leaf, np.ndarray) else leaf
