"""The children of NAS-RL on images: their space, their recipe, and two ways to train them that give the same fitness.

On a canvas all networks of one depth are a single program with the architecture as an argument. On a farm every child
has a program of its own, in a process beside the script. Both start from the same first weights, see the same batches,
and are judged by the same rule (`jaxnas.population.layer_children`), so that a reward does not depend on the route.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments import batches, common, generations
from experiments.configs.nas_rl import Config, LayersConfig, SearchConfig
from experiments.configs.parts import DataConfig
from jaxnas import data
from jaxnas.base import Arch, SearchSpace
from jaxnas.population import (
    Farm,
    PopulationData,
    Recipe,
    Record,
    layer_family,
    local_processes,
    own_family,
    train_population,
)
from jaxnas.run import Evaluate, History, Run, named_key
from jaxnas.searchers import best_of_last, sgd_l2
from jaxnas.spaces.nas_rl import nas_rl_prefix, nas_rl_space, nas_rl_tokens

Seconds = Callable[[History], np.ndarray]

SETTINGS = ("filters", "kernels", "strides", "order", "pooling", "convolutions", "more_filters")  # of a layer
LAST = 5  # judgements of which the best counts, after each of the last epochs (section 4.1)


def build(config: Config, num_classes: int, num_layers: int, **changes: Any) -> SearchSpace:
    """The configured space of networks with `num_layers` layers."""
    settings = {name: getattr(config.layers, name) for name in SETTINGS}
    return nas_rl_space(num_layers, num_classes, **settings, **changes)


def tokens_per_layer(space: SearchSpace) -> int:
    """The number of tokens that a controller of the space writes for each layer."""
    return len(nas_rl_tokens(space)) // space.choices["filters"].shape[0]


def make_recipe(config: Config, images: data.SearchData) -> Recipe:
    """How every child is trained, and judged after each of its last five epochs."""
    form = config.search
    steps = batches.num_steps("search.", form, images.weights)
    per_epoch = steps // form.epochs
    judged = tuple(range(max(1, form.epochs - LAST + 1) * per_epoch, steps + 1, per_epoch))
    tx = sgd_l2(form.learning_rate, weight_decay=form.weight_decay, clip=None, nesterov=True)
    return Recipe(tx, steps, form.batch_size, judged, common.prepare_images(images, config.data))


def error_of(accuracy: np.ndarray) -> np.ndarray:
    """The fitness of children with accuracies `[..., J]`: one minus the best of the last five, or NaN."""
    return 1 - best_of_last(accuracy, LAST)


def children_key(seed: int, method: str) -> jax.Array:
    """The key of all children of a search; a child folds in its architecture and its id.

    It is not that of the name of the search, because the search itself draws with it.
    """
    return named_key(seed, f"children/{method}")


def examples_of(images: data.SearchData, parts: dict[str, data.Examples]) -> PopulationData:
    """The examples for the weights, beside the parts on which children are judged."""
    return PopulationData(tuple(images.weights), {part: tuple(each) for part, each in parts.items()})


def num_reference(images: data.SearchData) -> int:
    """The number of training examples that give the statistics of a judged network."""
    return min(common.REFERENCE, len(images.weights.labels))


# On a canvas


def canvas_trainer(run: Run, setting: common.Setting) -> Callable[..., np.ndarray]:
    """`(method, ids, archs, origins) -> fitness[n, 1]`: trains a batch of children as a population on the canvas.

    All calls share families and recipe, so that all networks of a depth share a compiled program.
    """
    config, images = setting.config, setting.images
    recipe, per_layer = make_recipe(config, images), tokens_per_layer(setting.space)
    examples = examples_of(images, {"validation": images.policy})

    @functools.cache
    def family(num_layers: int) -> Any:
        space = build(config, images.num_classes, num_layers)
        return layer_family(space, reference=num_reference(images)), space.choices

    def train(method: str, ids: np.ndarray, archs: Arch, origins: Any) -> np.ndarray:
        num_layers, name = int(origins["length"][0]) // per_layer, f"{method}/{ids[0]}"
        networks, choices = family(num_layers)
        trained = common.train_networks(
            run,
            name,
            networks,
            nas_rl_prefix(archs, num_layers),
            examples,
            recipe,
            key=children_key(config.seed, method),
            choices=choices,
            seeds=ids,
            strategy=config.search.strategy,
        )
        generations.keep_seconds(run, name, trained)
        return error_of(trained.score["validation"])[:, None]

    return train


# On a farm


@functools.lru_cache(1)
def _parts_of(text: str) -> tuple[Config, data.SearchData]:
    """The configuration that a farm sends as JSON, and the images that it names."""
    sent = json.loads(text)
    config = Config(
        DataConfig(**sent["data"]),
        LayersConfig(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in sent["layers"].items()}
        ),
        SearchConfig(**sent["search"]),
        seed=sent["seed"],
    )
    return config, batches.split_data(batches.load_data(config.data), config.data, config.seed)


def train_child(
    arch: Arch, seed: int, config: dict[str, Any], *, child_id: int, origin: dict[str, int]
) -> dict[str, Any]:
    """Trains one child in a program of its own, as a population of one; the child function of a farm.

    Args:
      arch: the architecture of the deepest space, of which the child has the first layers.
      seed: the farm's seed for the child, which is not used: its id seeds it, as on the canvas.
      config: the configuration as a dictionary, and the name of the search as `method`.
      child_id: the number of the child in its search.
      origin: `length`, the number of tokens in use.

    Returns:
      `error`, the fitness; `validation`, the judgements, and `seconds` of training, without compilation.
    """
    del seed
    setting, images = _parts_of(json.dumps({name: value for name, value in config.items() if name != "method"}))
    space = build(setting, images.num_classes, setting.layers.last_layers)
    num_layers = int(origin["length"]) // tokens_per_layer(space)
    arch = nas_rl_prefix(arch, num_layers)
    family = own_family(build(setting, images.num_classes, num_layers), arch, reference=num_reference(images))
    trained = train_population(
        children_key(setting.seed, config["method"]),
        family,
        common.copies(arch, 1),
        examples_of(images, {"validation": images.policy}),
        make_recipe(setting, images),
        seeds=np.array([child_id]),
        strategy="map",
    )
    accuracy = trained.score["validation"][0]
    return {"error": float(error_of(accuracy)), "validation": accuracy.tolist(), "seconds": float(trained.seconds[0])}


@contextlib.contextmanager
def farm_evaluator(run: Run, setting: common.Setting, method: str) -> Iterator[tuple[Evaluate, Seconds]]:
    """Like `evaluator`, for children in processes beside the script; records lie under `farm/`."""
    config = setting.config
    sent = {name: dataclasses.asdict(getattr(config, name)) for name in ("data", "layers", "search")}
    with Farm(
        train_child,
        ("error",),
        config={**sent, "seed": config.seed, "method": method},
        seed=config.seed,
        workers=local_processes(config.search.workers),
        directory=run.path / "farm" / method,
        on_progress=lambda done, total: run.check(),
    ) as farm:

        def seconds(history: History) -> np.ndarray:
            # Records of an earlier process are read from their files.
            farm.evaluate(history.ids, history.archs, history.origins)
            return seconds_of([farm.records[int(number)] for number in history.ids], config.search.workers)

        yield farm.submit if config.search.replicas > 1 else farm.evaluate, seconds


def seconds_of(records: Sequence[Record], workers: int) -> np.ndarray:
    """Seconds of training of each child by its record, divided by the processes that train side by side."""
    spent = [record.seconds if record.result is None else record.result["seconds"] for record in records]
    return np.array(spent, float) / workers


def route_of(config: Config) -> str:
    """`"canvas"` or `"farm"`: how the children of this configuration are trained."""
    form = config.search
    return form.route if form.route != "auto" else "farm" if max(form.workers, form.replicas) > 1 else "canvas"


@contextlib.contextmanager
def evaluator(
    run: Run, setting: common.Setting, method: str, train: Callable[..., np.ndarray]
) -> Iterator[tuple[Evaluate, Seconds]]:
    """How a search trains its children by the configured route; the context ends the processes of a farm.

    Args:
      run: the run in whose work directory it happens.
      setting: what the parts of the script share.
      method: the name of the search.
      train: what `canvas_trainer` returns, the same for all searches.

    Yields:
      The evaluator, and a function that tells of a history how many seconds the training of each child took, `[T]`:
      without compilation and the start of processes, and the same after a search was killed and resumed. For a farm
      they are divided by its processes, for a canvas a batch is divided by its children.
    """
    if route_of(setting.config) == "farm":
        with farm_evaluator(run, setting, method) as both:
            yield both
        return
    batch = setting.config.search.batch
    yield functools.partial(train, method), lambda history: generations.seconds_of(run, method, history, batch)


def train_alone(
    run: Run,
    setting: common.Setting,
    name: str,
    arch: Arch,
    seeds: np.ndarray,
    examples: PopulationData,
    recipe: Recipe,
) -> dict[str, list[float]]:
    """Trains one architecture once for each seed in a program of its own.

    Args:
      run: the run in whose work directory it happens.
      setting: what the parts of the script share, with the space of the architecture.
      name: a name that is free in the run.
      arch: the architecture.
      seeds: whole numbers, `[n]`.
      examples: the examples to learn from and those to be judged on.
      recipe: how it is trained.

    Returns:
      By part of the data the score after the last step, one for each seed.
    """
    family = own_family(setting.space, arch, reference=num_reference(setting.images))
    archs = common.copies(arch, len(seeds))
    trained = common.train_networks(run, name, family, archs, examples, recipe, seeds=seeds)
    return {part: score[:, -1].tolist() for part, score in trained.score.items()}
