"""What every search script does around its search: judging by one program, training children, writing files."""

import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches
from experiments.configs.parts import NetworkConfig, SizeConfig
from jaxnas import costs, data, derive, export, plot, train
from jaxnas.base import Arch, Params, Paths, Searcher, SearchSpace, sparse_paths
from jaxnas.policies import categorical, entropy
from jaxnas.run import Run, Watch, compiler_options
from jaxnas.searchers import coupled_sgd

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


def compare(setting: Setting, arch: Arch) -> tuple[dict[str, Any], dict[str, Any], Params]:
    """Trains the found network beside random ones and tests them all.

    Returns:
      The parts `child` and `baseline` of the result, and the found network's weights.
    """
    run, space, recipe = setting.run, setting.space, setting.config.retrain
    others = random_archs(run.key("random"), space, recipe.random_children)
    archs = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), arch, others)

    def tx(steps):
        rate = optax.cosine_decay_schedule(recipe.learning_rate, steps)
        return coupled_sgd(rate, weight_decay=recipe.weight_decay, clip=recipe.clip)

    trained = train_children(setting, "retrain", archs, batches.all_training(setting.images), recipe, tx)
    test = data.Examples(*map(jnp.asarray, setting.loaded.test))

    def tested():
        members = [child((trained.params, archs), i) for i in range(1 + recipe.random_children)]
        return [setting.judge(params, sparse_paths(member), test) for params, member in members]

    accuracy = run.once("test", tested)
    changes = derive.supernet_changes(space, jax.device_get(arch))
    tables = costs.space_tables(space, setting.loaded.image_shape, **changes)
    found = {name: int(costs.cost(table, jax.device_get(arch))) for name, table in tables.items()}
    random_accuracy = accuracy[1:] or [math.nan]
    baseline = {
        "random_test_accuracy_mean": float(np.mean(random_accuracy)),
        "random_test_accuracy_std": float(np.std(random_accuracy, ddof=1)) if len(accuracy) > 2 else None,
        "random_children": len(accuracy) - 1,
        "random_test_accuracies": accuracy[1:],
    }
    return {"test_accuracy_retrained": accuracy[0], **found}, baseline, child(trained.params, 0)


def write_network(setting: Setting, arch: Arch, params: Params) -> None:
    """Writes the architecture, its picture and its weights with measured normalisation, ready to export."""
    run, space, images = setting.run, setting.space, setting.images
    arch = jax.device_get(arch)
    network, variables = derive.network(space, params, arch)
    x = data.to_float(images.weights.images[:REFERENCE], images.mean, images.std)
    variables = jax.jit(lambda v, x: derive.recalibrate(network, v, x))(variables, x[None])
    export.save_variables(run.path / "network.safetensors", variables)
    normal = {"mean": np.asarray(images.mean).tolist(), "std": np.asarray(images.std).tolist()}
    shape = {"image_shape": images.image_shape, "num_classes": images.num_classes}
    run.save_json(
        "architecture.json",
        export.architecture_record(space, arch, network=derive.supernet_changes(space, arch), **shape, **normal),
    )
    plot.architecture(run.path / "architecture.png", space.about, arch)


def draw_curves(run: Run) -> None:
    """Draws the course of the run from its metrics."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    plot.curves(run.path / "curves.png", [json.loads(line) for line in lines])


def conclude(
    setting: Setting,
    system: str,
    arch: Arch,
    *,
    steps: int,
    search: dict[str, Any],
    inherited: float | None,
    describe: Callable[[Arch], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What follows every search: trains what it found beside random networks, writes all files, ends the run.

    Args:
      setting: of the script.
      system: the name of the script.
      arch: what the search found.
      steps: training steps that the search took.
      search: the part `search` of the result.
      inherited: validation accuracy of `arch` with the weights of the search, where there are such.
      describe: `(arch) -> JSON data`, the part `latency` of the result.
    """
    child, baseline, params = compare(setting, arch)
    write_network(setting, arch, params)
    draw_curves(setting.run)
    found = {"val_accuracy_inherited": inherited, **child}
    whole = {"system": system, "data": setting.config.data.name, "steps": steps, "search": search}
    latency = None if describe is None else setting.run.once("latency", lambda: describe(jax.device_get(arch)))
    return setting.run.finish({**whole, "child": found, "latency": latency, "baseline": baseline})


def search_and_conclude(
    setting: Setting,
    system: str,
    searcher: Searcher,
    evaluate: Callable[[Any], dict[str, Any]],
    *,
    describe: Callable[[Arch], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """A whole gradient search, from its first step to the end of the run.

    Args:
      setting: of the script; its configuration has `search` with `epochs`, `batch_size` and `evaluate_epochs`.
      system: the name of the script.
      searcher: the searcher, whose state has `policy_params` that are logits.
      evaluate: `(state) -> metrics`, among them `val_accuracy_sampled` and `val_accuracy_argmax`.
      describe: see `conclude`.
    """
    search = setting.config.search
    per_epoch = batches.steps_per_epoch(setting.images.weights, search.batch_size)
    watch = Watch(show=("loss", "accuracy"), evaluate=evaluate, evaluate_every=search.evaluate_epochs * per_epoch)
    state = run_search(setting, "search", searcher, search, watch)
    validation = setting.run.once("validation", lambda: evaluate(state))
    found = {"val_accuracy": validation["val_accuracy_sampled"], "entropy": float(entropy(state.policy_params))}
    return conclude(
        setting,
        system,
        searcher.decode(state),
        steps=search.epochs * per_epoch,
        search=found,
        inherited=validation["val_accuracy_argmax"],
        describe=describe,
    )


def spread_table(
    head: str, results: dict[str, list[dict[str, Any]]], columns: Sequence[str], *, mean: str, spread: str
) -> str:
    """Mean and standard deviation over the rows of each result, as Markdown.

    Args:
      head: of the first column.
      results: by name one row per seed.
      columns: which entries of the rows.
      mean: format of a mean.
      spread: format of a standard deviation.
    """
    lines = [f"| {head} | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name, rows in results.items():
        cells = []
        for column in columns:
            values = [row[column] for row in rows]
            beside = f" ± {statistics.stdev(values):{spread}}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):{mean}}{beside}")
        lines.append(f"| {name} (n={len(rows)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def smoke(config: Any) -> Any:
    """The same configuration, small: synthetic images and a handful of steps."""
    tiny = {"data": dataclasses.replace(config.data, name="synthetic:n=96,size=8,classes=3,channels=1", weights=0.5)}
    tiny["data"] = dataclasses.replace(tiny["data"], policy=0.5, pad_to=None, shrink=1)
    if isinstance(getattr(config, "network", None), SizeConfig):
        few = {"nodes": 2, "operations": ("none", "skip_connect", "dil_conv_3x3")}
        changes = few if isinstance(config.network, NetworkConfig) else {}
        tiny["network"] = dataclasses.replace(config.network, channels=4, cells=3, **changes)
    if hasattr(config, "search"):
        tiny["search"] = dataclasses.replace(config.search, epochs=2, batch_size=16)
    if hasattr(config, "retrain"):
        tiny["retrain"] = dataclasses.replace(config.retrain, epochs=1, batch_size=16)
    return dataclasses.replace(config, **tiny)
