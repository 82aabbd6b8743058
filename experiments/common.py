"""What every search script does around its search: judging by one program, running it, training children."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches
from experiments.configs.parts import NetworkConfig, SizeConfig
from jaxnas import data, train
from jaxnas.base import Arch, Params, Paths, Searcher, SearchSpace
from jaxnas.policies import categorical
from jaxnas.run import Run, Watch, compiler_options

REFERENCE = 256  # training examples from which a judged network takes its normalisation statistics

Judge = Callable[[Params, Paths, data.Examples], float]


def make_judge(build: Callable[..., SearchSpace], images: data.SearchData, batch_size: int = 256) -> Judge:
    """A function that gives the accuracy of any paths, compiled once for dense and once for sparse ones.

    Normalisation takes its statistics from fixed training examples at the head of every batch, so that each judged
    example counts by itself and no architecture needs a program of its own.

    Args:
      build: `(reference=...) -> space`.
      images: training examples and their mean and standard deviation.
      batch_size: judged examples at a time.
    """
    reference = images.weights.images[:REFERENCE]
    space = build(reference=len(reference))

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def hits(params, paths, reference, mean, std, x, y):
        x = data.to_float(jnp.concatenate([reference, x]), mean, std)
        logits = space.apply(params, paths, x)[len(reference) :]
        return jnp.sum(jnp.argmax(logits, -1) == y)

    def judge(params, paths, examples):
        count, correct = len(examples.labels), 0
        for start in range(0, count, batch_size):
            rows = np.arange(start, start + batch_size)
            y = jnp.where(rows < count, examples.labels[rows % count], -1)
            x = examples.images[rows % count]
            correct += int(hits(params, paths, reference, images.mean, images.std, x, y))
        return correct / count

    return judge


class Setting(NamedTuple):
    """What the steps of a script share.

    Attributes:
      run: the work directory.
      config: has `data`, `network`, `retrain` and `seed`.
      loaded: the data set with its test examples, for the end.
      images: the two parts that a search may see.
      space: the search space.
      judge: from `make_judge`.
    """

    run: Run
    config: Any
    loaded: data.Data
    images: data.SearchData
    space: SearchSpace
    judge: Judge


def prepare(
    run: Run, config: Any, build: Callable[..., SearchSpace], *, loaded: data.Data | None = None, **changes
) -> Setting:
    """Loads and splits the data and builds the space, `changes` being of the search alone and not of the judge."""
    loaded = batches.load_data(config.data) if loaded is None else loaded
    images = batches.split_data(loaded, config.data, config.seed)
    build = functools.partial(build, num_classes=loaded.num_classes, **dataclasses.asdict(config.network))
    return Setting(run, config, loaded, images, build(**changes), make_judge(build, images))


def run_search(setting: Setting, name: str, searcher: Searcher, recipe: Any, watch: Watch) -> Any:
    """Runs a gradient search of `recipe.epochs` as a phase of that name and returns its last state."""
    augment = setting.config.data

    def init(key, loop_data):
        images, keys = loop_data
        return searcher.init(key, batches.search_batch(keys, 0, recipe.batch_size, images, augment))

    def step(key, state, loop_data):
        images, keys = loop_data
        batch = batches.search_batch(keys, state.step, recipe.batch_size, images, augment)
        state, info = searcher.step(key, state, batch)
        return state, info._asdict()

    steps = recipe.epochs * batches.steps_per_epoch(setting.images.weights, recipe.batch_size)
    loop_data = (setting.images, jax.random.split(setting.run.key(f"{name}/data"), 2))
    meta = {"space": setting.space.about.name}
    return setting.run.phase(name, init, step, steps, data=loop_data, watch=watch, meta=meta)


def train_children(
    setting: Setting,
    name: str,
    archs: Arch,
    examples: data.Examples,
    recipe: Any,
    tx: Callable[[int], optax.GradientTransformation],
) -> train.ChildrenState:
    """Trains architectures `[P, E]` from scratch side by side, through one compiled program, on the same batches.

    Args:
      setting: of the script.
      name: of the phase.
      archs: the architectures.
      examples: those to train on.
      recipe: has `epochs` and `batch_size`.
      tx: the optimiser for a number of steps.
    """
    size, augment = recipe.batch_size, setting.config.data
    steps = recipe.epochs * batches.steps_per_epoch(examples, size)
    trainer = train.children(setting.space, tx(steps))

    def init(key, loop_data):
        examples, images, archs, key_data = loop_data
        x, _ = batches.training_batch(key_data, examples, 0, size, images, augment)
        return jnp.zeros((), jnp.int32), trainer.init(key, x, archs)

    def step(key, state, loop_data):
        examples, images, _, key_data = loop_data
        count, children = state
        batch = batches.training_batch(key_data, examples, count, size, images, augment)
        children, info = trainer.step(key, children, batch)
        return (count + 1, children), jax.tree.map(jnp.mean, info)

    loop_data = (examples, setting.images, archs, setting.run.key(f"{name}/data"))
    return setting.run.phase(name, init, step, steps, data=loop_data, meta={"space": setting.space.about.name})[1]


def random_archs(key: jax.Array, space: SearchSpace, count: int) -> Arch:
    """Architectures of the space drawn uniformly over every edge's operations, read by the space's own rule."""
    policy = categorical(space.choices, scale=1.0)
    return jax.vmap(lambda k: space.derive(policy.init(k)))(jax.random.split(key, count))


def child(tree: Any, number: int) -> Any:
    """One member of a tree whose leaves have a leading axis."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def smoke(config: Any) -> Any:
    """The same configuration, small: synthetic images and a handful of steps."""
    tiny = {"data": dataclasses.replace(config.data, name="synthetic:n=96,size=8,classes=3,channels=1", weights=0.5)}
    tiny["data"] = dataclasses.replace(tiny["data"], policy=0.5, pad_to=None, shrink=1)
    if isinstance(getattr(config, "network", None), SizeConfig):
        few = {"nodes": 1, "operations": ("none", "skip_connect", "dil_conv_3x3")}
        changes = few if isinstance(config.network, NetworkConfig) else {}
        tiny["network"] = dataclasses.replace(config.network, channels=4, cells=3, **changes)
    if hasattr(config, "search"):
        tiny["search"] = dataclasses.replace(config.search, epochs=2, batch_size=16)
    if hasattr(config, "retrain"):
        tiny["retrain"] = dataclasses.replace(config.retrain, epochs=1, batch_size=16)
    return dataclasses.replace(config, **tiny)
