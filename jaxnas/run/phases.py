"""One phase of a run: restored, driven to its end, shown, recorded and saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.checkpoint import Checkpoints
from jaxnas.files import differences
from jaxnas.run._environment import conditions
from jaxnas.run.loop import Advance, drive
from jaxnas.run.metrics import Row, Writer, has_bad_loss
from jaxnas.run.progress import Progress, Ticker
from jaxnas.run.records import Clock, JsonLines
from jaxnas.run.signals import StopSignals
from jaxnas.standard_error import say

__all__ = ["Phase", "Saving", "Services", "Watch"]


class Watch(NamedTuple):
    """What is recorded of a phase and shown beside its bar; none of it changes the state.

    Attributes:
      show: names of metrics beside the bar.
      log_every: one record per so many steps (and one for the last step).
      evaluate: `(state) -> metrics`, merged into the record of the step; it must not keep the state.
      evaluate_every: evaluate after so many steps, and after the last one; None for the last one alone.
    """

    show: tuple[str, ...] = ("loss",)
    log_every: int = 1
    evaluate: Callable[[Any], Mapping[str, Any]] | None = None
    evaluate_every: int | None = None


class Saving(NamedTuple):
    """When checkpoints are written and how many stay; any choice ends in the same bits.

    Attributes:
      seconds: time between two checkpoints.
      steps: also after every so many steps, if given.
      keep: number of checkpoints that stay, per phase.
    """

    seconds: float = 60.0
    steps: int | None = None
    keep: int = 2


class Services(NamedTuple):
    """What a run lends to its phases.

    Attributes:
      path: the work directory.
      mark: `Identity.mark`, which every checkpoint carries.
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


class Phase:
    """A named stretch of steps with a checkpoint folder of its own.

    Args:
      services: of the run.
      name: for example `search` or `retrain/0`.
      num_steps: length.
      watch: what is recorded.
      data: checksum of the data that its steps see.
      meta: JSON data that its checkpoints must carry, beside the name, the length and what the run is.
      describe: `(state) -> JSON data` kept in each checkpoint, for states whose shapes change.
    """

    def __init__(
        self,
        services: Services,
        name: str,
        num_steps: int,
        *,
        watch: Watch,
        data: int,
        meta: Mapping[str, Any] | None = None,
        describe: Callable[[Any], Any] | None = None,
    ):
        self._to = services
        self._name, self._num_steps, self._watch = name, num_steps, watch
        own = {"phase": name, "num_steps": num_steps, "run": {**services.mark, "data": data}}
        self._meta = {**(meta or {}), **own}
        self._describe = describe
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
        with Ticker(f"preparing {self._name}"):
            start = init() if target is None or not self._checkpoints.steps() else None
            wanted = start if target is None else lambda meta: target(meta["description"])
            restored = self._checkpoints.restore(wanted, check_meta=self._meta, prefer=self._has_rows)
        if restored is None:
            return 0, start
        first, state, meta = restored
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
        advance = prepare(state)
        self._to.clock.compiled(advance.compile_seconds)
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
        for number, row in enumerate(rows, start=step - len(rows) + 1):
            self._bad += has_bad_loss(row)
            if number % self._watch.log_every == 0 or number == self._num_steps or self._is_evaluated(number):
                for writer in (self._to.metrics, *self._to.writers):
                    writer.write(number, {"phase": self._name, **row})
        self._to.metrics.flush()
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
        return waited or asked or bool(saving.steps and step % saving.steps == 0)

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
