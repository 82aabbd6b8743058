"""Where a run takes place: device, versions, commit, and the folder of compiled programs."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

__all__ = ["compiler_options", "cores", "enable_compilation_cache", "environment", "split_cpu"]


def environment() -> dict[str, Any]:
    """The entries of `result.json` that say where it was computed.

    Returns:
      `device` (its kind, `cpu` or for example `NVIDIA H200`), `devices` (how many), `platform`, `jax`, `python`, and
      `commit`: the commit of the checkout that the package lies in, `-dirty` when changed, or None without one.
    """
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "platform": device.platform,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "commit": _commit(Path(__file__).resolve().parents[2]),
    }


def _commit(root: Path) -> str | None:
    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        inside = Path(git("rev-parse", "--show-toplevel")).resolve() == root
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if inside else None
    except (OSError, subprocess.SubprocessError):
        return None


def compiler_options() -> dict[str, Any] | None:
    """Options for `jax.jit` and `compile` that save time on the default backend.

    On CPU the first of LLVM's optimisation levels compiles a search step in two thirds of the time, and the step then
    takes as much processor time as with the default one. A level in the environment's XLA_FLAGS is left alone. On
    other backends there is nothing to set.
    """
    name = "xla_backend_optimization_level"
    return {name: 1} if jax.default_backend() == "cpu" and name not in os.environ.get("XLA_FLAGS", "") else None


def split_cpu(devices: int | None = None) -> None:
    """Makes several devices of a CPU, before JAX has used it; without effect where another platform is chosen.

    Args:
      devices: how many; by default one for each core that the process may use.
    """
    if jax.config.jax_platforms in (None, "", "cpu"):  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", devices or cores())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def enable_compilation_cache(directory: str | Path | None = None) -> Path | None:
    """Keeps compiled programs between runs.

    Args:
      directory: where; by default the environment's JAX_COMPILATION_CACHE_DIR, else `~/.cache/jaxnas/jax-N-cores`
        with the number of cores that the process may use: what was compiled for one core stays on one.

    Returns:
      The folder, or None when it cannot be made: programs are then compiled anew.
    """
    default = f"~/.cache/jaxnas/jax-{cores()}-cores"
    folder = Path(directory or os.environ.get("JAX_COMPILATION_CACHE_DIR") or default).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder
