"""What every search script does around its search: judging by one program, running it, training children."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches
from experiments.configs.parts import NetworkConfig, SizeConfig
from jaxnas import data, train
from jaxnas.base import Arch, Batch, Params, Paths, Searcher, SearchSpace, sparse_paths
from jaxnas.devices import total_memory
from jaxnas.errors import UserError
from jaxnas.run import Run, Watch, compiler_options

REFERENCE = 256  # training examples from which a judged network takes its normalisation statistics

Judge = Callable[[Params, Paths, data.Examples], float]


def make_judge(build: Callable[..., SearchSpace], images: data.SearchData, batch_size: int = 256) -> Judge:
    """A function that gives the accuracy of any paths, compiled once for dense and once for sparse ones.

    The accuracy is NaN where the logits of an example are.

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
    def hits(params, paths, reference, mean, std, x, y, counts):
        x = data.to_float(jnp.concatenate([reference, x]), mean, std)
        logits = space.apply(params, paths, x)[len(reference) :]
        return jnp.sum(jnp.where(counts, train.hits(logits, y), 0.0))

    def judge(params, paths, examples):
        count, correct = len(examples.labels), 0.0
        for start in range(0, count, batch_size):
            rows = np.arange(start, start + batch_size)
            x, y = examples.images[rows % count], examples.labels[rows % count]
            correct += float(hits(params, paths, reference, images.mean, images.std, x, y, rows < count))
        return correct / count

    return judge


class Setting(NamedTuple):
    """What the steps of a script share.

    Attributes:
      config: has `data`, `network` and `seed`, and most have `search` and `retrain`.
      loaded: the data set with its test examples, for the end.
      images: the two parts that a search may see.
      space: the search space.
      judge: from `make_judge`.
    """

    config: Any
    loaded: data.Data
    images: data.SearchData
    space: SearchSpace
    judge: Judge


def prepare(config: Any, build: Callable[..., SearchSpace], *, loaded: data.Data | None = None, **changes) -> Setting:
    """Loads and splits the data and builds the space, `changes` being of the search alone and not of the judge.

    Raises:
      UserError: settings that one of the later parts could not use.
    """
    loaded = batches.load_data(config.data) if loaded is None else loaded
    images = batches.split_data(loaded, config.data, config.seed)
    build = functools.partial(build, num_classes=loaded.num_classes, **dataclasses.asdict(config.network))
    setting = Setting(config, loaded, images, build(**changes), make_judge(build, images))
    if hasattr(config, "retrain"):
        batches.num_steps("retrain.", config.retrain, batches.all_training(images))
        rehearse_children(setting, config.retrain, 1 + config.retrain.random_children)
    return setting


class Study(NamedTuple):
    """What a study over several seeds starts from: its configuration and the data set."""

    config: Any
    loaded: data.Data


def rehearse_search(setting: Setting, searcher: Searcher, recipe: Any) -> None:
    """`rehearse` for a gradient search of `recipe.batch_size`."""
    rehearse(setting, lambda key, batch: searcher.init(key, Batch(batch, batch)), recipe)


def rehearse_children(setting: Setting, recipe: Any, count: int) -> None:
    """`rehearse` for `count` networks that train side by side, with momentum."""
    rehearse(setting, lambda key, batch: setting.space.init(key, batch[0]), recipe, copies=2 * count)


def rehearse(setting: Setting, init: Callable[..., Any], recipe: Any, *, copies: int = 1) -> None:
    """Traces the first state of a search or training without computing it.

    Args:
      setting: of the script.
      init: `(key, (x, y)) -> state`.
      recipe: has `batch_size`.
      copies: how many such states there will be at a time.

    Raises:
      UserError: a space that does not fit the images, or a state that does not fit into memory.
    """
    x = jax.ShapeDtypeStruct((recipe.batch_size, *setting.images.image_shape), jnp.float32)
    y = jax.ShapeDtypeStruct((recipe.batch_size,), jnp.int32)
    state = jax.eval_shape(init, jax.random.key(0), (x, y))
    leaves = [leaf for leaf in jax.tree.leaves(state) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    needed, available = copies * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves), total_memory()
    if available is not None and needed > available:
        sizes = f"{needed / 2**30:.1f} GiB, and the device has {available / 2**30:.1f}"
        raise UserError(f"network: weights and moments take {sizes}; a smaller network is needed")


def run_search(run: Run, setting: Setting, name: str, searcher: Searcher, recipe: Any, watch: Watch) -> Any:
    """Runs a gradient search of `recipe.epochs` as a phase of that name and returns its last state.

    Raises:
      UserError: every step in which the policy should have descended was rejected, so that nothing was found.
    """
    augment = setting.config.data

    def init(key, loop_data):
        images, keys = loop_data
        return searcher.init(key, batches.search_batch(keys, 0, recipe.batch_size, images, augment))

    def step(key, state, loop_data):
        images, keys = loop_data
        batch = batches.search_batch(keys, state.step, recipe.batch_size, images, augment)
        state, info = searcher.step(key, state, batch)
        return state, info._asdict()

    steps = batches.num_steps("search.", recipe, setting.images.weights)
    loop_data = (setting.images, jax.random.split(run.key(f"{name}/data"), 2))
    meta = {"space": setting.space.about.name}
    state = run.phase(name, init, step, steps, data=loop_data, watch=watch, meta=meta)
    if state.bad and not state.policy_steps:
        raise UserError(f"{name}: nothing was found, {state.bad} of {steps} steps were not finite and rejected")
    return state


def train_children(
    run: Run,
    setting: Setting,
    name: str,
    archs: Arch,
    examples: data.Examples,
    recipe: Any,
    tx: Callable[[int], optax.GradientTransformation],
) -> train.ChildrenState:
    """Trains architectures `[P, E]` from scratch side by side, through one compiled program, on the same batches.

    Args:
      run: in whose work directory.
      setting: of the script.
      name: of the phase.
      archs: the architectures.
      examples: those to train on.
      recipe: has `epochs` and `batch_size`.
      tx: the optimiser for a number of steps.
    """
    size, augment = recipe.batch_size, setting.config.data
    steps = batches.num_steps(f"{name}.", recipe, examples)
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

    loop_data = (examples, setting.images, archs, run.key(f"{name}/data"))
    return run.phase(name, init, step, steps, data=loop_data, meta={"space": setting.space.about.name})[1]


def judge_children(setting: Setting, children: train.ChildrenState, examples: data.Examples) -> list[float]:
    """The accuracy of every child; NaN for one of which every step was rejected, since it still has random weights."""
    taught = np.asarray(children.bad < children.step)
    members = [child((children.params, children.archs), number) for number in range(len(taught))]
    return [
        setting.judge(params, sparse_paths(arch), examples) if learned else math.nan
        for (params, arch), learned in zip(members, taught)
    ]


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
