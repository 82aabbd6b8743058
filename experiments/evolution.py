"""Evolution with every child trained from scratch: regularised evolution and NSGA-II beside random search.

  python -m experiments.evolution [digits | fashion-mnist | cifar10] [--search.objectives error macs] [--smoke]
  python -m experiments.evolution fashion-mnist --space darts --settings channels=4 cells=3 nodes=2

Regularised evolution (Real et al. 2019, arXiv 1802.01548), NSGA-II (Deb et al. 2002) and random search train the same
number of children. Each generation is one population, trained side by side and saved under `children/`, so that a run
that is killed in mid-generation goes on there. Draws `history.png` and a front for each objective after the first;
`history/` holds every child. The best child of each search is trained anew and tested; the best of those of the two
evolutions then goes where every search's result goes: trained longer beside random networks, and written to disk.

An architecture that is proposed twice is trained twice, with another seed, since every child has the seed of its id: a
search that took over the first result would keep the luck of it for good.

digits: about three minutes on two cores; figures are in `benchmarks/results/2026-11-25-evolution.md`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches, common, generations, outcome, pictures, repeats
from experiments.configs.evolution import PRESETS, Config
from jaxnas import data, plot
from jaxnas.architectures import one_hot_scores
from jaxnas.base import Arch, BlackBox, SearchSpace
from jaxnas.costs import latency
from jaxnas.describe import network_costs
from jaxnas.errors import UserError
from jaxnas.population import Population, PopulationData, Recipe, family_of, resolve
from jaxnas.run import History, Run, script, search, split_cpu
from jaxnas.searchers import hypervolume, nsga2, pareto_front, random_search, regularized_evolution, sgd_l2
from jaxnas.spaces import registry

OBJECTIVES = ("error", "parameters", "macs", "latency")
METHODS = ("regularized_evolution", "nsga2")
BASELINE = "random_search"


def build(config: Config, num_classes: int, **changes: Any) -> SearchSpace:
    """The configured space."""
    settings = registry.settings_from_text(config.space, config.settings)
    return registry.build(config.space, **{"num_classes": num_classes, **settings, **changes})


def make_searcher(name: str, config: Config, space: SearchSpace) -> BlackBox:
    """A search by name, kept to architectures that the rule of the space can return."""
    form, num_objectives = config.search, len(config.search.objectives)
    if name == "nsga2":
        made = nsga2(space.choices, num_objectives=num_objectives, population_size=form.population_size)
    elif name == BASELINE:
        made = random_search(space.choices, num_objectives=num_objectives, batch_size=form.generation)
    else:
        # Regularised evolution has one objective, the first.
        sizes = {"population_size": form.population_size, "sample_size": form.sample_size}
        alone = regularized_evolution(space.choices, **sizes, batch_size=form.generation)
        made = alone._replace(tell=lambda key, state, archs, fitness: alone.tell(key, state, archs, fitness[:, :1]))

    def rule(arch: Arch) -> Arch:
        return space.derive(one_hot_scores(space.choices, arch))

    def ask(key, state):
        state, archs = made.ask(key, state)
        return state, jax.vmap(rule)(archs)

    return made._replace(ask=ask)


def make_recipe(config: Config, images: data.SearchData) -> Recipe:
    """How every child is trained."""
    form = config.search
    steps = batches.num_steps("search.", form, images.weights)
    rate = optax.cosine_decay_schedule(form.learning_rate, steps)
    tx = sgd_l2(rate, weight_decay=form.weight_decay, nesterov=True)
    return Recipe(tx, steps, form.batch_size, prepare=common.prepare_images(images, config.data))


def make_trainer(run: Run, setting: common.Setting) -> Callable[..., Population]:
    """`(name, archs, seeds, parts) -> Population`: trains children of the space.

    Every call has the same family and recipe, so that all generations of one size share a compiled program.
    """
    config, images = setting.config, setting.images
    reference = min(common.REFERENCE, len(images.weights.labels))
    judged = build(config, images.num_classes, reference=reference)
    family, recipe = family_of(setting.space, judged, reference=reference), make_recipe(config, images)

    def train(name: str, archs: Arch, seeds: np.ndarray, parts: dict[str, data.Examples]) -> Population:
        examples = PopulationData(tuple(images.weights), {part: tuple(each) for part, each in parts.items()})
        settings = {"choices": setting.space.choices, "seeds": seeds, "strategy": config.search.strategy}
        return common.train_networks(run, name, family, archs, examples, recipe, **settings)

    return train


def make_evaluator(run: Run, setting: common.Setting, train: Callable[..., Population], method: str):
    """`(ids, archs, origins) -> fitness[n, M]`: trains a generation and gives each child its objectives."""
    space, shape = setting.space, setting.images.image_shape

    def evaluate(ids, archs, origins):
        del origins  # children inherit nothing
        name = f"{method}/{ids[0]}"
        each = [common.child(archs, number) for number in range(len(ids))]
        costs = [network_costs(space, arch, shape) for arch in each]

        def column(objective: str) -> Any:
            if objective == "error":
                trained = train(name, archs, ids, {"validation": setting.images.policy})
                generations.keep_seconds(run, name, trained)
                return 1 - trained.score["validation"][:, -1]
            if objective == "latency":  # measured once: a second measurement would differ
                measure = lambda: np.median(latency.measure_networks(space, each, shape), axis=0)  # noqa: E731
                return run.once(f"latency/{name}", measure)
            return [cost[objective] for cost in costs]

        return np.stack([np.asarray(column(name), float) for name in setting.config.search.objectives], 1)

    return evaluate


def prepare(config: Config) -> common.Setting:
    """The data and the space, after a look at everything that the searches will need."""
    form = config.search
    # Names and numbers of the configuration.
    split_cpu(config.devices)
    resolve(form.strategy)
    for field, names, known in (("methods", form.methods, METHODS), ("objectives", form.objectives, OBJECTIVES)):
        if not set(names) <= set(known):
            raise UserError(f"search.{field} is {', '.join(names)}, expected some of {', '.join(known)}")
    for field in ("population_size", "generation"):
        if form.children % getattr(form, field):
            raise UserError(
                f"search.children is {form.children}, expected a multiple of {field}, {getattr(form, field)}"
            )
    # The data, the space and the judge.
    loaded = batches.load_data(config.data)
    images = batches.split_data(loaded, config.data, config.seed)
    space = build(config, loaded.num_classes)
    judge = common.make_judge(lambda **changes: build(config, loaded.num_classes, **changes), images)
    setting = common.Setting(config, loaded, images, space, judge)
    # Objectives that the space cannot compute, found on its first architecture.
    first = jax.tree.map(lambda leaf: np.zeros(leaf.shape[0], np.int32), space.choices)
    unknown = {name for name, value in network_costs(space, first, images.image_shape).items() if value is None}
    unknown |= {"latency"} if space.about.network is None else set()
    if unknown & set(form.objectives):
        raise UserError(f"search.objectives: the space {config.space} does not know {', '.join(sorted(unknown))}")
    for method in (*form.methods, BASELINE):
        make_searcher(method, config, space)
    make_recipe(config, images)
    batches.num_steps("retrain.", config.retrain, batches.all_training(images))
    common.rehearse_children(setting, form, max(form.population_size, form.generation))
    return setting


def search_all(run: Run, setting: common.Setting, train: Callable[..., Population]) -> dict[str, History]:
    """By method the history of its search."""
    form, found = setting.config.search, {}
    for method in (*form.methods, BASELINE):
        black_box = make_searcher(method, setting.config, setting.space)
        size = form.population_size if method == "nsga2" else form.generation
        evaluate, meta = make_evaluator(run, setting, train, method), {"space": setting.space.about.name}
        _, history = search(run, method, black_box, evaluate, form.children // size, meta=meta)
        if "error" in form.objectives:
            history = history._replace(seconds=generations.seconds_of(run, method, history, size))
        found[method] = history
        if not found[method].good.any():
            raise UserError(f"{method}: no child has a fitness that is finite, so nothing was found")
    return found


def verify(train: Callable[..., Population], found: dict[str, History], seeds: np.ndarray, test: data.Examples):
    """By method the test accuracies of its best child, trained anew with each of the seeds."""
    tested = {}
    for method, history in found.items():
        archs = common.copies(generations.best_arch(history), len(seeds))
        tested[method] = train(f"{method}/verified", archs, seeds, {"test": test}).score["test"][:, -1].tolist()
    return tested


def summaries(names: tuple[str, ...], found: dict[str, History], tested: dict[str, list[float]]):
    """The numbers of each method, and the reference point of the hypervolumes: the worst child in each objective.

    A hypervolume is a share of the box between that point and zero; there is none for more than three objectives.
    """
    worst = np.concatenate([history.fitness[history.good] for history in found.values()]).max(0)
    rows = {}
    for method, history in found.items():
        # In units of the worst child, so that the reference point is one in every objective.
        scaled = history.fitness / np.where(worst > 0, worst, 1.0)
        rows[method] = {
            "best": dict(zip(names, history.fitness[generations.best_number(history)].tolist(), strict=True)),
            "test_accuracies": tested[method],
            "hypervolume": float(hypervolume(scaled, jnp.ones(len(names)))) if len(names) < 4 else None,
            "not_finite": int((~history.good).sum()),
            **generations.counts(history, repeats.is_new(history.archs)),
        }
    return rows, dict(zip(names, worst.tolist(), strict=True))


def draw(run: Run, setting: common.Setting, found: dict[str, History]) -> None:
    """What each search had found after so many children, and the front of the first and each further objective."""
    names, title = setting.config.search.objectives, f"{setting.config.data.name}, {setting.space.about.name}"
    picture, labels = run.path / "history.png", {"xlabel": "children", "ylabel": names[0], "title": title}
    values = {method: generations.first_objective(history) for method, history in found.items()}
    pictures.draw(plot.history, picture, values, **labels)
    for number, name in enumerate(names[1:], start=1):
        pairs = {method: history.fitness[history.good][:, [0, number]] for method, history in found.items()}
        fronts = {method: pair[np.asarray(pareto_front(jnp.asarray(pair)))] for method, pair in pairs.items()}
        cloud, labels = np.concatenate(list(pairs.values())), {"xlabel": names[0], "ylabel": name}
        pictures.draw(plot.fronts, run.path / f"front_{name}.png", cloud, fronts, **labels, title=title)


def main(run: Run, setting: common.Setting) -> None:
    """Search with every method, test what each found, draw, retrain the best of the evolutions, write."""
    form = setting.config.search
    train = make_trainer(run, setting)
    found = search_all(run, setting, train)
    # The least of many noisy errors is too small: train the best anew, with seeds that no child had, and test it.
    tested = verify(train, found, form.children + np.arange(form.verified), setting.loaded.test)
    draw(run, setting, found)
    rows, worst = summaries(form.objectives, found, tested)
    # The better of the evolutions goes where the result of every search goes.
    method = min(form.methods, key=lambda name: rows[name]["best"][form.objectives[0]])
    error = rows[method]["best"].get("error")
    summary = {"method": method, "val_accuracy": None if error is None else 1 - error}
    outcome.conclude(
        run,
        setting,
        "evolution",
        generations.best_arch(found[method]),
        steps=len(found) * form.children * make_recipe(setting.config, setting.images).steps,
        search={**summary, "objectives": form.objectives, "reference_point": worst, "methods": rows},
        inherited=None,
    )


def smoke(config: Config) -> Config:
    """The same searches, a few children and steps on synthetic images."""
    small = common.smoke(config)
    form = dataclasses.replace(small.search, children=8, population_size=4, sample_size=2, generation=4, verified=2)
    return dataclasses.replace(small, search=form)


if __name__ == "__main__":
    script(main, PRESETS, system="evolution", prepare=prepare, smoke=smoke)
