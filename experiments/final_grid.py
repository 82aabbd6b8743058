"""The last step of NAS-RL: the best network that was found, trained with every combination of some settings.

Zoph and Le (2017, arXiv 1611.01578, section 4.1) train what their search found with a small grid of the learning rate,
the weight decay, the epsilon of batch normalisation and the epoch at which the rate falls, take the combination that is
best on the validation examples, and report its test result.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxnas.base import Arch, Params, Tree
from jaxnas.errors import UserError
from jaxnas.judge import judge
from jaxnas.population import Family, PopulationData, Recipe
from jaxnas.run import Run
from jaxnas.standard_error import say

Settings = Mapping[str, Any]  # by name a number, or a traced scalar


class Grid(NamedTuple):
    """What became of the `G` points of a grid.

    Attributes:
      points: the settings of each point by name.
      validation: the score of each point on the validation examples after its last step, mean over the repeats; NaN for
        a point of which one repeat met a step that was not finite.
      best: the number of the point whose error on the validation examples is least; None if no point stayed finite.
      test: the scores of the best point on the test examples, one for each repeat; NaN if there is no best point.
      params: the weights of the best point's first network; None if there is no best point.
    """

    points: list[dict[str, float]]
    validation: list[float]
    best: int | None
    test: list[float]
    params: Params | None

    def summary(self) -> dict[str, Any]:
        """The entry of `result.json`: the best point with its test scores, and all points with their validation."""
        tried = [{**point, "validation": score} for point, score in zip(self.points, self.validation, strict=True)]
        return {
            "best": None if self.best is None else self.points[self.best],
            "test": self.test,
            "test_mean": float(np.mean(self.test)),
            "grid": tried,
        }


def points_of(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """All combinations of the values of a grid; the last name changes fastest.

    Example:
      >>> points_of({"learning_rate": (0.1, 0.2), "weight_decay": (0.0,)})
      [{'learning_rate': 0.1, 'weight_decay': 0.0}, {'learning_rate': 0.2, 'weight_decay': 0.0}]
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def settled(family_fn: Callable[[Settings], Family], columns: Mapping[str, np.ndarray]) -> Family:
    """One family for networks that differ in more than their optimiser, such as the range of their first weights.

    The architecture of a member is `{"arch": arch, "member": number}`, and its settings are those at that number.

    Args:
      family_fn: `(settings) -> Family`, given one member's settings as traced scalars.
      columns: by name the settings of all members, each `[M]`.
    """

    def family(arch: Arch) -> Family:
        return family_fn({name: jnp.asarray(values)[arch["member"][0]] for name, values in columns.items()})

    some = family_fn({name: jnp.asarray(values)[0] for name, values in columns.items()})
    return Family(
        lambda key, arch, x: family(arch).init(key, arch["arch"], x),
        lambda params, arch, x: family(arch).apply(params, arch["arch"], x),
        None if some.judge is None else lambda params, arch, x: family(arch).judge(params, arch["arch"], x),
        some.reference,
    )


def final_grid(
    run: Run,
    name: str,
    family_fn: Callable[[Settings], Family],
    arch: Arch,
    data: PopulationData,
    recipe: Recipe,
    grid: Mapping[str, Sequence[float]],
    *,
    test: tuple[jax.Array, jax.Array],
    error_of: Callable[[Any], Any] = lambda score: score,
    repeats: int = 1,
    **settings: Any,
) -> Grid:
    """Trains one architecture with every point of a grid, as one population, and tests the best point.

    The point is chosen by the validation examples alone. The test examples are used only after the point is chosen, and
    only for the networks of that point. If every point has met losses that are not finite, the grid has no best point,
    which a line on standard error says. Members have first weights and an order of examples of their own, so two points
    differ by chance too; `repeats` trains each point several times, and the mean decides.

    Args:
      run: the run in whose work directory it happens; killed and started again, it goes on where it was.
      name: a name that is free in the run.
      family_fn: `(settings) -> Family`, for settings that are not the optimiser's; `settings` has the names of `grid`
        and traced scalars.
      arch: the architecture, one for all.
      data: the examples to learn from, and in `parts["validation"]` those that choose.
      recipe: how every member is trained. Its `tx` is a function of one member's settings, a dictionary with the names
        of `grid`, and its score is one number.
      grid: by name the values of each setting.
      test: the pair `(inputs, targets)` of the test examples.
      error_of: `(score) -> error`, increasing with what is worse; `lambda accuracy: 1 - accuracy` for accuracies.
      repeats: number of trainings of each point, at least 1.
      settings: more arguments of `train_population`.

    Raises:
      UserError: a grid without a point, or fewer than one repeat.
    """
    points = points_of(grid)
    if not points or repeats < 1:
        raise UserError(f"{name}: a grid needs at least one point and one repeat, got {len(points)} and {repeats}")
    # Members: all repeats of the first point, then those of the second.
    seeds, members = np.tile(np.arange(repeats), len(points)), np.arange(len(points) * repeats)
    columns = {field: np.repeat(np.array([point[field] for point in points], np.float32), repeats) for field in grid}
    tiled = common.copies(arch, len(members))
    archs, family = {"arch": tiled, "member": members[:, None]}, settled(family_fn, columns)
    settings = {"rates": columns, "seeds": seeds, "keep_params": True, **settings}
    trained = common.train_networks(run, name, family, archs, data, recipe, **settings)

    # The choice, by the validation examples after the last step.
    validation = trained.score["validation"][:, -1].reshape(len(points), repeats).mean(1)
    errors = np.asarray(error_of(validation), float)
    if not np.isfinite(errors).any():
        say(f"{name}: no point of the grid could be trained without losses that are not finite, so nothing is tested")
        return Grid(points, validation.tolist(), None, [math.nan] * repeats, None)
    best = int(np.argmin(np.where(np.isfinite(errors), errors, np.inf)))
    # The test, of the networks of the chosen point.
    chosen = range(best * repeats, (best + 1) * repeats)
    score = make_test(family, data, recipe)
    tested = run.once(f"{name}/test", lambda: [score(trained.params, archs, number, test) for number in chosen])
    test_scores = [float(value) for value in tested]  # JSON has NaN as text
    return Grid(points, validation.tolist(), best, test_scores, common.child(trained.params, chosen[0]))


def make_test(family: Family, data: PopulationData, recipe: Recipe) -> Callable[..., float]:
    """`(params, archs, number, (inputs, targets)) -> score` of one member, judged as its population is."""
    verdict = judge(
        family.judge or family.apply,
        reference=data.train[0][: family.reference] if family.reference else None,
        prepare=None if recipe.prepare is None else functools.partial(recipe.prepare, None),
        score=recipe.score,
        batch_size=recipe.judge_batch,
    )
    program = jax.jit(verdict)

    def score(params: Tree, archs: Arch, number: int, examples: tuple[jax.Array, jax.Array]) -> float:
        member = jax.tree.map(jnp.asarray, (common.child(params, number), common.child(archs, number)))
        return float(program(*member, *map(jnp.asarray, examples)))

    return score
