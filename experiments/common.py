"""What every search script does around its search: data, judging by one program, training children, writing files."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.configs.parts import DataConfig, NetworkConfig
from jaxnas import costs, data, derive, export, plot, train
from jaxnas.base import Arch, Batch, Params, Paths, SearchSpace, sparse_paths
from jaxnas.policies import categorical
from jaxnas.run import Run, compiler_options
from jaxnas.searchers import coupled_sgd

REFERENCE = 256  # training examples from which a judged network takes its normalisation statistics


def load_data(config: DataConfig) -> data.Data:
    """The data set, shrunk if asked."""
    shrinking = config.pad_to is not None or config.shrink > 1

    def transform(images):
        return data.shrink(images, pad_to=config.pad_to or images.shape[1], factor=config.shrink)

    return data.load(config.name, data_dir=config.data_dir, transform=transform if shrinking else None)


def split_data(loaded: data.Data, config: DataConfig, seed: int) -> data.SearchData:
    """The two parts that a search may see; it has no way to the test examples."""
    sizes: Any = (config.weights, config.policy)
    if max(sizes) > 1:
        sizes = tuple(int(size) for size in sizes)
    known = {"mean": data.CIFAR10_MEAN, "std": data.CIFAR10_STD} if config.name == "cifar10" else {}
    return data.split(loaded, sizes=sizes, seed=seed, **known)


def steps_per_epoch(examples: data.Examples, batch_size: int) -> int:
    """Full batches in one pass; a batch larger than the data is refused."""
    if batch_size > len(examples.labels):
        raise ValueError(f"batch_size is {batch_size}, expected at most the {len(examples.labels)} examples there are")
    return len(examples.labels) // batch_size


def training_batch(key, examples, step, batch_size, images: data.SearchData, config: DataConfig, *, fresh=False):
    """One batch as floats, cropped and mirrored; `fresh` draws with replacement instead of by epochs."""
    take = data.batch_with_replacement if fresh else data.batch
    x, y = take(key, examples, step, batch_size, mean=images.mean, std=images.std)
    key_crop, key_flip = jax.random.split(jax.random.fold_in(key, step))
    x = data.random_crop(key_crop, x, padding=config.crop) if config.crop else x
    return (data.random_flip(key_flip, x) if config.flip else x), y


def search_batch(keys, step, batch_size, images: data.SearchData, config: DataConfig) -> Batch:
    """A batch of each part; the policy's is drawn afresh at every step, as DARTS does."""
    weights = training_batch(keys[0], images.weights, step, batch_size, images, config)
    policy = training_batch(keys[1], images.policy, step, batch_size, images, config, fresh=True)
    return Batch(weights, policy)


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


def random_archs(key: jax.Array, space: SearchSpace, count: int) -> Arch:
    """Architectures of the space drawn uniformly over every edge's operations, read by the space's own rule."""
    policy = categorical(space.choices, scale=1.0)
    return jax.vmap(lambda k: space.derive(policy.init(k)))(jax.random.split(key, count))


def train_children(run: Run, space: SearchSpace, archs: Arch, images: data.SearchData, config, augment: DataConfig):
    """Trains architectures from scratch on all training examples, side by side in one compiled program."""
    joined = data.Examples(*(jnp.concatenate(pair) for pair in zip(images.weights, images.policy, strict=True)))
    per_epoch = steps_per_epoch(joined, config.batch_size)
    total = config.epochs * per_epoch
    tx = coupled_sgd(
        optax.cosine_decay_schedule(config.learning_rate, total), weight_decay=config.weight_decay, clip=config.clip
    )
    trainer = train.children(space, tx)
    loop_data = (joined, images, archs, jax.random.split(run.key("retrain/data"), 2))

    def init(key, loop_data):
        joined, images, archs, keys = loop_data
        x, _ = training_batch(keys[0], joined, 0, config.batch_size, images, augment)
        return jnp.zeros((), jnp.int32), trainer.init(key, x, archs)

    def step(key, state, loop_data):
        joined, images, _, keys = loop_data
        count, children = state
        batch = training_batch(keys[0], joined, count, config.batch_size, images, augment)
        children, info = trainer.step(key, children, batch)
        return (count + 1, children), {"loss": jnp.mean(info["loss"]), "accuracy": jnp.mean(info["accuracy"])}

    return run.phase("retrain", init, step, total, data=loop_data)[1]


def child(tree: Any, number: int) -> Any:
    """One member of a tree whose leaves have a leading axis."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def compare(
    run: Run, space: SearchSpace, judge: Judge, arch: Arch, loaded: data.Data, images: data.SearchData, config: Any
) -> tuple[dict[str, Any], dict[str, Any], Params]:
    """Trains the found network beside random ones and tests them all.

    Returns:
      The parts `child` and `baseline` of the result, and the found network's weights.
    """
    others = random_archs(run.key("random"), space, config.retrain.random_children)
    archs = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), arch, others)
    trained = train_children(run, space, archs, images, config.retrain, config.data)
    test = data.Examples(*map(jnp.asarray, loaded.test))

    def tested():
        count = 1 + config.retrain.random_children
        return [judge(child(trained.params, i), sparse_paths(child(archs, i)), test) for i in range(count)]

    accuracy = run.once("test", tested)
    tables = costs.space_tables(space, loaded.image_shape, affine=False, pool_norm=True)
    found = {name: int(costs.cost(table, jax.device_get(arch))) for name, table in tables.items()}
    random_accuracy = accuracy[1:] or [math.nan]
    baseline = {
        "random_test_accuracy_mean": float(np.mean(random_accuracy)),
        "random_test_accuracy_std": float(np.std(random_accuracy, ddof=1)) if len(accuracy) > 2 else None,
        "random_children": len(accuracy) - 1,
        "random_test_accuracies": accuracy[1:],
    }
    return {"test_accuracy_retrained": accuracy[0], **found}, baseline, child(trained.params, 0)


def write_network(run: Run, space: SearchSpace, arch: Arch, params: Params, images: data.SearchData) -> None:
    """Writes the architecture, its picture and its weights with measured normalisation, ready to export."""
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


def smoke(config: Any) -> Any:
    """The same configuration, small: synthetic images and a handful of steps."""
    tiny = {"data": dataclasses.replace(config.data, name="synthetic:n=96,size=8,classes=3,channels=1", weights=0.5)}
    tiny["data"] = dataclasses.replace(tiny["data"], policy=0.5, pad_to=None, shrink=1)
    if hasattr(config, "network"):
        few = {"nodes": 2, "operations": ("none", "max_pool_3x3", "skip_connect", "dil_conv_3x3")}
        changes = few if isinstance(config.network, NetworkConfig) else {}
        tiny["network"] = dataclasses.replace(config.network, channels=4, cells=3, **changes)
    if hasattr(config, "search"):
        tiny["search"] = dataclasses.replace(config.search, epochs=2, batch_size=16)
    if hasattr(config, "retrain"):
        tiny["retrain"] = dataclasses.replace(config.retrain, epochs=1, batch_size=16)
    return dataclasses.replace(config, **tiny)
