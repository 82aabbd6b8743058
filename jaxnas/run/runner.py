"""`Run`: a work directory and the phases that happen in it, each one resumed or skipped when the run starts again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxnas import files
from jaxnas.checkpoint import Owner, digest, is_writer
from jaxnas.errors import FileError, UserError
from jaxnas.run._environment import environment
from jaxnas.run.board import TensorBoard
from jaxnas.run.identity import Identity, named_key, tie
from jaxnas.run.loop import Advance, StepFn, compile_lowered, compiled_steps, python_steps
from jaxnas.run.metrics import Writer
from jaxnas.run.phases import Phase, Saving, Services, Watch, checked_name
from jaxnas.run.progress import Ticker
from jaxnas.run.records import Clock, JsonLines
from jaxnas.run.seals import checked_outcome, close_run, outcome, sealed_identity
from jaxnas.run.signals import StopSignals
from jaxnas.standard_error import say

__all__ = ["Run"]


class Run:
    """A run in a work directory, as a context manager. Started again, it goes on where it was.

    Inside of the context the run owns the directory: another one, of whatever process, is refused there. A finished run
    owns nothing until it is asked for something else than its result. Of the processes of one `jax.distributed` run
    the first one owns and writes the files.

    Args:
      workdir: the directory, made if need be.
      config: frozen dataclass that the directory is tied to, or None.
      seed: seed of all keys: the key of a phase comes from it and from the phase's name. The directory is tied to it.
      saving: when checkpoints are written; an attribute of the run, too.
      chunk: largest number of steps between two looks at progress and signals.
      writers: sinks of metrics besides `metrics.jsonl`; by default TensorBoard, where tensorboardX is installed.

    Raises:
      UserError: the directory cannot be used, is in use, or belongs to another configuration or seed.

    Example:
      >>> import tempfile, jax, jax.numpy as jnp
      >>> from jaxnas.run import Run
      >>> def step(key, x):
      ...     return x - 0.1 * x, {"loss": jnp.sum(x * x)}
      >>> with tempfile.TemporaryDirectory() as folder, Run(folder) as run:
      ...     x = run.phase("descent", lambda key: jnp.ones(3), step, 50)
      ...     result = run.finish({"norm": round(float(jnp.sum(x * x)), 4)})
      >>> result["norm"]
      0.0001
    """

    def __init__(
        self,
        workdir: str | Path,
        config: Any = None,
        *,
        seed: int = 0,
        saving: Saving | None = None,
        chunk: int = 256,
        writers: Iterable[Writer] | None = None,
    ):
        self.path = files.make_workdir(workdir)
        self.seed = seed
        self._identity = Identity(seed, config)
        self.saving, self._chunk, self._writers = saving or Saving(), chunk, writers
        self._owner = Owner(self.path, "workdir")
        self._services: Services | None = None
        self._phases: dict[str, dict[str, Any]] = {}  # name -> `Phase.summary()`
        self._result = outcome(self.path).result
        if self._result is not None:
            tie(self.path, self._identity, write=False)
        else:
            with self._owner:
                self._tie()

    def __enter__(self) -> Run:
        self._signals = StopSignals().__enter__()
        try:
            if self._result is None:
                self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._signals.__exit__()
        services, self._services = self._services, None
        try:
            for writer in (services.metrics, *services.writers) if services is not None else ():
                getattr(writer, "close", lambda: None)()
            if services is not None and self.result is None:
                services.clock.record(None, None)
        finally:
            self._owner.release()
        if isinstance(error, OSError) and files.is_full(error):
            raise FileError(f"workdir {self.path} cannot be written to: {files.reason(error)}") from error

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`; None while the run is not finished, or while a file of it is damaged."""
        return self._result

    @property
    def bad_losses(self) -> int:
        """Number of losses that were not finite, over the phases so far."""
        return sum(phase["bad_losses"] for phase in self._phases.values())

    def check(self) -> None:
        """Raises `Interrupted` when a signal has come; for work outside of phases, where it is safe to leave."""
        self._signals.check()

    def key(self, name: str) -> jax.Array:
        """The key of that name: a function of the seed and the name alone."""
        return named_key(self.seed, name)

    def compile(self, lowered: Any, name: str) -> Any:
        """Compiles a program that work outside of phases needs, shown and timed like the program of a phase.

        Args:
          lowered: the program, as `jax.jit(...).lower(...)` returns it.
          name: what is shown while it compiles.

        Raises:
          Interrupted: a signal came; the compiler ends in the background.
        """
        with Ticker(f"compiling {name}") as ticker:
            compiled = compile_lowered(lowered, self._signals.check)
        self._start().clock.compiled(ticker.seconds)
        return compiled

    def phase(
        self,
        name: str,
        init_fn: Callable[..., Any],
        step_fn: StepFn,
        num_steps: int,
        *,
        data: Any = None,
        watch: Watch | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """Does `num_steps` compiled steps, or what is left of them.

        Args:
          name: words joined by slashes, such as `search` or `retrain/0`, and the folder under `checkpoints/`.
          init_fn: `(key) -> state`, or `(key, data) -> state` when there is data; traceable.
          step_fn: `(key, state) -> (state, info)`, or `(key, state, data) -> ...`; traceable. `info` is a small pytree
            of arrays, recorded for every step; entries whose name ends in `loss` are watched for NaN.
          num_steps: number of steps of the whole phase.
          data: pytree of arrays for every call; pass large arrays here instead of closing over them.
          watch: what is recorded, shown and evaluated.
          meta: JSON data that checkpoints of this phase must carry, for example the name of the space.

        Returns:
          The state after the last step.

        Raises:
          UserError: a bad name or length, or a checkpoint of another phase, length, `meta` or state.
          Interrupted: a signal came; the state is saved.
        """

        def advance(key: jax.Array, state: Any) -> Advance:
            return compiled_steps(step_fn, key, state, data, chunk=self._chunk, label=name, check=self._signals.check)

        return self._run(name, jax.jit(init_fn), advance, num_steps, data, watch=watch, meta=meta)

    def steps(
        self,
        name: str,
        init_fn: Callable[..., Any],
        step_fn: StepFn,
        num_steps: int,
        *,
        data: Any = None,
        watch: Watch | None = None,
        meta: Mapping[str, Any] | None = None,
        describe: Callable[[Any], Any] | None = None,
        target: Callable[[Any], Any] | None = None,
        save_every: int | None = None,
    ) -> Any:
        """Like `phase`, with Python functions: they may train populations, ask a farm or call a jitted step.

        The state is a pytree of arrays and Python numbers. When its structure or shapes change from step to step,
        `describe(state)` gives JSON data from which `target(data)` builds a pytree like that state; both or neither.
        After every `save_every` steps there is a checkpoint, beside those that the run writes anyway.
        """
        if (describe is None) != (target is None):
            raise UserError(f"phase {name}: describe and target come together")
        options = {"watch": watch, "meta": meta, "describe": describe, "target": target, "save_every": save_every}
        return self._run(name, init_fn, lambda key, _: python_steps(step_fn, key, data), num_steps, data, **options)

    def once(self, name: str, fn: Callable[[], Any]) -> Any:
        """Calls `fn` and writes the JSON data it returns to `results/<name>.json`; later starts take it from there.

        A file that is damaged, or whose phases have lost rows of `metrics.jsonl`, is made again.

        Raises:
          UserError: the file belongs to another run.
        """
        path = self.path / "results" / f"{checked_name(name)}.json"
        self._start()
        known = files.read_sealed(path)
        if known is not None:
            files.refuse(str(path), "run", files.differences(known.get("run"), self._identity.mark()))
            if known["name"] == name and self._pass_over(known["phases"]):
                return known["value"]
        if path.exists():
            say(f"{path} is damaged, or rows are missing in metrics.jsonl that belong to it; it is made again")
        self._signals.check()
        value = files.plain(fn())
        content = {"name": name, "run": self._identity.mark(), "phases": self._phases, "value": value}
        if is_writer():
            files.write_sealed(path, content)
        return json.loads(json.dumps(value))

    def save_json(self, name: str | Path, value: Any) -> Path:
        """Writes a JSON file in the work directory in one step; NaN and infinities become text."""
        self._start()
        path = self.path / name
        if is_writer():
            files.write_json(path, value)
        return path

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes `result.json`, which ends the run, and the seal of all files.

        Returns:
          Its content: `result` with the seed, times, conditions, versions and commit. `incomplete_metrics` names the
          phases whose rows were damaged for good; `moves` tells of phases that went on under other conditions.
        """
        services = self._start()
        services.clock.record(None, None)
        seconds = {"wall_seconds": services.clock.seconds, "compile_seconds": services.clock.compile_seconds}
        times = {name: round(value, 3) for name, value in seconds.items()}
        lost = [name for name, phase in self._phases.items() if phase["rows"]["lost"]]
        noted = {name: value for name, value in (("incomplete_metrics", lost), ("moves", services.moves)) if value}
        content = {"seed": self.seed, **times, "bad_losses": self.bad_losses, **environment(), **noted, **result}
        services.metrics.flush(sync=True)
        if is_writer():
            close_run(self.path, content, self._phases)
        self._result = json.loads(files.json_text(content))
        return self._result

    def _start(self) -> Services:
        """Takes the directory and opens what is written there, once."""
        if self._services is None:
            self._owner.acquire()
            self._tie()
            self._result = checked_outcome(self.path)
            board = [TensorBoard(self.path / "tensorboard")] if self._writers is None else self._writers
            names = ("timing.jsonl", "metrics.jsonl")
            times, rows = (self.path / name if is_writer() else Path(os.devnull) for name in names)
            tools = self._signals, self.saving, Clock(times), JsonLines(rows), list(board)
            self._services = Services(self.path, self._identity.mark(), *tools, [])
        return self._services

    def _tie(self) -> None:
        tie(self.path, self._identity, sealed=sealed_identity(self.path), write=is_writer())

    def _pass_over(self, phases: Mapping[str, Mapping[str, Any]]) -> bool:
        """Takes phases as done that came before a known value; False if rows of one are missing."""
        metrics = self._start().metrics
        missing = {name: phase for name, phase in phases.items() if name not in self._phases}
        if not all(metrics.holds(name, sys.maxsize, phase["rows"]) for name, phase in missing.items()):
            return False
        for name, phase in missing.items():
            metrics.resume(name, sys.maxsize)
            self._phases[name] = dict(phase)
        return True

    def _run(
        self,
        name: str,
        init_fn: Callable[..., Any],
        advance: Callable[[jax.Array, Any], Advance],
        num_steps: int,
        data: Any,
        target: Any = None,
        **options: Any,
    ) -> Any:
        """One phase to its end. `advance(key, state)` says how its steps are done; `options` are those of `Phase`."""
        phase = Phase(self._start(), name, num_steps, data=digest(data), **options)
        # One key for the first state and one for the steps.
        key_init, key_steps = jax.random.split(self.key(name))
        arguments = () if data is None else (data,)
        state = phase.run(lambda: init_fn(key_init, *arguments), lambda state: advance(key_steps, state), target)
        self._phases[name] = phase.summary()
        return state
