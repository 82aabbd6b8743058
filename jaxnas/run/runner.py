"""`Run`: a work directory and the phases that happen in it, each one resumed or skipped when the run starts again."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxnas.run.driver import StepFn, compiled_steps, python_steps
from jaxnas.run.environment import environment
from jaxnas.run.metrics import Clock, JsonLines, TensorBoard, Writer
from jaxnas.run.phases import Phase, Saving, Services, Watch
from jaxnas.run.signals import StopSignals
from jaxnas.run.workdir import open_workdir, read_json, write_json

__all__ = ["Run"]

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")


class Run:
    """A run in a work directory, as a context manager. Started again, it goes on where it was.

    Args:
      workdir: made if need be.
      config: frozen dataclass that the directory is tied to, or None.
      seed: of the run's key; the key of a phase is folded from it and the phase's name.
      saving: when checkpoints are written.
      chunk: largest number of steps between two looks at progress and signals.
      writers: sinks of metrics besides `metrics.jsonl`; by default TensorBoard, where tensorboardX is installed.

    Raises:
      ValueError: the directory cannot be used, or belongs to another configuration.

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
        self.path = open_workdir(workdir, config)
        self.seed = seed
        self._saving, self._chunk, self._writers = saving or Saving(), chunk, writers
        self._bad_losses: dict[str, int] = {}

    def __enter__(self) -> Run:
        board = TensorBoard(self.path / "tensorboard")
        writers: list[Writer] = [board] if self._writers is None else list(self._writers)
        self._clock = Clock(self.path / "timing.jsonl")
        self._metrics = JsonLines(self.path / "metrics.jsonl")
        self._signals = StopSignals().__enter__()
        self._services = Services(self.path, self._signals, self._saving, self._metrics, self._clock, writers)
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.__exit__()
        for writer in (self._metrics, *self._services.writers):
            getattr(writer, "close", lambda: None)()
        if self.result is None:
            self._clock.record(None, None)

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`, or None while the run is not finished."""
        return read_json(self.path / "result.json")

    @property
    def bad_losses(self) -> int:
        """Number of losses that were not finite, over the phases so far."""
        return sum(self._bad_losses.values())

    def check(self) -> None:
        """Raises `Interrupted` when a signal has come; for work outside of phases, where it is safe to leave."""
        self._signals.check()

    def key(self, name: str) -> jax.Array:
        """The key of that name: a function of the seed and the name alone."""
        return jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(name.encode()))

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
          name: words joined by slashes, `search`, `retrain/0`; its own folder under `checkpoints/`.
          init_fn: `(key) -> state`, or `(key, data) -> state` when there is data; traceable.
          step_fn: `(key, state) -> (state, info)`, or `(key, state, data) -> ...`; traceable. `info` is a small pytree
            of arrays, recorded for every step; entries whose name ends in `loss` are watched for NaN.
          num_steps: length of the phase.
          data: pytree of arrays for every call; pass large arrays here instead of closing over them.
          watch: what is recorded, shown and evaluated.
          meta: JSON data that checkpoints of this phase must carry, for example the name of the space.

        Returns:
          The state after the last step.

        Raises:
          ValueError: a bad name or length, or a checkpoint of another phase, length, `meta` or state.
          Interrupted: a signal came; the state is saved.
        """
        phase = self._open_phase(name, num_steps, watch, meta)
        key_init, key_steps = jax.random.split(self.key(name))
        arguments = () if data is None else (data,)
        init = jax.jit(init_fn)

        def prepare(state: Any) -> Any:
            check = self._signals.check
            return compiled_steps(step_fn, key_steps, state, data, chunk=self._chunk, label=name, check=check)

        state = phase.run(lambda: init(key_init, *arguments), prepare)
        self._bad_losses[name] = phase.bad_losses
        return state

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
    ) -> Any:
        """Like `phase`, with Python functions: they may train populations, ask a farm or call a jitted step.

        The state is a pytree of arrays and Python numbers. When its structure or shapes change from step to step,
        `describe(state)` gives JSON data from which `target(data)` builds a pytree like that state; both or neither.
        """
        if (describe is None) != (target is None):
            raise ValueError(f"phase {name}: describe and target come together")
        phase = self._open_phase(name, num_steps, watch, meta, describe)
        key_init, key_steps = jax.random.split(self.key(name))
        arguments = () if data is None else (data,)
        state = phase.run(
            lambda: init_fn(key_init, *arguments), lambda _: python_steps(step_fn, key_steps, data), target
        )
        self._bad_losses[name] = phase.bad_losses
        return state

    def once(self, name: str, fn: Callable[[], Any]) -> Any:
        """Calls `fn` and keeps the JSON data it returns in `results/<name>.json`; later starts read it from there."""
        path = self.path / "results" / f"{_checked(name)}.json"
        value = read_json(path)
        if value is None:
            self._signals.check()
            self.save_json(path, fn())
            value = read_json(path)
        return value

    def save_json(self, name: str | Path, value: Any) -> Path:
        """Writes a JSON file in the work directory in one step; NaN and infinities become text."""
        path = self.path / name
        write_json(path, value)
        return path

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes `result.json`, which ends the run: `result` with seed, times, device, versions and commit."""
        self._clock.record(None, None)
        times = {"wall_seconds": self._clock.seconds, "compile_seconds": self._clock.compile_seconds}
        rounded = {name: round(seconds, 3) for name, seconds in times.items()}
        content = {"seed": self.seed, **rounded, "bad_losses": self.bad_losses, **environment(), **result}
        return read_json(self.save_json("result.json", content))

    def _open_phase(self, name: str, num_steps: int, watch: Watch | None, meta: Any, describe: Any = None) -> Phase:
        watch = watch or Watch()
        limits = [("num_steps", num_steps, 0), ("log_every", watch.log_every, 1)]
        limits += [("evaluate_every", watch.evaluate_every, 1)] if watch.evaluate_every is not None else []
        for field, value, least in limits:
            if value < least:
                raise ValueError(f"phase {name}: {field} is {value}, expected at least {least}")
        return Phase(self._services, _checked(name), num_steps, watch=watch, meta=meta, describe=describe)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"name is {name!r}, expected words of letters, digits, '_', '-' and '.' joined by '/'")
    return name
