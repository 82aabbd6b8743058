"""Mistakes in `jaxnas/costs`."""

from tests.mutants.mutant import Mutant

TABLES = ("tests/costs/test_tables.py",)
RESOURCES = ("tests/costs/test_snas_resources.py",)
PROXYLESS = ("tests/searchers/test_first_steps_proxyless.py",)

MUTANTS = (
    Mutant(
        "fixed-cost",
        "the fixed part left out of the expected cost",
        "jaxnas/costs/tables.py",
        "return sum(terms, jnp.asarray(table.fixed, terms[0].dtype))",
        "return sum(terms)",
        TABLES,
    ),
    Mutant(
        "overflow",
        "int32 where the dearest architecture does not fit into it",
        "jaxnas/costs/tables.py",
        "if whole and largest <= np.iinfo(np.int32).max else jnp.float32",
        "if whole else jnp.float32",
        TABLES,
    ),
    Mutant(
        "add-linear-unit",
        "the latency term not divided by the target",
        "jaxnas/costs/latency/objectives.py",
        "return loss + factor * (expected - target) / target",
        "return loss + factor * (expected - target)",
        PROXYLESS,
    ),
    Mutant(
        "mul-log-exponent",
        "the exponent on the expected latency alone",
        "jaxnas/costs/latency/objectives.py",
        "(jnp.log(expected) / math.log(target)) ** exponent",
        "jnp.log(expected) ** exponent / math.log(target)",
        PROXYLESS,
    ),
    Mutant(
        "pair-latency",
        "the latency of a pair from the probabilities of all operations",
        "jaxnas/costs/latency/objectives.py",
        "if paths is None or paths.probe is None or paths.probe.index is None:",
        "if True:",
        PROXYLESS,
    ),
    Mutant(
        "idle-time",
        "the time of a call that does nothing not taken off",
        "jaxnas/costs/latency/measure.py",
        "block_times = np.median(times[:, ::2] - times[:, 1::2], axis=0)",
        "block_times = np.median(times[:, ::2], axis=0)",
        ("tests/costs/test_measurement.py",),
    ),
    Mutant(
        "stride-access",
        "memory access of a strided edge counted on its output",
        "jaxnas/spaces/darts/resources.py",
        "extra = side**2, 3 * (stride == 2)",
        "extra = side**2, 0 * (stride == 2)",
        RESOURCES,
    ),
    Mutant(
        "cells-summed",
        "the resource term summed over cells instead of averaged",
        "jaxnas/spaces/darts/resources.py",
        ".sum() / max(len(tables[name]), 1)",
        ".sum()",
        RESOURCES,
    ),
    Mutant(
        "resource-grid",
        "resources counted on the input grid of a reduction cell",
        "jaxnas/spaces/darts/resources.py",
        "tables[plan.kind].append(_cell_table(config, plan, side))",
        "tables[plan.kind].append(_cell_table(config, plan, side * (2 if plan.reduction else 1)))",
        RESOURCES,
    ),
)
