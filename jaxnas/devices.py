"""What the devices of this process hold, and waiting for them so that a signal is still heard."""

import os
import time
from typing import Any

import jax

__all__ = ["free_memory", "total_memory", "wait"]


def total_memory() -> int | None:
    """Bytes that one device has in all, None where the device does not say."""
    limit = _statistics().get("bytes_limit")
    return _pages("SC_PHYS_PAGES") if limit is None else int(limit)


def free_memory() -> int | None:
    """Bytes that one device of this process has left, None where it does not say; devices of a CPU share its memory."""
    stats = _statistics()
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    left = _pages("SC_AVPHYS_PAGES")
    return None if left is None else left // jax.local_device_count()


def wait(array: Any) -> None:
    """Waits for an array in short naps, since a signal is only handled while Python runs."""
    nap = 1e-4
    while not array.is_ready():
        time.sleep(nap)
        nap = min(2 * nap, 0.02)


def _statistics() -> dict[str, Any]:
    return jax.local_devices()[0].memory_stats() or {}


def _pages(name: str) -> int | None:
    on_host = jax.local_devices()[0].platform == "cpu" and hasattr(os, "sysconf")
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") if on_host else None
