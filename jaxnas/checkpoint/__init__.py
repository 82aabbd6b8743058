"""Checkpoints that survive a kill, a truncated file and a flipped bit; the only module that imports Orbax.

`jaxnas.run` saves every phase of a run through it. A step directory holds the leaves of the state as one flat Orbax
item (names are the tree paths) and one JSON item: the step, the caller's `meta`, a description and a checksum of every
leaf. Orbax makes a save atomic, but it loads flipped bytes, casts dtypes and gives up at a broken newest step without
help.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.checkpoint.broken import Broken, breaking, first_line, quiet
from jaxnas.checkpoint.leaves import NOTHING, checksum, decode, digest, encode, is_stored, named_leaves, type_name
from jaxnas.checkpoint.owner import Owner, is_writer
from jaxnas.errors import FileError, UserError
from jaxnas.files import sealed, unsealed
from jaxnas.standard_error import say

__all__ = ["CheckpointError", "Checkpoints", "Owner", "digest", "is_writer"]

_STEP = re.compile(r"step_(\d+)")


class CheckpointError(UserError):
    """Checkpoints exist and none of them can be read and verified."""


class Checkpoints:
    """The checkpoints of one phase: a context manager around one directory.

    Leaves of a state may be JAX arrays (typed keys included), NumPy arrays and scalars, and Python `bool`, `int`,
    `float` and `complex`; zero-size arrays are described, not stored. Saves are synchronous, so the caller may donate
    the state right after. Every array must be addressable from this process.

    Reading needs no permission. The first save makes the object the owner of the directory until its context ends; the
    save is refused while another object saves there, or has saved there since this one looked.

    Args:
      directory: the folder that holds one folder `step_<n>` for each checkpoint; it is made at the first save.
      keep: the number of newest steps that stay, at least 1. The newest step saved with `good=True` stays as well.

    Raises:
      UserError: `keep` is below 1.

    Example:
      >>> import tempfile
      >>> from jaxnas.checkpoint import Checkpoints
      >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
      ...     checkpoints.save(7, {"weight": np.ones(2), "count": 3}, {"space": "toy"})
      ...     step, state, meta = checkpoints.restore({"weight": np.zeros(2), "count": 0})
      >>> step, state["count"], meta
      (7, 3, {'space': 'toy'})
    """

    def __init__(self, directory: str | Path, *, keep: int = 2):
        if keep < 1:
            raise UserError(f"keep is {keep}, expected at least 1")
        self._directory = Path(directory).absolute()
        self._keep = keep
        self._broken: set[int] = set()
        self._owner = Owner(self._directory, "checkpoint folder")
        self._known = set(self.steps())
        self._open: Any = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes Orbax, whatever happened: its threads would keep the interpreter from ending."""
        self._owner.release()
        if self._open is not None:
            with quiet():
                self._open.close()
            self._open = None

    def steps(self) -> list[int]:
        """The steps on disk in ascending order, verified or not; half-written ones do not count."""
        if not self._directory.is_dir():
            return []
        found = (_STEP.fullmatch(entry.name) for entry in self._directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def acquire(self) -> None:
        """Becomes the owner of the directory now instead of at the first save; only the owner saves.

        Raises:
          UserError: another one owns it, or has saved there since this object was made or has restored.
        """
        if self._owner.held or not is_writer():
            return
        self._owner.acquire()
        new = sorted(set(self.steps()) - self._known)
        if new:
            self._owner.release()
            raise UserError(f"checkpoint folder {self._directory} has got step {new[-1]} from another run meanwhile")

    def save(self, step: int, state: Any, meta: Mapping[str, Any] | None = None, *, good: bool = True) -> None:
        """Writes `state` as checkpoint `step`; replaces that step and everything later than it.

        Args:
          step: the number of steps done, at least 0.
          state: a pytree of the leaves listed above.
          meta: JSON data that are stored beside the state and returned by `restore`; tuples come back as lists.
          good: False when the state is suspect (the loss is NaN): it then never pushes the last good step out.

        Raises:
          UserError: a leaf cannot be stored (named by its path), `meta` is not JSON, or the directory belongs to
            another owner.
          FileError: the disk does not take it; what was saved before is still there.
        """
        # Everything that can be refused is refused before a file is touched.
        arrays, records = encode(state)
        try:
            item = sealed({"step": step, "meta": dict(meta or {}), "leaves": records, "good": good})
        except (TypeError, ValueError) as error:
            raise UserError(f"the meta of a checkpoint must be JSON data: {error}") from None
        # Steps from here on are another history now, and broken ones are of no use.
        self.acquire()
        for stale in self.steps():
            if stale >= step or stale in self._broken:
                shutil.rmtree(self._path(stale), ignore_errors=True)
        self._broken.clear()
        self._sweep()
        # Orbax commits a step by a rename, so a kill leaves it whole or not there.
        ocp, checkpoints = self._orbax()
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(item))
        try:
            with quiet():
                checkpoints.reload()
                checkpoints.save(step, args=args, force=True)
                checkpoints.wait_until_finished()
        except Exception as error:
            self._sweep()
            raise FileError(f"checkpoint {self._path(step)} cannot be written: {first_line(error)}") from error
        self._prune()

    def restore(
        self,
        target: Any,
        *,
        check_meta: Mapping[str, Any] | None = None,
        prefer: Callable[[int, dict[str, Any]], bool] = lambda step, meta: True,
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Reads the newest step that verifies; a broken one costs a line on stderr.

        Args:
          target: a pytree with the paths, shapes and dtypes of the saved state. Its leaves are arrays or
            `jax.ShapeDtypeStruct`; the restored leaves have their type (JAX or NumPy) and sharding. A function of
            `meta` that returns such a pytree serves states whose shapes are known only from the checkpoint.
          check_meta: the entries that the saved `meta` must have; nested mappings are compared entry by entry.
          prefer: `(step, meta) -> bool`; a step for which it is false is read only when no other one can be.

        Returns:
          `(step, state, meta)`, bit for bit what was saved, or None when there is no checkpoint.

        Raises:
          CheckpointError: there are checkpoints and none verifies.
          UserError: the newest readable checkpoint has another `meta` or a state of another form.
        """
        steps = self.steps()
        self._known |= set(steps)
        # The newest step that can be read; one whose arrays turn out broken is passed over.
        for step, item in self._verified(steps, check_meta or {}, prefer):
            wanted = target(item["meta"]) if callable(target) else target
            self._compare(step, item["leaves"], wanted)
            try:
                return step, self._read_state(step, item["leaves"], wanted), item["meta"]
            except Broken as error:
                self._skip(step, error)
        if steps:
            raise CheckpointError(f"none of the {len(steps)} checkpoints in {self._directory} can be read")
        return None

    def _verified(
        self, steps: list[int], check_meta: Mapping[str, Any], prefer: Callable[[int, dict[str, Any]], bool]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The steps whose JSON item can be read, newest first, and after them those that are not preferred."""
        # Steps that are not preferred wait until all others have been tried.
        others = []
        for step in reversed(steps):
            try:
                item = self._read_meta(step)
            except Broken as error:
                self._skip(step, error)
                continue
            self._check(step, item["meta"], check_meta)
            if prefer(step, item["meta"]):
                yield step, item
            else:
                others.append((step, item))
        yield from others

    def _skip(self, step: int, reason: Exception) -> None:
        self._broken.add(step)
        say(f"jaxnas: skipped checkpoint {self._path(step)}: {reason}")

    def _sweep(self) -> None:
        """Deletes what killed and failed saves have left."""
        for leftover in self._directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self._directory / f"step_{step}"

    def _orbax(self) -> tuple[Any, Any]:
        """Imports Orbax and opens the directory, once."""
        import orbax.checkpoint as ocp

        if self._open is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=None, step_prefix="step", create=True, enable_async_checkpointing=False
            )
            with quiet():
                self._open = ocp.CheckpointManager(self._directory, options=options)
        return ocp, self._open

    def _prune(self) -> None:
        """Deletes all but the newest steps, `keep` of them, and the newest good one."""
        steps = self.steps()
        if len(steps) > self._keep:
            good = next((step for step in reversed(steps) if self._is_good(step)), None)
            for step in steps[: -self._keep]:
                if step != good:
                    shutil.rmtree(self._path(step), ignore_errors=True)

    def _is_good(self, step: int) -> bool:
        try:
            return bool(self._read_meta(step)["good"])
        except Broken:
            return False

    def _read_meta(self, step: int) -> dict[str, Any]:
        """The JSON item of a step, its checksum verified."""
        ocp, checkpoints = self._orbax()
        with quiet(), breaking():
            read = checkpoints.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
            item = unsealed(read.meta)
        if item.get("step") != step:
            raise Broken(f"it holds step {item.get('step')}")
        return item

    def _read_state(self, step: int, records: list[dict[str, Any]], target: Any) -> Any:
        """The arrays of a step as the leaves of `target`, every checksum verified."""
        # Templates for all arrays that Orbax holds; each is read and held against its checksum.
        stored = {r["path"]: np.empty(r["shape"], jnp.dtype(r["dtype"])) for r in records if is_stored(r)}
        ocp, checkpoints = self._orbax()
        with quiet(), breaking():
            args = ocp.args.Composite(state=ocp.args.StandardRestore(stored or NOTHING))
            arrays = checkpoints.restore(step, args=args).state
            for record in records:
                if is_stored(record) and checksum(arrays[record["path"]]) != record["crc32"]:
                    raise Broken(f"leaf {record['path']} fails its checksum")
        by_path = {record["path"]: record for record in records}
        leaves = [decode(by_path[path], arrays.get(path), leaf) for path, leaf in named_leaves(target)]
        return jax.tree.unflatten(jax.tree.structure(target), leaves)

    def _check(self, step: int, meta: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> None:
        """Raises when `meta` names something else than `expected`."""
        for name, value in expected.items():
            saved = meta.get(name)
            if isinstance(value, Mapping) and isinstance(saved, Mapping):
                self._check(step, saved, value, f"{prefix}{name}.")
            elif saved != json.loads(json.dumps(value)):
                raise UserError(f"checkpoint {self._path(step)}: {prefix}{name} is {saved!r}, expected {value!r}")

    def _compare(self, step: int, records: list[dict[str, Any]], target: Any) -> None:
        """Raises when the saved leaves have other paths, shapes or dtypes than `target`."""
        saved = {record["path"]: record["type"] for record in records}
        wanted = {path: type_name(path, leaf) for path, leaf in named_leaves(target)}
        differing = [path for path in {**saved, **wanted} if saved.get(path) != wanted.get(path)]
        if differing:
            path = differing[0]
            more = f" ({len(differing) - 1} more leaves differ)" if len(differing) > 1 else ""
            was, expected = saved.get(path, "missing"), wanted.get(path, "no such leaf")
            raise UserError(f"checkpoint {self._path(step)}: leaf {path} is {was}, expected {expected}{more}")
