"""Mistakes in the search for recurrent cells: its text, its rewards, its last training, its picture and its module."""

from tests.mutants.mutant import Mutant

TEXT = ("tests/experiments/test_text.py",)
SEARCH = ("tests/experiments/test_nas_rl_cell.py",)
MODULE = ("tests/spaces/test_nas_rl_module.py",)
PICTURE = ("tests/test_plot_cell_tree.py",)

MUTANTS = (
    Mutant(
        "first-windows",
        "the windows that judge are the first of their part",
        "experiments/text.py",
        "rows = np.arange(count) * len(inputs) // count",
        "rows = np.arange(count)",
        TEXT,
    ),
    Mutant(
        "nats-of-a-window",
        "a score is nats per window, not per token",
        "experiments/text.py",
        "axis=(1, 2)) / targets.shape[1]",
        "axis=(1, 2))",
        TEXT,
    ),
    Mutant(
        "decay-of-the-recipe",
        "all points of a grid have the recipe's moment at which the rate falls",
        "experiments/text.py",
        "begin = form.decay_from if decay_from is None else decay_from",
        "begin = form.decay_from",
        TEXT,
    ),
    Mutant(
        "early-judgements",
        "judgements come right after the start",
        "experiments/text.py",
        "first = form.steps - (form.judgements - 1) * form.judge_every\n    if",
        "first = 1\n    if",
        TEXT,
    ),
    Mutant(
        "worst-judgement",
        "a cell is worth the worst of its last judgements",
        "experiments/nas_rl_cell.py",
        'return -best_of_last(-np.asarray(found.score["validation"], float))',
        'return best_of_last(np.asarray(found.score["validation"], float))',
        SEARCH,
    ),
    Mutant(
        "seeds-of-cells",
        "all cells of a search have one seed",
        "experiments/nas_rl_cell.py",
        '"seeds": ids, ',
        '"seeds": 0 * ids, ',
        SEARCH,
    ),
    Mutant(
        "baseline-decay-of-cells",
        "the controller has the usual decay whatever the configuration says",
        "experiments/nas_rl_cell.py",
        "        baseline_decay=form.baseline_decay,\n",
        "",
        SEARCH,
    ),
    Mutant(
        "staleness-of-cells",
        "the controller is never stale whatever the configuration says",
        "experiments/nas_rl_cell.py",
        "        staleness=form.staleness,\n",
        "",
        SEARCH,
    ),
    Mutant(
        "bits-from-nats",
        "nats become bits by the wrong factor",
        "experiments/cells.py",
        '"bits": nats / math.log(2)',
        '"bits": nats * math.log(2)',
        SEARCH,
    ),
    Mutant(
        "equal-hidden-units",
        "known cells have as many hidden units as the found one, not as many weights",
        "experiments/cells.py",
        "key=lambda cell: abs(cell.parameters - like.parameters)",
        "key=lambda cell: abs(cell.size.hidden - like.size.hidden)",
        SEARCH,
    ),
    Mutant(
        "init-scale-of-everything",
        "the scale of a grid is on the embedding too",
        "experiments/cells.py",
        'return {**params, "cells": jax.tree.map(lambda leaf: leaf * settings["init_scale"], params["cells"])}',
        'return jax.tree.map(lambda leaf: leaf * settings["init_scale"], params)',
        SEARCH,
    ),
    Mutant(
        "forget-gate",
        "the forget gate of the LSTM starts half open",
        "experiments/cells.py",
        "jax.nn.sigmoid(f + 1) * state.c",
        "jax.nn.sigmoid(f) * state.c",
        SEARCH,
    ),
    Mutant(
        "memory-as-output",
        "the module's output is its memory",
        "jaxnas/spaces/nas_rl/module.py",
        "return tuple(state), state.h",
        "return tuple(state), state.c",
        MODULE,
    ),
    Mutant(
        "range-of-the-module",
        "the module draws its first weights from the usual range",
        "jaxnas/spaces/nas_rl/module.py",
        "space_of_genotype(self.genotype, init_range=self.init_range)",
        "space_of_genotype(self.genotype)",
        MODULE,
    ),
    Mutant(
        "drawn-cell-indices",
        "memory and inject change places in the picture of a cell",
        "jaxnas/plot/cell_tree.py",
        "memory, inject = (int(n)",
        "inject, memory = (int(n)",
        PICTURE,
    ),
    Mutant(
        "crossing-branches",
        "leaves stand in the order of their numbers, so that branches cross",
        "jaxnas/plot/cell_tree.py",
        "(order.index(n), 0) for n in range(base)",
        "(n, 0) for n in range(base)",
        PICTURE,
    ),
)
