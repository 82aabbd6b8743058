"""NAS-RL on images: a controller writes convolutional networks layer by layer, and learns from their accuracy.

  python -m experiments.nas_rl [digits | fashion-mnist | cifar10] [--search.ppo-steps 4] [--smoke]
  python -m experiments.nas_rl digits --search.route farm --search.workers 2 --search.replicas 2

Zoph and Le (2017, arXiv 1611.01578). Every child is trained from scratch; the reward is the cube of the best of its
last five validation accuracies, and a child that diverges earns nothing. Networks grow deeper as the search goes on.
Random search trains as many children of the same depths: its controller has parameters of zero and never moves.

The best child of each search is trained anew and tested. That of the controller then goes through the final grid and
the ablation of its skip connections, and where every search's result goes: trained beside random networks, and written
to disk. `history/` holds every child; `history.png` and `top.png` draw them, and `architecture.png` has the skips.

Children are trained on a canvas, which is one program for all networks of a depth, or on a farm, with a program for
each. A run that is killed during a batch resumes inside that batch. With `--search.replicas R`, up to `R` batches train
on the farm at once.

digits: about ten minutes on two quiet cores, by the time of its steps; it has not been run whole on a quiet machine.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches, common, final_grid, generations, nas_rl_children, outcome, pictures, repeats, skips
from experiments.configs.nas_rl import PRESETS, Config
from jaxnas import plot
from jaxnas.base import Arch, BlackBox, SearchSpace
from jaxnas.errors import UserError
from jaxnas.policies import controller
from jaxnas.population import Family, Recipe, own_family, resolve
from jaxnas.run import History, Run, script, search, split_cpu
from jaxnas.searchers import PPO, accuracy_cubed, depth_schedule, nas_rl, sgd_l2
from jaxnas.spaces.nas_rl import nas_rl_prefix, nas_rl_tokens

METHODS = ("nas_rl", "random_search")
TOPS = (1, 5, 15)  # the paper's figure 6 draws means of so many best children


def make_searcher(method: str, config: Config, space: SearchSpace) -> BlackBox:
    """The controller's search, or random search in the form of a controller that is uniform and learns nothing."""
    form, layers, learns = config.search, config.layers, method == "nas_rl"
    sizes = layers.first_layers, layers.more_layers, layers.grow_every, layers.last_layers
    growth = depth_schedule(*sizes, nas_rl_children.tokens_per_layer(space))
    tokens, scale = nas_rl_tokens(space), {} if learns else {"scale": 0.0}
    return nas_rl(
        lambda length: controller(space.choices, tokens, length=length, **scale),
        optax.adam(form.controller_rate) if learns else optax.set_to_zero(),
        batch_size=form.batch,
        reward=accuracy_cubed,
        baseline_decay=form.baseline_decay,
        ppo=PPO(form.ppo_clip, form.ppo_steps) if learns and form.ppo_steps else None,
        growth=growth,
        staleness=form.staleness if learns else 0,
        replicas=form.replicas,
    )


def setting_of(config: Config, loaded: Any, images: Any, num_layers: int) -> common.Setting:
    """What the parts of the script share, with the space of networks of so many layers."""

    def build(**changes: Any) -> SearchSpace:
        return nas_rl_children.build(config, loaded.num_classes, num_layers, **changes)

    return common.Setting(config, loaded, images, build(), common.make_judge(build, images))


def prepare(config: Config) -> common.Setting:
    """The data and the space of the deepest networks, after a look at everything that the searches will need."""
    form, layers = config.search, config.layers
    # Names and numbers of the configuration.
    split_cpu(config.devices)
    resolve(form.strategy)
    if form.children % form.batch:
        raise UserError(f"search.children is {form.children}, expected a multiple of batch, {form.batch}")
    if layers.last_layers < layers.first_layers:
        least = layers.first_layers
        raise UserError(f"layers.last_layers is {layers.last_layers}, expected at least the {least} of first_layers")
    if form.replicas > 1 and nas_rl_children.route_of(config) == "canvas":
        raise UserError(f"search.replicas is {form.replicas}, which needs the route farm, got canvas")
    # The data and the space.
    loaded = batches.load_data(config.data)
    images = batches.split_data(loaded, config.data, config.seed)
    setting = setting_of(config, loaded, images, layers.last_layers)
    for method in METHODS:
        make_searcher(method, config, setting.space)
    nas_rl_children.make_recipe(config, images)
    # What follows the search.
    batches.num_steps("grid.", config.grid, images.weights)
    for name in ("skips", "retrain"):
        batches.num_steps(f"{name}.", getattr(config, name), batches.all_training(images))
    common.rehearse_children(setting, form, max(form.batch, 1 + config.retrain.random_children))
    return setting


def search_all(run: Run, setting: common.Setting) -> dict[str, History]:
    """By method the history of its search."""
    form, found = setting.config.search, {}
    train = nas_rl_children.canvas_trainer(run, setting)
    for method in METHODS:
        black_box, meta = make_searcher(method, setting.config, setting.space), {"space": setting.space.about.name}
        with nas_rl_children.evaluator(run, setting, method, train) as (evaluate, seconds):
            asks = form.children // form.batch
            _, history = search(run, method, black_box, evaluate, asks, in_flight=form.replicas, meta=meta)
            # The clock of a search that was resumed has seen the rest of a batch alone.
            history = history._replace(seconds=seconds(history))
        if not history.good.any():
            raise UserError(f"{method}: no child has an error that is finite, so nothing was found")
        found[method] = history
    return found


def is_new(history: History) -> np.ndarray:
    """Whether a network is proposed for the first time, bool `[T]`; its depth is a part of it."""
    return repeats.is_new({"length": history.origins["length"], **history.archs})


def top_errors(history: History, count: int) -> np.ndarray:
    """The mean error of the best `count` different networks so far, `[T]`; NaN until there are so many.

    A network that is proposed again does not count again, so that a search cannot fill the top with one network.
    """
    return plot.top_means(np.where(is_new(history), generations.first_objective(history), np.nan), count)


def best_child(setting: common.Setting, history: History) -> tuple[common.Setting, Arch]:
    """The child with the least error in the space of its depth, and the parts of the script with that space."""
    best = generations.best_number(history)
    num_layers = int(history.origins["length"][best]) // nas_rl_children.tokens_per_layer(setting.space)
    arch = nas_rl_prefix(common.child(history.archs, best), num_layers)
    return setting_of(setting.config, setting.loaded, setting.images, num_layers), arch


def verify(run: Run, found: dict[str, tuple[common.Setting, Arch]]) -> dict[str, list[float]]:
    """By method the test accuracies of its best child, trained anew with seeds that no child had."""
    tested = {}
    for method, (setting, arch) in found.items():
        form, test = setting.config.search, setting.loaded.test
        seeds = form.children + np.arange(form.verified)
        examples = nas_rl_children.examples_of(setting.images, {"test": test})
        recipe = nas_rl_children.make_recipe(setting.config, setting.images)
        name = f"verified/{method}"
        tested[method] = nas_rl_children.train_alone(run, setting, name, arch, seeds, examples, recipe)["test"]
    return tested


def train_grid(run: Run, setting: common.Setting, arch: Arch) -> final_grid.Grid:
    """The best network with every combination of learning rate, decay, epsilon and epoch at which the rate falls."""
    form, images = setting.config.grid, setting.images
    steps, reference = batches.num_steps("grid.", form, images.weights), nas_rl_children.num_reference(images)

    def tx(rates):
        falls = jnp.round(rates["decay_at"] * form.epochs) * (steps // form.epochs)
        rate = lambda step: rates["learning_rate"] * jnp.where(step < falls, 1.0, 0.1)  # noqa: E731
        return sgd_l2(rate, weight_decay=rates["weight_decay"], clip=None, nesterov=True)

    # A family for each epsilon, which is a constant of the program; a point picks that of its own.
    epsilons = jnp.asarray(form.epsilon, jnp.float32)
    families = [own_family(setting.space, arch, reference=reference, eps=float(eps)) for eps in form.epsilon]

    def family(settings: final_grid.Settings) -> Family:
        number = jnp.argmin(jnp.abs(epsilons - settings["epsilon"]))
        apply, judge = (
            lambda *given, field=field: jax.lax.switch(number, [getattr(one, field) for one in families], *given)
            for field in ("apply", "judge")
        )
        return Family(families[0].init, apply, judge, reference)

    recipe = Recipe(tx, steps, form.batch_size, prepare=common.prepare_images(images, setting.config.data))
    examples = nas_rl_children.examples_of(images, {"validation": images.policy})
    grid = {name: getattr(form, name) for name in ("learning_rate", "weight_decay", "epsilon", "decay_at")}
    options = {"test": tuple(setting.loaded.test), "error_of": lambda accuracy: 1 - accuracy, "repeats": form.repeats}
    return final_grid.final_grid(run, "grid", family, arch, examples, recipe, grid, **options)


def summaries(found: dict[str, History], depths: dict[str, int], tested: dict[str, list[float]]) -> dict[str, Any]:
    """The numbers of each method."""
    rows = {}
    for method, history in found.items():
        errors = generations.first_objective(history)
        rows[method] = {
            "best_error": float(errors.min()),
            "best_layers": depths[method],
            "top_errors": {count: float(top_errors(history, count)[-1]) for count in TOPS if count <= len(errors)},
            "test_accuracies": tested[method],
            "diverged": int((~history.good).sum()),
            **generations.counts(history, is_new(history)),
        }
    return rows


def draw(run: Run, setting: common.Setting, found: dict[str, History]) -> None:
    """Every child with the least error so far, and the paper's comparison: means of the best so far."""
    title = f"{setting.config.data.name}, {setting.space.about.name}"
    errors = {method: generations.first_objective(history) for method, history in found.items()}
    labels = {"xlabel": "children", "ylabel": "validation error", "title": title}
    pictures.draw(plot.history, run.path / "history.png", errors, **labels)
    tops = {
        f"{method}, top {count}": 1 - top_errors(history, count)[None]
        for count in TOPS
        if count <= setting.config.search.children
        for method, history in found.items()
    }
    labels = {"xlabel": "children", "ylabel": "mean validation accuracy of the best so far", "title": title}
    pictures.draw(plot.progress, run.path / "top.png", np.arange(1, setting.config.search.children + 1), tops, **labels)


def main(run: Run, setting: common.Setting) -> None:
    """Search, test what each search found, draw, go through the grid and the ablation, retrain, write."""
    config = setting.config
    found = search_all(run, setting)
    best = {method: best_child(setting, history) for method, history in found.items()}
    # Train the best anew, with seeds that no child had, and test it, because the smallest of many noisy validation
    # errors underestimates the true error.
    tested = verify(run, best)
    draw(run, setting, found)
    depths = {method: one.space.choices["filters"].shape[0] for method, (one, _) in best.items()}
    rows = summaries(found, depths, tested)
    # The network of the controller: the final grid, the ablation, and where the result of every search goes.
    shallow, arch = best["nas_rl"]
    grid = train_grid(run, shallow, arch)
    ablation = skips.ablation(run, shallow, arch) if config.skips.seeds else None
    outcome.conclude(
        run,
        shallow,
        "nas_rl",
        arch,
        steps=len(found) * config.search.children * nas_rl_children.make_recipe(config, setting.images).steps,
        search={
            "method": "nas_rl",
            "val_accuracy": 1 - rows["nas_rl"]["best_error"],
            "genotype": shallow.space.about.genotype(arch),
            "methods": rows,
            "final_grid": grid.summary(),
            "skips": ablation,
        },
        inherited=None,
    )


def smoke(config: Config) -> Config:
    """The same searches, a few children, layers and steps on synthetic images."""
    small = common.smoke(config)
    return dataclasses.replace(
        small,
        layers=dataclasses.replace(
            small.layers, filters=(2, 3), kernels=(1, 3), first_layers=2, more_layers=1, grow_every=4, last_layers=3
        ),
        search=dataclasses.replace(small.search, children=8, batch=4, verified=2),
        grid=dataclasses.replace(small.grid, weight_decay=(1e-4,), epsilon=(1e-5,), epochs=2, batch_size=16, repeats=1),
        skips=dataclasses.replace(small.skips, seeds=min(2, small.skips.seeds), epochs=1, batch_size=16),
    )


if __name__ == "__main__":
    script(main, PRESETS, system="nas_rl", prepare=prepare, smoke=smoke)
