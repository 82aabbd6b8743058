"""Train one network from scratch: a found one from its file, a published cell, or any written architecture.

  python -m experiments.retrain [digits | fashion-mnist | cifar10] [--architecture SOURCE] [--recipe.epochs N] [--smoke]

The recipe is that of the space's paper: `RECIPES` in `configs/retrain.py`, whose presets say what each should reach.
The network is the form that the paper trains, with learned normalisation and running averages.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import batches, common, outcome, pictures
from experiments.configs.parts import DataConfig
from experiments.configs.retrain import PRESETS, RECIPES, Config, RecipeConfig
from jaxnas import data, export, plot, train
from jaxnas.architecture_files import build_space, read_architecture, read_source
from jaxnas.base import Arch, Network, SearchSpace
from jaxnas.errors import UserError
from jaxnas.judge import judge
from jaxnas.run import Run, Watch, script
from jaxnas.searchers import cosine_by_epoch, sgd_l2
from jaxnas.spaces import registry

# The form of a paper's final network. SNAS normalises after pooling, DARTS does so in its search alone.
FORMS: dict[str, dict[str, Any]] = {
    "darts": {"affine": True, "pool_norm": False},
    "snas": {"affine": True, "pool_norm": True},
    "nasbench201": {"affine": True},
}
# The parts of a recipe that not every network has.
PARTS = {
    "auxiliary": ("darts", "snas"),
    "dropout": ("proxyless",),
    "drop_path": ("darts", "snas", "nasbench201", "proxyless-tree"),
}


class Plan(NamedTuple):
    """One network and its training: architecture, form, recipe and training loop.

    Attributes:
      space: the space that the architecture belongs to.
      arch: the architecture.
      form: keyword arguments of `space.about.network` that give the network whose weights are written.
      recipe: the recipe, every field with a value.
      steps: the number of steps of the whole training.
      network: the network in training, which may have an auxiliary head or dropout besides.
      trainer: the training loop.
    """

    space: SearchSpace
    arch: Arch
    form: dict[str, Any]
    recipe: RecipeConfig
    steps: int
    network: Network
    trainer: train.Trainer


class Training(NamedTuple):
    """A network that is ready to be trained.

    Attributes:
      plan: the network and its recipe.
      data: the configuration of the data.
      loaded: the data set with its test examples.
      images: mean and standard deviation of the training examples.
      joined: the training examples.
    """

    plan: Plan
    data: DataConfig
    loaded: data.Data
    images: data.SearchData
    joined: data.Examples


def read(config: Config, num_classes: int) -> tuple[SearchSpace, Arch]:
    """The space and the architecture of a configuration.

    Raises:
      UserError: an architecture that cannot be read, or of a space without a recipe.
    """
    source = read_source(config.architecture)
    # The space that is named, by the command line or the file, or the first that fits.
    name = config.space or source.space or build_space(source).about.name
    if name not in RECIPES:
        raise UserError(f"architecture: space {name!r} has no recipe, only {', '.join(RECIPES)} have one")
    size = dataclasses.asdict(config.network) if name in ("darts", "snas") else {}
    settings = {**size, **registry.settings_from_text(name, config.settings), "num_classes": num_classes}
    space = build_space(source, name, **settings)
    return space, read_architecture(space, source)


def recipe_of(name: str, given: RecipeConfig) -> RecipeConfig:
    """The recipe of a space's paper, with the given values in place of the published ones.

    Raises:
      UserError: a part that the networks of the space do not have.
    """
    values = {field: value for field, value in dataclasses.asdict(given).items() if value is not None}
    for part, spaces in PARTS.items():
        if values.get(part) and name not in spaces:
            raise UserError(f"recipe.{part}: networks of {name!r} have none, only those of {', '.join(spaces)}")
    return dataclasses.replace(RECIPES[name], **values)


def make_plan(config: Config, num_classes: int, examples: data.Examples) -> Plan:
    """The network and its training.

    Args:
      config: the configuration of the script.
      num_classes: the number of classes in the data.
      examples: the examples to train on.

    Raises:
      UserError: what `read` and `recipe_of` refuse, or a schedule that does not fit the examples.
    """
    space, arch = read(config, num_classes)
    name = space.about.name
    # The recipe of the paper, and the form of its final network with the parts that only training has.
    recipe, form = recipe_of(name, config.recipe), FORMS.get(name, {})
    extra = {part: getattr(recipe, part) for part in ("auxiliary", "dropout") if name in PARTS[part]}
    network = space.about.network(arch, **form, **extra)
    # The training, with all schedules over the same epochs.
    schedule = batches.schedule("recipe.", recipe, examples)
    trainer = train.stand_alone(
        network,
        optimiser(recipe, **schedule),
        drop_path=drop_path(recipe, **schedule),
        auxiliary_weight=recipe.auxiliary_weight,
        label_smoothing=recipe.label_smoothing,
    )
    steps = schedule["epochs"] * schedule["steps_per_epoch"]
    return Plan(space, arch, form, recipe, steps, network, trainer)


def optimiser(recipe: RecipeConfig, epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD with momentum along a cosine to zero."""
    # The same cosine, moved once per epoch or at every step.
    by_epoch = cosine_by_epoch(recipe.learning_rate, 0.0, epochs=epochs, steps_per_epoch=steps_per_epoch)
    by_step = optax.cosine_decay_schedule(recipe.learning_rate, epochs * steps_per_epoch)
    return sgd_l2(
        by_epoch if recipe.schedule == "epoch" else by_step,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip or None,
        nesterov=recipe.nesterov,
        decayed=None if recipe.decay_norms else without_norms,
    )


def drop_path(recipe: RecipeConfig, epochs: int, steps_per_epoch: int) -> float | Callable[[jax.Array], jax.Array]:
    """The probability of drop path at every step; a plain zero where nothing in the network is random."""
    if not recipe.drop_path and not recipe.dropout:
        return 0.0
    return lambda step: recipe.drop_path * (step // steps_per_epoch) / epochs


def without_norms(params):
    """Which weights decay when those of normalisation do not: all but their scales and offsets."""

    def decays(path, leaf):
        *_, layer, name = ("", *(entry.key for entry in path))
        return not ("norm" in layer and name in ("scale", "bias"))

    return jax.tree_util.tree_map_with_path(decays, params)


def prepare(config: Config) -> Training:
    """The data, the network and one rehearsed step.

    Raises:
      UserError: what `make_plan` refuses, or a network that does not fit the images or the memory.
    """
    loaded = batches.load_data(config.data)
    images = batches.split_data(loaded, config.data, config.seed)
    joined = batches.all_training(images)
    plan = make_plan(config, loaded.num_classes, joined)
    setting = common.Setting(config, loaded, images, plan.space, judge=None)
    trainer = plan.trainer
    common.rehearse(setting, lambda key, batch: trainer.step(key, trainer.init(key, batch[0]), batch), plan.recipe)
    return Training(plan, config.data, loaded, images, joined)


def main(run: Run, training: Training) -> None:
    """Train, test, write."""
    plan, config_data, loaded, images, joined = training
    recipe, network, trainer = plan.recipe, plan.network, plan.trainer
    test = data.Examples(*map(jnp.asarray, loaded.test))

    # Training batches, cut out after they are cropped and mirrored.
    def draw(key, step, loop_data):
        joined, images = loop_data
        x, y = batches.training_batch(key, joined, step, recipe.batch_size, images, config_data)
        key_cutout = jax.random.fold_in(jax.random.fold_in(key, step), 1)
        return (data.cutout(key_cutout, x, length=recipe.cutout) if recipe.cutout else x), y

    # The first batch has the shapes from which weights are drawn.
    def init(key, loop_data):
        *rest, key_data = loop_data
        return trainer.init(key, draw(key_data, 0, rest)[0])

    def step(key, state, loop_data):
        *rest, key_data = loop_data
        return trainer.step(key, state, draw(key_data, state.step, rest))

    @jax.jit
    def test_accuracy(variables, test, mean, std):
        prepare = lambda x: data.to_float(x, mean, std)  # noqa: E731
        predict = lambda variables, _, x: network.apply(variables, x)[0]  # noqa: E731
        return judge(predict, prepare=prepare, score=train.hits, batch_size=500)(variables, None, *test)

    # The training, then the first look at the test examples.
    watch = Watch(show=("loss", "accuracy"))
    loop_data = (joined, images, run.key("retrain/data"))
    meta = {"space": plan.space.about.name}
    state = run.phase("retrain", init, step, plan.steps, data=loop_data, watch=watch, meta=meta)
    accuracy = float(run.once("test", lambda: float(test_accuracy(state.variables, test, images.mean, images.std))))
    outcome.refuse_nan("the trained network", accuracy if state.bad < state.step else math.nan)
    record = write(run, plan, state.variables, loaded, images)
    run.finish(
        {
            "system": "retrain",
            "data": config_data.name,
            "steps": plan.steps,
            "recipe": dataclasses.asdict(recipe),
            "search": {"val_accuracy": None},
            "child": {
                "val_accuracy_inherited": None,
                "test_accuracy_retrained": accuracy,
                "parameters": record["parameters"],
                "macs": record["macs"],
            },
            "baseline": {
                "random_test_accuracy_mean": None,
                "random_test_accuracy_std": None,
                "random_children": 0,
            },
        }
    )


def write(run: Run, plan: Plan, variables, loaded: data.Data, images: data.SearchData) -> dict[str, Any]:
    """Writes the weights, the architecture and the pictures; the auxiliary head, which only helps to train, stays out.

    Returns:
      The content of `architecture.json`.
    """
    without_head = {
        name: {part: leaf for part, leaf in tree.items() if part != "auxiliary"} for name, tree in variables.items()
    }
    export.save_variables(run.path / "network.safetensors", without_head)
    record = export.architecture_record(
        plan.space,
        plan.arch,
        image_shape=loaded.image_shape,
        num_classes=loaded.num_classes,
        mean=images.mean.tolist(),
        std=images.std.tolist(),
        network=plan.form,
    )
    run.save_json("architecture.json", record)
    pictures.draw(plot.architecture, run.path / "architecture.png", plan.space.about, plan.arch)
    outcome.draw_curves(run)
    return record


def smoke(config: Config) -> Config:
    """The same configuration, small."""
    recipe = dataclasses.replace(config.recipe, epochs=1, batch_size=16, auxiliary=False, cutout=2)
    return dataclasses.replace(common.smoke(config), recipe=recipe)


if __name__ == "__main__":
    script(main, PRESETS, system="retrain", prepare=prepare, smoke=smoke)
