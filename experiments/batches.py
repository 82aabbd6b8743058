"""The data of a script: loaded, split, and drawn in batches."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.configs.parts import DataConfig
from jaxnas import data
from jaxnas.base import Batch
from jaxnas.errors import UserError


def load_data(config: DataConfig) -> data.Data:
    """The data set, shrunk if asked."""
    if config.data_dir is not None and not Path(config.data_dir).expanduser().is_dir():
        raise UserError(f"data.data_dir is {config.data_dir}, which is no folder")
    shrinking = config.pad_to is not None or config.shrink != 1

    def transform(images):
        side = max(images.shape[1:3]) if config.pad_to is None else config.pad_to
        return data.shrink(images, pad_to=side, factor=config.shrink)

    return data.load(config.name, data_dir=config.data_dir, transform=transform if shrinking else None)


def split_data(loaded: data.Data, config: DataConfig, seed: int) -> data.SearchData:
    """The two parts that a search may see; it has no way to the test examples.

    The sizes are two fractions, or two counts where one is above 1.
    """
    side = min(loaded.image_shape[:2])
    if config.crop > side:
        raise UserError(f"data.crop is {config.crop}, expected at most the {side} pixels of an image's side")
    # Two fractions, or two whole counts where one of them is above 1.
    sizes: Any = (float(config.weights), float(config.policy))
    if max(sizes) > 1:
        for field, size in zip(("weights", "policy"), sizes, strict=True):
            if size < 1 or not size.is_integer():
                raise UserError(f"data.{field} is {size:g}, expected a count of at least 1, or two fractions below 1")
        sizes = tuple(int(size) for size in sizes)
    # CIFAR-10's published moments; those of other data are measured.
    known = {"mean": data.CIFAR10_MEAN, "std": data.CIFAR10_STD} if config.name == "cifar10" else {}
    return data.split(loaded, sizes=sizes, seed=seed, **known)


def all_training(images: data.SearchData) -> data.Examples:
    """The examples of both parts together."""
    return data.Examples(*(jnp.concatenate(pair) for pair in zip(images.weights, images.policy, strict=True)))


def steps_per_epoch(examples: data.Examples, batch_size: int) -> int:
    """Full batches in one pass; a batch larger than the data is refused."""
    if not 1 <= batch_size <= len(examples.labels):
        raise UserError(f"batch_size is {batch_size}, expected 1 to the {len(examples.labels)} examples there are")
    return len(examples.labels) // batch_size


def num_steps(prefix: str, recipe: Any, examples: data.Examples) -> int:
    """The steps of `recipe.epochs` passes in batches of `recipe.batch_size`; `prefix` of its fields, for errors."""
    try:
        steps = recipe.epochs * steps_per_epoch(examples, recipe.batch_size)
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from None
    if not 0 < steps < 2**31:
        raise UserError(f"{prefix}epochs is {recipe.epochs}, which makes {steps} steps, expected 1 to {2**31 - 1}")
    return steps


def schedule(prefix: str, recipe: Any, examples: data.Examples) -> dict[str, int]:
    """The arguments of a schedule by epochs, checked as `num_steps` does."""
    return {"epochs": recipe.epochs, "steps_per_epoch": num_steps(prefix, recipe, examples) // recipe.epochs}


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
