"""The final grid: every point has its settings, the validation examples choose, and the test is the chosen point's."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import common, final_grid
from jaxnas.errors import UserError
from jaxnas.population import Family, PopulationData, Recipe
from jaxnas.run import Run

GRID = {"learning_rate": (0.5, 1.0), "start": (1.0, 4.0, 9.0)}
ARCH = {"choice": np.array([2], np.int32)}
INPUTS = np.zeros((4, 1), np.float32)


def mean_output(outputs, targets):
    """The score of these tests: the mean output plus the targets, so that parts of the data can shift it."""
    return jnp.mean(outputs) + jnp.mean(targets)


def line(settings):
    """A network of one weight, which starts at a setting; its output is the weight times the choice."""
    return Family(
        lambda key, arch, x: settings["start"],
        lambda params, arch, x: params * arch["choice"][0] + 0 * x[:, 0],
    )


def recipe(**changes):
    """Two steps of SGD on the output itself, whose gradient is the choice."""

    def tx(rates):
        return optax.sgd(rates["learning_rate"])

    settings = {"loss": lambda outputs, targets: jnp.mean(outputs), "score": mean_output, **changes}
    return Recipe(tx, 2, 4, judge_batch=4, **settings)


def run_grid(folder, *, validation=0.0, test=0.0, **options):
    data = PopulationData((INPUTS, np.zeros(4)), {"validation": (INPUTS, np.full(4, validation))})
    options = {"grid": GRID, "recipe": recipe(), **options}
    with Run(folder, writers=()) as run:
        return final_grid.final_grid(
            run, "grid", line, ARCH, data, options.pop("recipe"), options.pop("grid"),
            test=(INPUTS, np.full(4, test)), **options,
        )  # fmt: skip


def by_hand(point):
    """The output after two steps: w = start - 2 * rate * choice, times the choice of 2."""
    return 2 * (point["start"] - 2 * point["learning_rate"] * 2)


def test_every_point_is_trained_with_its_settings_and_the_best_is_tested(tmp_path):
    found = run_grid(tmp_path, validation=10.0, test=100.0)
    pairs = itertools.product(*GRID.values())
    assert found.points == [{"learning_rate": rate, "start": start} for rate, start in pairs]
    np.testing.assert_allclose(found.validation, [by_hand(point) + 10 for point in found.points], rtol=1e-6)
    assert found.points[found.best] == {"learning_rate": 1.0, "start": 1.0}
    np.testing.assert_allclose(found.test, [by_hand(found.points[found.best]) + 100], rtol=1e-6)
    summary = found.summary()
    assert (summary["best"], len(summary["grid"])) == ({"learning_rate": 1.0, "start": 1.0}, 6)
    assert summary["test_mean"] == found.test[0]
    np.testing.assert_allclose(2 * found.params, by_hand(found.points[found.best]), rtol=1e-6)


def test_larger_scores_are_better_where_the_error_says_so(tmp_path):
    found = run_grid(tmp_path, error_of=lambda score: 1 - score)
    assert found.points[found.best] == {"learning_rate": 0.5, "start": 9.0}


def fake_training(monkeypatch, validation, test):
    """A population whose scores are given, and a test that answers by the number of the member."""
    params = {"w": np.arange(len(validation))}

    def train(run, name, family, archs, data, recipe, **settings):
        assert "test" not in data.parts
        return SimpleNamespace(score={"validation": np.array(validation)[:, None]}, params=params)

    monkeypatch.setattr(common, "train_networks", train)
    monkeypatch.setattr(final_grid, "make_test", lambda *_: lambda params, archs, number, examples: test[number])


def test_the_choice_is_by_validation_and_by_the_mean_over_repeats(tmp_path, monkeypatch):
    # The point that is best on the test examples is the worst on those that choose; one lucky repeat does not decide.
    validation, test = [0.1, 0.9, 0.4, 0.4, 0.7, 0.7], [5.0, 4.0, 3.0, 2.0, 0.0, 1.0]
    fake_training(monkeypatch, validation, test)
    found = run_grid(tmp_path, grid={"start": (1.0, 2.0, 3.0)}, repeats=2)
    assert (found.best, found.test, found.params) == (1, [3.0, 2.0], {"w": 2})
    np.testing.assert_allclose(found.validation, [0.5, 0.4, 0.7])


def test_a_point_that_diverges_is_never_chosen(tmp_path, monkeypatch, capsys):
    fake_training(monkeypatch, [np.nan, 0.3], [0.0, 1.0])
    found = run_grid(tmp_path / "one", grid={"start": (1.0, 2.0)})
    assert (found.best, found.test) == (1, [1.0])
    assert np.isnan(found.validation[0])
    assert capsys.readouterr().err == ""
    # Where every point has diverged the result says so: nothing is chosen, nothing is tested, and there are no weights.
    fake_training(monkeypatch, [np.nan] * 4, [0.0, 1.0, 2.0, 3.0])
    found = run_grid(tmp_path / "none", grid={"start": (1.0, 2.0)}, repeats=2)
    assert (found.best, found.params) == (None, None)
    np.testing.assert_array_equal(found.test, [np.nan, np.nan])
    assert found.summary()["best"] is None
    assert np.isnan(found.summary()["test_mean"])
    assert "grid: no point of the grid could be trained" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"grid": {"start": ()}}, {"repeats": 0}])
def test_an_empty_grid_is_refused(options, tmp_path):
    with pytest.raises(UserError, match="at least one point and one repeat"):
        run_grid(tmp_path, **options)


def test_members_are_judged_on_the_test_examples_as_in_their_population(tmp_path):
    """The score of the final test equals what the population itself says of the same examples, reference and all."""
    key = jax.random.key(0)
    inputs = jax.random.normal(key, (8, 3))
    targets = jnp.arange(8) % 3

    def centred(params, arch, x):  # normalised with the statistics of the reference examples at the head of the batch
        return (x - x[:5].mean(0, keepdims=True)) @ params

    family = Family(lambda key, arch, x: jax.random.normal(key, (3, 3)), lambda w, arch, x: x @ w, centred, 5)
    how = Recipe(
        lambda rates: optax.sgd(rates["learning_rate"]),
        3,
        4,
        prepare=lambda key, x: 2 * x + 1,
        judge_batch=3,
        score=optax.softmax_cross_entropy_with_integer_labels,
    )
    data = PopulationData((inputs, targets), {"validation": (inputs, targets)})
    with Run(tmp_path, writers=()) as run:
        found = final_grid.final_grid(
            run, "grid", lambda settings: family, ARCH, data, how, {"learning_rate": (0.1, 0.2)}, test=(inputs, targets)
        )
    np.testing.assert_allclose(found.test, [found.validation[found.best]], rtol=1e-6)
