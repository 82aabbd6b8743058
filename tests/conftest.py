"""The ground under every test: two CPU devices, no silent rank promotion, compiled programs kept between runs."""

import os
import sys
from pathlib import Path

if "jax" in sys.modules:
    raise RuntimeError("jax was imported before tests/conftest.py, which has to set its environment first")

# Tests compile much and compute little: without optimisation, and with the emitter that does not need it, a program is
# compiled in a third of the time. Subprocesses that tests start inherit these, as a second process of a run would, and
# `jaxnas.run.compiler_options()` leaves the level alone.
FLAGS = {
    "xla_force_host_platform_device_count": 2,
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,  # the other core has tests of its own
}
flags = os.environ.get("XLA_FLAGS", "")
for flag, value in FLAGS.items():
    if flag not in flags:
        flags = f"{flags} --{flag}={value}"
os.environ["XLA_FLAGS"] = flags.strip()
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start would compile all modules each time
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # less for the compiler to carry along
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("MPLBACKEND", "agg")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that JAXNAS_DATA names; a test that asks for it is skipped without one."""
    name = os.environ.get("JAXNAS_DATA", "")
    if not name:
        pytest.skip("JAXNAS_DATA is not set: this test needs real data")
    path = Path(name).expanduser().resolve()
    if not path.is_dir():
        pytest.skip(f"JAXNAS_DATA={name} is not a folder: this test needs real data")
    return path


LONG = 10.0  # seconds, above which a test should carry the mark `slow`


def pytest_terminal_summary(terminalreporter):
    """Lists long tests without the mark `slow`; on a busy machine more appear, and none of them fails for it."""
    seconds: dict[str, float] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if hasattr(report, "duration") and "slow" not in getattr(report, "keywords", ()):
            seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration
    long = sorted(((spent, name) for name, spent in seconds.items() if spent > LONG), reverse=True)
    if long:
        terminalreporter.section(f"over {LONG:.0f} seconds without the mark slow")
        for spent, name in long:
            terminalreporter.write_line(f"{spent:6.1f} s  {name}")
