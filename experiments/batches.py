"""The data of a script: loaded, split, and drawn in batches."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.configs.parts import DataConfig
from jaxnas import data
from jaxnas.base import Batch


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


def all_training(images: data.SearchData) -> data.Examples:
    """The examples of both parts together."""
    return data.Examples(*(jnp.concatenate(pair) for pair in zip(images.weights, images.policy, strict=True)))


def steps_per_epoch(examples: data.Examples, batch_size: int) -> int:
    """Full batches in one pass; a batch larger than the data is refused."""
    if batch_size > len(examples.labels):
        raise ValueError(f"batch_size is {batch_size}, expected at most the {len(examples.labels)} examples there are")
    return len(examples.labels) // batch_size


def training_batch(key, examples, step, batch_size, images: data.SearchData, config: DataConfig, *, fresh=False):
    """One batch as floats, cropped and mirrored; `fresh` draws with replacement instead of by epochs."""
    take = data.batch_with_replacement if fresh else data.batch
    x, y = take(key, examples, step, batch_size, mean=images.mean, std=images.std)
    return varied(jax.random.fold_in(key, step), x, config), y


def varied(key, x, config: DataConfig):
    """The images cropped and mirrored at random, where the configuration says so."""
    key_crop, key_flip = jax.random.split(key)
    x = data.random_crop(key_crop, x, padding=config.crop) if config.crop else x
    return data.random_flip(key_flip, x) if config.flip else x


def search_batch(keys, step, batch_size, images: data.SearchData, config: DataConfig) -> Batch:
    """A batch of each part; the policy's is drawn afresh at every step, as DARTS does."""
    weights = training_batch(keys[0], images.weights, step, batch_size, images, config)
    policy = training_batch(keys[1], images.policy, step, batch_size, images, config, fresh=True)
    return Batch(weights, policy)
