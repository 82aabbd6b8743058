"""Benchmarks as arrays: a whole search against one of them is a pure function of a key."""

from jaxnas.tabular._simulate import History, best_at, incumbents, simulate
from jaxnas.tabular.benchmarks import BENCHMARKS, digits, exhaustive, load, nas_bench_macro, nasbench201, with_metrics
from jaxnas.tabular.cell_table import cells, exhaustive_cells
from jaxnas.tabular.convert import add_hw_nas_bench, nats_topology
from jaxnas.tabular.files import load_table, save_table
from jaxnas.tabular.table import Table, floats, from_arrays, lookup, metric_of, missing, sample_run
from jaxnas.tabular.task import Task, table_task, task_evaluator

__all__ = [
    "BENCHMARKS",
    "History",
    "Table",
    "Task",
    "add_hw_nas_bench",
    "best_at",
    "cells",
    "digits",
    "exhaustive",
    "exhaustive_cells",
    "floats",
    "from_arrays",
    "incumbents",
    "load",
    "load_table",
    "lookup",
    "metric_of",
    "missing",
    "nas_bench_macro",
    "nasbench201",
    "nats_topology",
    "sample_run",
    "save_table",
    "simulate",
    "table_task",
    "task_evaluator",
    "with_metrics",
]
