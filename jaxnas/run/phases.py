"""One phase of a run: restored, driven to its end, shown, recorded and saved."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.checkpoint import Checkpoints
from jaxnas.errors import UserError
from jaxnas.files import differences
from jaxnas.run._environment import conditions
from jaxnas.run.loop import Advance, drive
from jaxnas.run.metrics import Row, Writer, has_bad_loss
from jaxnas.run.progress import Progress, Ticker
from jaxnas.run.records import Clock, JsonLines
from jaxnas.run.signals import StopSignals
from jaxnas.standard_error import say

__all__ = ["Phase", "Saving", "Services", "Watch", "checked_name"]

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")


class Watch(NamedTuple):
    """What is recorded of a phase and shown beside its bar; none of it changes the state.

    Attributes:
      show: names of the metrics that stand beside the bar.
      log_every: number of steps per record; the last step always has one.
      evaluate: `(state) -> metrics`, merged into the record of the step; it must not hold on to the state.
      evaluate_every: number of steps between two evaluations; the last step is always evaluated, and with None it is
        the only one.
    """

    show: tuple[str, ...] = ("loss",)
    log_every: int = 1
    evaluate: Callable[[Any], Mapping[str, Any]] | None = None
    evaluate_every: int | None = None


class Saving(NamedTuple):
    """When checkpoints are written and how many stay; any choice ends in the same bits.

    Attributes:
      seconds: the time between two checkpoints.
      steps: number of steps after which there is a checkpoint too; None for time alone.
      keep: number of checkpoints of a phase that stay.
    """

    seconds: float = 60.0
    steps: int | None = None
    keep: int = 2


class Services(NamedTuple):
    """What a run lends to its phases.

    Attributes:
      path: the work directory.
      mark: identity of the run, from `Identity.mark`; every checkpoint carries it.
      signals: the signals that ask the run to stop.
      saving: when checkpoints are written.
      clock: the clock times of the run, `timing.jsonl`.
      metrics: the rows of all phases, `metrics.jsonl`.
      writers: further sinks of metrics.
      moves: sentences about phases that went on under other conditions than they began with.
    """

    path: Path
    mark: Mapping[str, Any]
    signals: StopSignals
    saving: Saving
    clock: Clock
    metrics: JsonLines
    writers: list[Writer]
    moves: list[str]


def checked_name(name: str) -> str:
    """Returns the name of a phase or of a result; raises `UserError` for one that is no path inside of a folder."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UserError(f"name is {name!r}, expected words of letters, digits, '_', '-' and '.' joined by '/'")
    return name


class Phase:
    """A named stretch of steps with a separate folder of checkpoints.

    Args:
      services: what the run lends to the phase.
      name: words joined by slashes, for example `search` or `retrain/0`.
      num_steps: number of steps of the phase.
      data: checksum of the data that its steps see.
      watch: what is recorded and shown.
      meta: JSON data that its checkpoints must carry, beside the name, the length and what the run is.
      describe: `(state) -> JSON data` that goes into each checkpoint, for states whose shapes change.
      save_every: number of steps after which there is a checkpoint, beside those that `Services.saving` asks for.

    Raises:
      UserError: another kind of name, or a number of steps that is too small.
    """

    def __init__(
        self,
        services: Services,
        name: str,
        num_steps: int,
        *,
        data: int,
        watch: Watch | None = None,
        meta: Mapping[str, Any] | None = None,
        describe: Callable[[Any], Any] | None = None,
        save_every: int | None = None,
    ):
        watch = watch or Watch()
        # Numbers that a phase could not run with.
        limits = [("num_steps", num_steps, 0), ("log_every", watch.log_every, 1)]
        for field, value, least in [*limits, ("evaluate_every", watch.evaluate_every, 1)]:
            if value is not None and value < least:
                raise UserError(f"phase {name}: {field} is {value}, expected at least {least}")
        self._to = services
        self._name, self._num_steps, self._watch = checked_name(name), num_steps, watch
        self._meta = {**(meta or {}), "phase": name, "num_steps": num_steps, "run": {**services.mark, "data": data}}
        self._describe, self._save_every = describe, save_every
        self._bad = 0
        self._lost, self._short = False, False
        self._moves: list[str] = []
        self._latest: Row = {}
        self._saved = time.monotonic()

    def summary(self) -> dict[str, Any]:
        """What later starts that do not go through the phase have to know: `bad_losses` and the seal of its rows."""
        return {"bad_losses": self._bad, "rows": self._rows()}

    def run(self, init: Callable[[], Any], prepare: Callable[[Any], Advance], target: Any = None) -> Any:
        """Returns the final state, from the last checkpoint if the phase has ended before.

        Args:
          init: makes the state before the first step.
          prepare: turns an example of the state into the way to advance it; called if there is something left to do.
          target: `Checkpoints.restore`'s, for states whose shapes change; called with `describe`'s data.
        """
        self._to.signals.check()
        with Checkpoints(self._to.path / "checkpoints" / self._name, keep=self._to.saving.keep) as self._checkpoints:
            first, state = self._restore(init, target)
            self._to.metrics.resume(self._name, first)
            if first < self._num_steps:
                state = self._finish(prepare, state, first)
        return state

    def _restore(self, init: Callable[[], Any], target: Any) -> tuple[int, Any]:
        # The newest checkpoint, preferably one whose rows are all there; the start if there is none.
        with Ticker(f"preparing {self._name}"):
            start = init() if target is None or not self._checkpoints.steps() else None
            wanted = start if target is None else lambda meta: target(meta["description"])
            restored = self._checkpoints.restore(wanted, check_meta=self._meta, prefer=self._has_rows)
        if restored is None:
            return 0, start
        first, state, meta = restored
        # What the checkpoint says of the rows, and of the conditions, up to its step.
        self._bad = meta["bad_losses"]
        self._check_rows(first, meta)
        self._check_conditions(meta)
        done = "is finished" if first == self._num_steps else f"goes on after step {first} of {self._num_steps}"
        say(f"{self._name} {done}")
        return first, state

    def _has_rows(self, step: int, meta: Mapping[str, Any]) -> bool:
        whole = self._to.metrics.holds(self._name, step, meta["rows"])
        self._short |= not whole
        return whole

    def _check_rows(self, first: int, meta: Mapping[str, Any]) -> None:
        """Says when rows are gone for good, and when an older checkpoint was taken to write them again."""
        self._lost = meta["rows"]["lost"]
        if not self._has_rows(first, meta):
            self._lost = True
            say(f"metrics.jsonl has not all rows of {self._name} up to step {first}; they are lost, the state is not")
        elif self._short:
            say(f"metrics.jsonl has not all rows of {self._name}; those after step {first} are made again")

    def _check_conditions(self, meta: Mapping[str, Any]) -> None:
        """Says when the phase goes on where its steps may round otherwise than they have done so far."""
        changed = differences(meta["conditions"], conditions())
        self._moves = list(meta["moves"])
        if changed:
            fields = ", ".join(f"{name} was {was!r} and is {now!r}" for name, was, now in changed)
            self._moves.append(f"{self._name}: {fields}")
            if self._moves[-1] not in self._to.moves:
                say(f"{self._name}: {fields}; the bits may differ from those of a run that stayed where it was")
        self._to.moves.extend(move for move in self._moves if move not in self._to.moves)

    def _rows(self) -> dict[str, Any]:
        return {**self._to.metrics.seal(self._name), "lost": self._lost}

    def _finish(self, prepare: Callable[[Any], Advance], state: Any, first: int) -> Any:
        self._to.signals.check()
        # The steps are compiled only where there is something left to do.
        advance = prepare(state)
        self._to.clock.compiled(advance.compile_seconds)
        # A chunk ends where the state is evaluated or saved.
        evaluate_every = self._watch.evaluate_every if self._watch.evaluate else None
        stops = (evaluate_every, self._to.saving.steps)
        self._saved = time.monotonic()
        with Progress(self._name, self._num_steps, done=first) as self._progress:
            state = drive(advance, state, self._num_steps, first=first, stops=stops, on_chunk=self._on_chunk)
        if self._bad:
            say(f"{self._name}: {self._bad} of {self._num_steps} losses were not finite")
        return state

    def _on_chunk(self, step: int, state: Any, rows: list[Row]) -> None:
        if self._watch.evaluate is not None and self._is_evaluated(step):
            rows[-1] |= {name: np.asarray(value).tolist() for name, value in self._watch.evaluate(state).items()}
        # Records of the chunk's steps.
        for number, row in enumerate(rows, start=step - len(rows) + 1):
            self._bad += has_bad_loss(row)
            if number % self._watch.log_every == 0 or number == self._num_steps or self._is_evaluated(number):
                for writer in (self._to.metrics, *self._to.writers):
                    writer.write(number, {"phase": self._name, **row})
        self._to.metrics.flush()
        # The bar, a checkpoint if it is time for one, and a look at signals: it is safe to leave here.
        self._latest |= rows[-1]
        self._progress.update(len(rows), self._text())
        if self._is_due(step):
            self._save(step, state, good=not has_bad_loss(rows[-1]))
        self._to.signals.check()

    def _is_evaluated(self, step: int) -> bool:
        every = self._watch.evaluate_every or self._num_steps
        return self._watch.evaluate is not None and (step == self._num_steps or step % every == 0)

    def _is_due(self, step: int) -> bool:
        saving = self._to.saving
        waited = time.monotonic() - self._saved >= saving.seconds
        asked = self._to.signals.received is not None or step == self._num_steps
        return waited or asked or any(every and step % every == 0 for every in (saving.steps, self._save_every))

    def _save(self, step: int, state: Any, *, good: bool) -> None:
        self._to.metrics.flush(sync=True)
        meta: dict[str, Any] = {**self._meta, **self.summary(), "conditions": conditions(), "moves": self._moves}
        if self._describe is not None:
            meta["description"] = self._describe(state)
        self._checkpoints.save(step, state, meta, good=good)
        self._to.clock.record(self._name, step)
        self._saved = time.monotonic()

    def _text(self) -> str:
        latest = [(name, self._latest.get(name)) for name in self._watch.show]
        shown = [f"{name} {value:.4g}" for name, value in latest if isinstance(value, int | float)]
        return ", ".join(shown + ([f"{self._bad} losses not finite"] if self._bad else []))
