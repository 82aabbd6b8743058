"""Where a run takes place: device, versions, commit, and the folder of compiled programs."""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import os
import platform
import re
import subprocess
import threading
import warnings
from pathlib import Path
from typing import Any

import jax
import jaxlib

from jaxnas.standard_error import say

_DAMAGED = re.compile(r"Error (read|writ)ing persistent compilation cache entry for '(.*?)': (.*)", re.DOTALL)

__all__ = [
    "compiler_options",
    "conditions",
    "cores",
    "enable_compilation_cache",
    "environment",
    "is_installed",
    "split_cpu",
]


def environment() -> dict[str, Any]:
    """The entries of `result.json` that say where it was computed.

    Returns:
      The `conditions()`; `platform`, such as `cpu` or `gpu`; `python`, its version; and `commit`, the commit of the
      checkout that the package lies in, with `-dirty` behind it where a file has changed, or None outside of one.

    Example:
      >>> sorted(set(environment()) - set(conditions()))
      ['commit', 'platform', 'python']
    """
    return {
        **conditions(),
        "platform": jax.devices()[0].platform,
        "python": platform.python_version(),
        "commit": _commit(Path(__file__).resolve().parents[2]),
    }


def conditions() -> dict[str, Any]:
    """What the last bits of a result depend on besides what is computed: the same run elsewhere may round otherwise.

    Returns:
      `device` (the kind of the device, `cpu` or for example `NVIDIA H200`), `devices` (how many there are), `processor`
      (its model), `cores` (how many the process may use), `jax` and `jaxlib` (their versions), `xla_flags` (from the
      environment), and JAX's settings `x64`, `matmul_precision` and `prng`.
    """
    settings: Any = jax.config
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": cores(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "xla_flags": " ".join(sorted(os.environ.get("XLA_FLAGS", "").split())),
        "x64": settings.jax_enable_x64,
        "matmul_precision": settings.jax_default_matmul_precision,
        "prng": settings.jax_default_prng_impl,
    }


@functools.cache
def _processor() -> str:
    """The name of the processor's model where Linux tells it, else what Python calls the machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _commit(root: Path) -> str | None:
    """The commit of the checkout whose top is `root`; None where `root` lies in no checkout, or in a larger one."""

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        # A checkout whose top is another folder is not that of the package.
        inside = Path(git("rev-parse", "--show-toplevel")).resolve() == root
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if inside else None
    except (OSError, subprocess.SubprocessError):
        return None


def compiler_options() -> dict[str, Any] | None:
    """Options for `jax.jit` and `compile` that save time on the default backend.

    On a CPU LLVM's optimisation level 1 compiles a search step in two thirds of the time, and the step then takes as
    much processor time as with the default level. A level that stands in XLA_FLAGS is left alone.

    Returns:
      The options, or None where there is nothing to set: on other backends, and beside a level of the user's.
    """
    name = "xla_backend_optimization_level"
    return {name: 1} if jax.default_backend() == "cpu" and name not in os.environ.get("XLA_FLAGS", "") else None


def split_cpu(devices: int | None = None) -> None:
    """Makes several devices of a CPU; without effect where JAX is in use already or another platform is chosen.

    Args:
      devices: number of devices, by default one for each core that the process may use.
    """
    if jax.config.jax_platforms in (None, "", "cpu"):  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # JAX has made its devices already
            jax.config.update("jax_num_cpu_devices", devices or cores())


def is_installed(package: str) -> bool:
    """Whether an optional package can be imported."""
    return importlib.util.find_spec(package) is not None


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def enable_compilation_cache(directory: str | Path | None = None) -> Path | None:
    """Keeps compiled programs between runs.

    Args:
      directory: the folder to keep them in; by default the one that JAX_COMPILATION_CACHE_DIR names in the environment,
        else `~/.cache/jaxnas/jax-N-cores`. `N` is the number of cores that the process may use, since a program that
        was compiled for one core runs on one core ever after.

    Returns:
      The folder, or None where it cannot be made: programs are then compiled anew.
    """
    default = f"~/.cache/jaxnas/jax-{cores()}-cores"
    try:
        folder = Path(directory or os.environ.get("JAX_COMPILATION_CACHE_DIR") or default).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the process has no home
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX's default of one second would leave out most of the small programs of a search.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    _mend_entries(folder)
    return folder


@functools.cache
def _mend_entries(folder: Path) -> None:
    """Replaces JAX's warning about each damaged entry by one line, and removes such entries.

    JAX compiles anew what it cannot read, but writes no entry where one lies already: it would warn at every start.
    """
    show, told = warnings.showwarning, threading.Event()

    def mend(message: Warning | str, *place: Any, **options: Any) -> None:
        found = _DAMAGED.match(str(message))
        if found is None:  # a warning of something else
            return show(message, *place, **options)
        if not told.is_set():  # one line for all entries
            told.set()
            reason = " ".join(found[3].split())[:120]
            say(f"compilation cache {folder}: an entry cannot be {found[1].replace('writ', 'written')}: {reason}")
        for entry in folder.glob(f"{glob.escape(found[2])}-*-cache") if found[1] == "read" else ():
            entry.unlink(missing_ok=True)
        return None

    warnings.filterwarnings("always", message=_DAMAGED.pattern)
    warnings.showwarning = mend
