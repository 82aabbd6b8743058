"""Runs that show what they do, survive being stopped, and end in the same bits.

`Run` is a work directory with phases, `script` a command line around it; `drive` is the loop below both.
"""

from jaxnas.files import plain, read_json, write_json
from jaxnas.run._environment import (
    compiler_options,
    cores,
    enable_compilation_cache,
    environment,
    is_installed,
    split_cpu,
)
from jaxnas.run._in_flight import Evaluate, Order
from jaxnas.run._script import Launch, exit_code, parse, script
from jaxnas.run._search import search
from jaxnas.run.board import TensorBoard
from jaxnas.run.history import History, read_history
from jaxnas.run.identity import named_key
from jaxnas.run.loop import Advance, compiled_steps, drive, python_steps
from jaxnas.run.metrics import Writer
from jaxnas.run.phases import Saving, Watch
from jaxnas.run.progress import Progress, Ticker
from jaxnas.run.ranges import Option, check_ranges, options_of, ranged
from jaxnas.run.records import JsonLines
from jaxnas.run.runner import Run
from jaxnas.run.signals import Interrupted, StopSignals
from jaxnas.standard_error import say

__all__ = [
    "Advance",
    "Evaluate",
    "History",
    "Interrupted",
    "JsonLines",
    "Launch",
    "Option",
    "Order",
    "Progress",
    "Run",
    "Saving",
    "StopSignals",
    "TensorBoard",
    "Ticker",
    "Watch",
    "Writer",
    "check_ranges",
    "compiled_steps",
    "compiler_options",
    "cores",
    "drive",
    "enable_compilation_cache",
    "environment",
    "exit_code",
    "is_installed",
    "named_key",
    "options_of",
    "parse",
    "plain",
    "python_steps",
    "ranged",
    "read_history",
    "read_json",
    "say",
    "script",
    "search",
    "split_cpu",
    "write_json",
]
