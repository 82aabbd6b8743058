"""Runs that show what they do, survive being stopped, and end in the same bits.

`Run` is a work directory with phases, `script` a command line around it; `drive` is the loop below both.
"""

from jaxnas.run.driver import Advance, compiled_steps, drive, python_steps
from jaxnas.run.environment import compiler_options, cores, enable_compilation_cache, environment, split_cpu
from jaxnas.run.metrics import JsonLines, TensorBoard, Writer
from jaxnas.run.phases import Saving, Watch
from jaxnas.run.progress import Progress, Ticker
from jaxnas.run.runner import Run
from jaxnas.run.script import Launch, exit_code, parse, script
from jaxnas.run.signals import Interrupted, StopSignals
from jaxnas.run.workdir import plain, read_json, write_json

__all__ = [
    "Advance",
    "Interrupted",
    "JsonLines",
    "Launch",
    "Progress",
    "Run",
    "Saving",
    "StopSignals",
    "TensorBoard",
    "Ticker",
    "Watch",
    "Writer",
    "compiled_steps",
    "compiler_options",
    "cores",
    "drive",
    "enable_compilation_cache",
    "environment",
    "exit_code",
    "parse",
    "plain",
    "python_steps",
    "read_json",
    "script",
    "split_cpu",
    "write_json",
]
