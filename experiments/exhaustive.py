"""Trains every cell of NAS-Bench-201 in a small network and keeps the results as a table.

  python -m experiments.exhaustive [digits | fashion-mnist] [--smoke]

The 15,625 cells make 5,653 different functions (`jaxnas.spaces.nasbench201.forms`); the first cell of each class is
trained and stands for all of it. A subset is trained with several seeds, which measures the noise of a single run.
Leaves `table.npz`, described in `jaxnas/tabular/data/README.md`. Stopped, it goes on from the last chunk.
"""

import dataclasses
import hashlib
import json
from typing import NamedTuple

import jax
import numpy as np
import optax
from scipy.optimize import nnls

from experiments import batches, common
from experiments.classes import Plan, by_class, draw_members
from experiments.configs.exhaustive import PRESETS, Config
from jaxnas import costs, data
from jaxnas.errors import UserError
from jaxnas.population import Population, PopulationData, Recipe, family_of
from jaxnas.run import Run, environment, script, split_cpu
from jaxnas.searchers import sgd_l2
from jaxnas.spaces import nasbench201_small_space
from jaxnas.spaces.nasbench201 import EDGES, OPERATIONS, all_cells, live_operations, representatives
from jaxnas.tabular.benchmarks import MISSING


def make_plan(config: Config) -> Plan:
    """All classes once and some with more seeds; costly networks first, so that those of a call take about as long."""
    cells = all_cells()
    first, class_of = np.unique(representatives(), return_inverse=True)
    chosen = draw_members(len(first), config)
    # Costly networks first, by a rough cost of each operation.
    weight = (operation_counts(cells[first]) @ (0, 0, 2, 10, 1))[chosen[:, 0]]
    chosen = chosen[np.lexsort((chosen[:, 1], chosen[:, 0], -weight))]
    return Plan(cells, class_of, first, chosen[:, 0], chosen[:, 1])


def operation_counts(cells: np.ndarray) -> np.ndarray:
    """How often each operation runs in a cell, edges that lead nowhere left out: `[N, 5]`."""
    runs = np.asarray(jax.vmap(live_operations)(cells))
    return (runs[:, :, None] == np.arange(len(OPERATIONS))).sum(1)


def make_recipe(config: Config, images: data.SearchData) -> Recipe:
    """SGD with Nesterov's momentum and a cosine, judged after some epochs on the way."""
    steps = batches.num_steps("", config, images.weights)
    per_epoch = steps // config.epochs
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    judge_at = tuple(epoch * per_epoch for epoch in config.judge_epochs)
    tx = sgd_l2(rate, weight_decay=config.weight_decay, nesterov=True)
    return Recipe(tx, steps, config.batch_size, judge_at, common.prepare_images(images, config.data))


class Study(NamedTuple):
    """What is trained, how, and on what."""

    config: Config
    plan: Plan
    loaded: data.Data
    images: data.SearchData
    recipe: Recipe


def prepare(config: Config) -> Study:
    """The plan, the data and the recipe."""
    split_cpu(config.devices)
    if config.chunk % jax.device_count():
        raise UserError(f"chunk is {config.chunk}, expected a multiple of the {jax.device_count()} devices")
    # A judgement after the last epoch would never be reached.
    late = [epoch for epoch in config.judge_epochs if epoch > config.epochs]
    if late:
        raise UserError(f"judge_epochs has {late[0]}, expected at most the {config.epochs} of epochs")
    loaded = batches.load_data(config.data)
    images = batches.split_data(loaded, config.data, config.seed)
    space = nasbench201_small_space(config.channels, loaded.num_classes)
    setting = common.Setting(config, loaded, images, space, None)
    common.rehearse_children(setting, config, config.chunk)
    return Study(config, make_plan(config), loaded, images, make_recipe(config, images))


def train(run: Run, study: Study) -> Population:
    """Trains all members, call by call."""
    config, plan, loaded, images, recipe = study
    reference = min(common.REFERENCE, len(images.weights.labels))
    # One space for training, and one that judges with statistics of training examples.
    spaces = (nasbench201_small_space(config.channels, loaded.num_classes, reference=r) for r in (0, reference))
    parts = {"validation": tuple(images.policy), "test": tuple(loaded.test)}
    return common.train_networks(
        run,
        "networks",
        family_of(*spaces, reference=reference),
        {"cell": plan.cells[plan.first[plan.member_class]]},
        PopulationData(tuple(images.weights), parts),
        recipe,
        seeds=plan.member_seed,
        chunk=config.chunk,
    )


def hits(accuracy: np.ndarray, size: int) -> np.ndarray:
    """Right answers out of `size`; `MISSING` for networks that failed."""
    return np.where(np.isnan(accuracy), MISSING, np.rint(accuracy * size)).astype(np.uint16)


def fitted_seconds(plan: Plan, measured: np.ndarray) -> np.ndarray:
    """Seconds of each class `[C]`: so many for every operation that runs, none below zero.

    The measurements are means over chunks of alike networks. Other work on the machine can only add to them, so what
    lies above the fit counts a ninth of what lies below (asymmetric least squares, Newey and Powell 1987).
    """
    # Columns: a constant, and how often each operation runs.
    counts = operation_counts(plan.cells[plan.first])[:, 1:]
    columns = np.concatenate([np.ones((len(counts), 1)), counts], 1)
    rows, weight = columns[plan.member_class], np.ones(len(measured))
    for _ in range(50):  # weighted least squares, weights from the signs of the last residuals
        root = np.sqrt(weight)
        found, _ = nnls(rows * root[:, None], measured * root)
        weight = np.where(measured > rows @ found, 0.1, 0.9)
    return columns @ found


def make_table(study: Study, found: Population) -> dict[str, np.ndarray]:
    """The arrays of `table.npz`."""
    config, plan, loaded, images, _ = study
    space = nasbench201_small_space(config.channels, loaded.num_classes)
    exact = costs.space_tables(space, loaded.image_shape)
    sizes = {"validation": len(images.policy.labels), "test": len(loaded.test.labels)}
    # A call trains on all devices at once: seconds of one device.
    per_device = found.seconds * jax.device_count()
    about = {"config": dataclasses.asdict(config), **environment()}
    parts = {f"{name}_hits": by_class(plan, hits(found.score[name], size), MISSING) for name, size in sizes.items()}
    counted = {name: costs.cost(table, {"cell": plan.cells}).astype(np.int32) for name, table in exact.items()}
    return {
        "version": np.array(1),
        "operations": np.array(OPERATIONS),
        "edges": np.array(EDGES, np.uint8),
        "cells": plan.cells.astype(np.uint8),
        "class_of": plan.class_of.astype(np.uint16),
        "epochs": np.array(sorted({*config.judge_epochs, config.epochs})),
        **parts,
        **{f"{name}_size": np.array(size) for name, size in sizes.items()},
        "loss": by_class(plan, found.loss.astype(np.float16), np.nan),
        "seconds": fitted_seconds(plan, per_device).astype(np.float32),
        "seconds_measured": by_class(plan, per_device.astype(np.float32), np.nan),
        **counted,
        "about": np.array(json.dumps(about)),
    }


def main(run: Run, study: Study) -> None:
    """Train, write."""
    found = train(run, study)
    path = run.path / "table.npz"
    np.savez_compressed(path, **make_table(study, found))
    seconds = float(found.seconds.sum())
    run.finish(
        {
            "system": "exhaustive",
            "data": study.loaded.name,
            "networks": len(found.good),
            "not_finite": int((~found.good).sum()),
            "training_seconds": round(seconds, 1),
            "networks_per_hour": round(3600 * len(found.good) / seconds),
            "test_accuracy_mean": float(np.nanmean(found.score["test"][:, -1])),
            "test_accuracy_max": float(np.nanmax(found.score["test"][:, -1])),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    )


def smoke(config: Config) -> Config:
    """The same study, a few cells and steps on synthetic images."""
    small = common.smoke(config)
    return dataclasses.replace(
        small, channels=2, epochs=2, judge_epochs=(1,), batch_size=16, cells=6, repeated=2, seeds=2, chunk=4
    )


if __name__ == "__main__":
    script(main, PRESETS, system="exhaustive", prepare=prepare, smoke=smoke)
