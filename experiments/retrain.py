"""Train one network from scratch: a found one from its file, or a published cell.

  python -m experiments.retrain [digits | fashion-mnist | cifar10] [--architecture FILE] [--recipe.epochs N] [--smoke]

The recipe is the one that DARTS and SNAS share (arXiv 1806.09055, section 3.2): learned normalisation with running
averages, auxiliary head, cutout, rising drop path. The presets in `configs/retrain.py` say what each should reach.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments import batches, common, outcome
from experiments.configs.retrain import PRESETS, Config
from jaxnas import costs, data, export, plot, train
from jaxnas.run import Run, Watch, script
from jaxnas.searchers import cosine_by_epoch, coupled_sgd
from jaxnas.spaces import registry
from jaxnas.spaces.published import PUBLISHED


def read_architecture(name: str, num_classes: int, config: Config):
    """The space and architecture of a file or of a published cell."""
    size = {"channels": config.network.channels, "cells": config.network.cells}
    if name in PUBLISHED:
        space = registry.build(name.partition("_")[0], num_classes=num_classes, **size)
        return space, space.about.parse(PUBLISHED[name])
    if not Path(name).is_file():
        raise ValueError(f"architecture: {name!r} is no file; published cells are {', '.join(PUBLISHED)}")
    record = json.loads(Path(name).read_text())
    settings = {**record["settings"], **size, "num_classes": num_classes}
    return registry.build(record["space"], **settings), record["arch"]


def main(run: Run, config: Config) -> None:
    """Train, test, write."""
    loaded = batches.load_data(config.data)
    images = batches.split_data(loaded, config.data, config.seed)
    joined = batches.all_training(images)
    recipe = config.recipe
    per_epoch = batches.steps_per_epoch(joined, recipe.batch_size)
    space, arch = read_architecture(config.architecture, loaded.num_classes, config)
    changes = {"affine": True, "pool_norm": space.about.name == "snas"}
    network = space.about.network(arch, **changes, auxiliary=recipe.auxiliary)
    rate = cosine_by_epoch(recipe.learning_rate, 0.0, epochs=recipe.epochs, steps_per_epoch=per_epoch)
    trainer = train.stand_alone(
        network,
        coupled_sgd(rate, weight_decay=recipe.weight_decay, clip=recipe.clip),
        drop_path=(lambda step: recipe.drop_path * (step // per_epoch) / recipe.epochs) if recipe.drop_path else 0.0,
        auxiliary_weight=recipe.auxiliary_weight,
    )
    test = data.Examples(*map(jnp.asarray, loaded.test))

    def draw(key, step, loop_data):
        joined, images = loop_data
        x, y = batches.training_batch(key, joined, step, recipe.batch_size, images, config.data)
        key_cutout = jax.random.fold_in(jax.random.fold_in(key, step), 1)
        return (data.cutout(key_cutout, x, length=recipe.cutout) if recipe.cutout else x), y

    def init(key, loop_data):
        *rest, key_data = loop_data
        return trainer.init(key, draw(key_data, 0, rest)[0])

    def step(key, state, loop_data):
        *rest, key_data = loop_data
        return trainer.step(key, state, draw(key_data, state.step, rest))

    @jax.jit
    def test_accuracy(variables, test, mean, std):
        def predict(x):
            return network.apply(variables, data.to_float(x, mean, std))[0]

        return train.accuracy(predict, *test)

    watch = Watch(show=("loss", "accuracy"))
    steps = recipe.epochs * per_epoch
    loop_data = (joined, images, run.key("retrain/data"))
    state = run.phase("retrain", init, step, steps, data=loop_data, watch=watch, meta={"space": space.about.name})
    accuracy = run.once("test", lambda: float(test_accuracy(state.variables, test, images.mean, images.std)))
    tables = costs.space_tables(space, loaded.image_shape, **changes)
    export.save_variables(run.path / "network.safetensors", state.variables)
    record = export.architecture_record(
        space,
        arch,
        image_shape=loaded.image_shape,
        num_classes=loaded.num_classes,
        mean=images.mean.tolist(),
        std=images.std.tolist(),
        network={**changes, "auxiliary": recipe.auxiliary},
    )
    run.save_json("architecture.json", record)
    plot.architecture(run.path / "architecture.png", space.about, arch)
    outcome.draw_curves(run)
    run.finish(
        {
            "system": "retrain",
            "data": config.data.name,
            "steps": steps,
            "search": {"val_accuracy": None},
            "child": {
                "val_accuracy_inherited": None,
                "test_accuracy_retrained": accuracy,
                **{name: int(costs.cost(table, record["arch"])) for name, table in tables.items()},
            },
            "baseline": {
                "random_test_accuracy_mean": None,
                "random_test_accuracy_std": None,
                "random_children": 0,
            },
        }
    )


def smoke(config: Config) -> Config:
    """The same configuration, small."""
    recipe = dataclasses.replace(config.recipe, epochs=1, batch_size=16, auxiliary=False, cutout=2)
    return dataclasses.replace(common.smoke(config), recipe=recipe)


if __name__ == "__main__":
    script(main, PRESETS, system="retrain", smoke=smoke)
