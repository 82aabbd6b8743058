"""What every search script does around its search: judging by one program, running it, training children."""

import contextlib
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
from experiments.configs.parts import DataConfig, NetworkConfig, SizeConfig
from jaxnas import data, train
from jaxnas.base import Arch, Batch, Params, Paths, Searcher, SearchSpace, sparse_paths
from jaxnas.devices import total_memory
from jaxnas.errors import UserError
from jaxnas.judge import judge
from jaxnas.population import Family, Population, PopulationData, Recipe, family_of, train_population
from jaxnas.run import Progress, Run, Watch, compiler_options

REFERENCE = 256  # training examples from which a judged network takes its normalisation statistics

Judge = Callable[[Params, Paths, data.Examples], float]


def make_judge(build: Callable[..., SearchSpace], images: data.SearchData, batch_size: int = 256) -> Judge:
    """A function `(params, paths, examples) -> accuracy`, compiled once for dense and once for sparse paths.

    Normalisation takes its statistics from fixed training examples; see `jaxnas.judge.judge`. The accuracy is NaN where
    the logits of an example are.

    Args:
      build: `(reference=...) -> space`.
      images: training examples and their mean and standard deviation.
      batch_size: number of examples that are judged at a time.
    """
    reference = images.weights.images[:REFERENCE]
    space = build(reference=len(reference))

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def accuracy(params, paths, fixed, x, y, count):
        reference, mean, std = fixed
        prepare = lambda x: data.to_float(x, mean, std)  # noqa: E731
        verdict = judge(space.apply, reference=reference, prepare=prepare, score=train.hits, batch_size=batch_size)
        return verdict(params, paths, x, y, count)

    def judged(params, paths, examples):
        size, correct = len(examples.labels), 0.0
        # Batches of one size; the last is filled up with examples that do not count.
        for start in range(0, size, batch_size):
            rows, count = np.arange(start, start + batch_size) % size, min(batch_size, size - start)
            batch = examples.images[rows], examples.labels[rows]
            correct += count * float(accuracy(params, paths, (reference, images.mean, images.std), *batch, count))
        return correct / size

    return judged


class Setting(NamedTuple):
    """The configuration, the data, the space and the judge, which all parts of a script share.

    Attributes:
      config: the configuration, with `data`, `network` and `seed`, and mostly with `search` and `retrain`.
      loaded: the data set with its test examples, which are used after the search.
      images: the two parts of the data that a search may see.
      space: the search space.
      judge: the function that `make_judge` returns.
    """

    config: Any
    loaded: data.Data
    images: data.SearchData
    space: SearchSpace
    judge: Judge


def prepare(config: Any, build: Callable[..., SearchSpace], *, loaded: data.Data | None = None, **changes) -> Setting:
    """Loads and splits the data, builds the space and traces the training of what will be found.

    Args:
      config: the configuration of the script.
      build: `(num_classes=..., **network settings) -> space`.
      loaded: the data set, if it has been loaded already.
      changes: settings of the space that is searched, which the judge's space does not have.

    Raises:
      UserError: settings that a later part of the script could not use.
    """
    loaded = batches.load_data(config.data) if loaded is None else loaded
    images = batches.split_data(loaded, config.data, config.seed)
    # The space that is searched, and the space in which networks are judged.
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
    """Traces the first state of a gradient search in batches of `recipe.batch_size`; see `rehearse`."""
    rehearse(setting, lambda key, batch: searcher.init(key, Batch(batch, batch)), recipe)


def rehearse_children(setting: Setting, recipe: Any, count: int) -> None:
    """Traces the first weights of `count` networks that train together, with momentum; see `rehearse`."""
    rehearse(setting, lambda key, batch: setting.space.init(key, batch[0]), recipe, copies=2 * count)


def rehearse(setting: Setting, init: Callable[..., Any], recipe: Any, *, copies: int = 1) -> None:
    """Traces the first state of a search or training without computing it.

    Args:
      setting: what the parts of the script share.
      init: `(key, (x, y)) -> state`.
      recipe: any object with `batch_size`.
      copies: the number of such states that memory has to hold at a time.

    Raises:
      UserError: a space that does not fit the images, or a state that does not fit into memory.
    """
    # Shapes alone: nothing is computed and nothing allocated.
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

    # Data and keys are arguments of the program, so that they do not become constants.
    steps = batches.num_steps("search.", recipe, setting.images.weights)
    loop_data = (setting.images, jax.random.split(run.key(f"{name}/data"), 2))
    meta = {"space": setting.space.about.name}
    state = run.phase(name, init, step, steps, data=loop_data, watch=watch, meta=meta)
    # A search whose policy never moved has found nothing.
    if state.bad and not state.policy_steps:
        raise UserError(f"{name}: nothing was found, {state.bad} of {steps} steps were not finite and rejected")
    return state


def train_networks(
    run: Run, name: str, family: Family, archs: Arch, examples: PopulationData, recipe: Recipe, **settings: Any
) -> Population:
    """Trains a population in the folder `children/<name>` of a run, with a progress bar.

    A run that was stopped or killed goes on from there, in the midst of a member too, and ends in the same bits.

    Args:
      run: the run in whose work directory it happens.
      name: a name that is free in the run.
      family: the networks.
      archs: the architectures.
      examples: the examples to learn from and be judged on.
      recipe: how every member is trained.
      settings: more arguments of `train_population`; its `key` is that of the name if not given.
    """
    size = len(jax.tree.leaves(archs)[0])
    with contextlib.ExitStack() as stack:
        # The bar is made at the first call, when it is known where a resumed population stands.
        shown: list[Progress] = []

        def on_chunk(done: float, seconds: float) -> None:
            del seconds
            steps = round(done * recipe.steps)
            if not shown:
                shown.append(stack.enter_context(Progress(name, size * recipe.steps, done=steps)))
            shown[0].update(steps - shown[0].done, f"{int(done)} of {size} networks")
            run.check()

        return train_population(
            family=family,
            archs=archs,
            data=examples,
            recipe=recipe,
            directory=run.path / "children" / name,
            save_seconds=run.saving.seconds,
            on_chunk=on_chunk,
            compile_fn=lambda lowered: run.compile(lowered, name),
            **{"key": run.key(name), **settings},
        )


def prepare_images(images: data.SearchData, config: DataConfig) -> Callable[[jax.Array | None, jax.Array], jax.Array]:
    """`Recipe.prepare` for images: cropped and mirrored while training, scaled always."""

    def prepare(key, x):
        return data.to_float(x if key is None else batches.varied(key, x, config), images.mean, images.std)

    return prepare


def train_children(
    run: Run,
    setting: Setting,
    name: str,
    archs: Arch,
    examples: data.Examples,
    recipe: Any,
    tx: Callable[[int], optax.GradientTransformation],
) -> Population:
    """Trains architectures `[P, E]` of the space from scratch, each by itself, and records the loss of every epoch.

    Args:
      run: the run in whose work directory it happens.
      setting: what the parts of the script share.
      name: the name of the population, under which `metrics.jsonl` has a row for each epoch: means over the children.
      archs: the architectures.
      examples: the examples to train on.
      recipe: any object with `epochs` and `batch_size`.
      tx: `(steps) -> optimiser`.

    Returns:
      The population with its weights; it is judged on nothing.
    """
    steps = batches.num_steps(f"{name}.", recipe, examples)
    # The population records its loss at the end of every epoch.
    epochs = tuple(range(steps // recipe.epochs, steps + 1, steps // recipe.epochs))
    prepare = prepare_images(setting.images, setting.config.data)
    how = Recipe(tx(steps), steps, recipe.batch_size, epochs, prepare)
    family, learned = family_of(setting.space), PopulationData(tuple(examples), {})
    # A child runs its operations alone in turn; side by side on one device it would run all of them (`lax.switch`).
    strategy = "shard" if jax.default_backend() == "cpu" and jax.device_count() > 1 else "map"
    found = train_networks(run, name, family, archs, learned, how, keep_params=True, strategy=strategy)

    # One row of metrics for each epoch: means over the children.
    def row(key, epoch, losses):
        failed = np.mean(np.isnan(losses[:, epoch]))
        return epoch + 1, {"epoch": epoch + 1, "loss": np.mean(losses[:, epoch]), "nonfinite": failed}

    run.steps(name, lambda key, losses: 0, row, len(epochs), data=found.loss, meta={"space": setting.space.about.name})
    return found


def judge_children(setting: Setting, found: Population, archs: Arch, examples: data.Examples) -> list[float]:
    """The accuracy of every child; NaN for one that has met a step that was not finite."""
    return [
        setting.judge(child(found.params, number), sparse_paths(child(archs, number)), examples) if good else math.nan
        for number, good in enumerate(found.good)
    ]


def child(tree: Any, number: int) -> Any:
    """One member of a tree whose leaves have a leading axis of members."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def copies(tree: Any, number: int) -> Any:
    """So many times the same tree, stacked on a leading axis."""
    return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], number, 0), tree)


def smoke(config: Any) -> Any:
    """The same configuration, small: synthetic images and a handful of steps."""
    tiny = {"data": dataclasses.replace(config.data, name="synthetic:n=96,size=8,classes=3,channels=1", weights=0.5)}
    tiny["data"] = dataclasses.replace(tiny["data"], policy=0.5, pad_to=None, shrink=1)
    # Of network, search and retraining those that the configuration has.
    if isinstance(getattr(config, "network", None), SizeConfig):
        few = {"nodes": 1, "operations": ("none", "skip_connect", "dil_conv_3x3")}
        changes = few if isinstance(config.network, NetworkConfig) else {}
        tiny["network"] = dataclasses.replace(config.network, channels=4, cells=3, **changes)
    if hasattr(config, "search"):
        tiny["search"] = dataclasses.replace(config.search, epochs=2, batch_size=16)
    if hasattr(config, "retrain"):
        tiny["retrain"] = dataclasses.replace(config.retrain, epochs=1, batch_size=16)
    return dataclasses.replace(config, **tiny)
