"""Trains every recurrent cell of base 2 as a small language model and keeps the results as a table.

  XLA_FLAGS=--xla_backend_optimization_level=3 python -m experiments.exhaustive_cells [shakespeare] [--smoke]

The 36,864 cells of NAS-RL (Zoph and Le 2017, 1611.01578) have 10,994 forms (`jaxnas.spaces.nas_rl.symmetry`), of which
10,990 have different outputs; the first cell of each form is trained and stands for all of it. Some forms are trained
with several seeds, which measures the noise of a single run. A network whose training was not finite stays in the table
as one that diverged. Leaves `table.npz`, described in `jaxnas/tabular/data/README.md`. Stopped or killed, it goes on
from the last checkpoint. Level 3 of LLVM's optimisation takes a quarter off the time of these small programs.
"""

import dataclasses
import hashlib
import json
from typing import NamedTuple

import numpy as np

from experiments import common
from experiments.classes import Plan, by_class, draw_members
from experiments.configs.exhaustive_cells import PRESETS, Config
from experiments.text import SYNTHETIC, load_text_data, text_population_data, text_recipe
from jaxnas.data import text as texts
from jaxnas.errors import UserError
from jaxnas.population import Family, Population, Recipe
from jaxnas.run import Run, environment, script
from jaxnas.spaces.nas_rl import RecurrentCellSpace, language_model, recurrent_cell_space
from jaxnas.spaces.nas_rl.symmetry import all_recurrent_cells, cell_representatives
from jaxnas.tabular.cell_table import DIVERGED, MISSING, UNIT

BASE = 2


class Study(NamedTuple):
    """What is trained, how, and on what."""

    config: Config
    plan: Plan
    text: texts.Text
    space: RecurrentCellSpace
    recipe: Recipe


def make_plan(config: Config, space: RecurrentCellSpace) -> Plan:
    """All classes once, in random order, and then some of them with more seeds."""
    first, class_of = np.unique(cell_representatives(space), return_inverse=True)
    members = draw_members(len(first), config)
    return Plan(all_recurrent_cells(space), class_of, first, members[:, 0], members[:, 1])


def make_recipe(config: Config) -> Recipe:
    """The recipe of texts, judged after some steps on the way.

    Raises:
      UserError: a judgement after the last step, which would never be reached.
    """
    late = [step for step in config.judge_steps if step > config.recipe.steps]
    if late:
        raise UserError(f"judge_steps has {late[0]}, expected at most the {config.recipe.steps} of recipe.steps")
    recipe = text_recipe(config.recipe)
    return recipe._replace(judge_at=tuple(sorted({*config.judge_steps, *recipe.judge_at})))


def prepare(config: Config) -> Study:
    """The text, the recipe and the plan."""
    text, recipe, space = load_text_data(config.text), make_recipe(config), recurrent_cell_space(BASE)
    return Study(config, make_plan(config, space), text, space, recipe)


def train(run: Run, study: Study) -> Population:
    """Trains all members, call by call; all cells take the same time, so they train side by side."""
    config, plan, text, space, recipe = study
    model = language_model(space, len(text.vocabulary), config.hidden)
    examples = text_population_data(
        text,
        config.recipe.length,
        validation_windows=config.text.validation_windows,
        test_windows=config.test_windows,
        parts=("validation", "test"),
    )
    return common.train_networks(
        run,
        "networks",
        Family(model.init, model.apply),
        {name: leaf[plan.first[plan.member_class]] for name, leaf in plan.cells.items()},
        examples,
        recipe,
        choices=space.choices,
        seeds=plan.member_seed,
        strategy="vmap",
        chunk=min(config.chunk, len(plan.member_class)),
    )


def units(nats: np.ndarray) -> np.ndarray:
    """Nats as whole numbers of `UNIT`, int32; `DIVERGED` where they are not finite or too large for it."""
    most = np.iinfo(np.int32).max
    with np.errstate(invalid="ignore"):
        scaled = np.rint(nats.astype(np.float64) / UNIT)
        return np.where(scaled < most, scaled, DIVERGED).astype(np.int32)


def make_table(study: Study, found: Population) -> dict[str, np.ndarray]:
    """The arrays of `table.npz`."""
    config, plan, _, space, recipe = study
    about = {"config": dataclasses.asdict(config), **environment()}
    parts = {f"{name}_nats": by_class(plan, units(nats), MISSING) for name, nats in found.score.items()}
    return {
        "version": np.array(1),
        "combinations": np.array(space.about.operations["combination"]),
        "activations": np.array(space.about.operations["activation"]),
        **{name: leaf.astype(np.uint8) for name, leaf in plan.cells.items()},
        "class_of": plan.class_of.astype(np.uint16),
        "steps": np.array(recipe.moments),
        **parts,
        # One network takes as long as any other, and other work on the machine can only add to it.
        "seconds": np.array(np.min(found.seconds), np.float32),
        "about": np.array(json.dumps(about)),
    }


def main(run: Run, study: Study) -> None:
    """Train, write."""
    found = train(run, study)
    path = run.path / "table.npz"
    np.savez_compressed(path, **make_table(study, found))
    seconds, last = float(found.seconds.sum()), found.score["test"][:, -1]
    run.finish(
        {
            "system": "exhaustive_cells",
            "data": study.config.text.path,
            "networks": len(found.good),
            "not_finite": int(np.isnan(last).sum()),
            "training_seconds": round(seconds, 1),
            "networks_per_hour": round(3600 * len(found.good) / seconds),
            "test_nats_median": float(np.nanmedian(last)),
            "test_nats_best": float(np.nanmin(last)),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    )


def smoke(config: Config) -> Config:
    """The same study, a few cells and steps on a made-up text."""
    text = dataclasses.replace(config.text, path=SYNTHETIC, validation_windows=4)
    recipe = dataclasses.replace(config.recipe, steps=4, batch_size=4, length=8)
    return dataclasses.replace(
        config,
        text=text,
        recipe=recipe,
        hidden=4,
        judge_steps=(2,),
        test_windows=4,
        cells=6,
        repeated=2,
        seeds=2,
        chunk=4,
    )


if __name__ == "__main__":
    script(main, PRESETS, system="exhaustive_cells", prepare=prepare, smoke=smoke, default="shakespeare")
