"""The benchmark of estimators: its exact gradients and statistics against known ones, its counts and its files."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import estimator_plots, estimator_variance, problems, supernets, truth
from jaxnas.estimators import exact
from jaxnas.policies import categorical

MIXED = {"a": jnp.array([[0.4, -0.7, 1.1], [0.2, 0.3, -1.0]]), "b": jnp.array([[0.8, -0.2]])}


def measured(text, cases, draws):
    """The only result of one estimator at one case."""
    (result,) = estimator_variance.measure([estimator_variance.parse_spec(text)], cases, draws)
    return result


def enumerated(case):
    """Value and gradient by the library's own oracle."""

    @jax.jit
    def run(logits, params):
        found = exact(categorical(logits), dense=False).estimate(None, (), logits, case.loss_fn, params)[1]
        return found.value, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found.policy_grads)])

    return run(case.logits, case.params)


# Exact gradients


@pytest.mark.parametrize("name", ["golden", "golden_binary", "three_edge", "three_edge_binary"])
def test_closed_form_is_the_enumerated_gradient_of_the_toys(name):
    (case,) = problems.PROBLEMS[name].cases(None)
    value, grads = enumerated(case)
    np.testing.assert_allclose(case.value, value, rtol=1e-5)
    np.testing.assert_allclose(case.truth, grads, atol=2e-6)


def test_closed_form_of_decisions_with_different_numbers_of_options():
    def loss_fn(paths, params):
        dense = jax.tree.map(
            lambda leaf, i, w: jnp.einsum("ek,ekn->en", w, jax.nn.one_hot(i, leaf.shape[-1])),
            MIXED,
            paths.index,
            paths.weight,
        )
        return jnp.sin(dense["a"][0] @ jnp.arange(3.0)) * dense["a"][1, 2] + dense["b"][0, 1] * dense["a"][0, 1], {}

    value, grads = truth.closed_form(truth.all_losses(loss_fn, {}, MIXED), MIXED)
    found = exact(categorical(MIXED), dense=False).estimate(None, (), MIXED, loss_fn, {})[1]
    np.testing.assert_allclose(value, found.value, rtol=1e-5)
    expected = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found.policy_grads)])
    np.testing.assert_allclose(grads, expected, atol=1e-6)


@pytest.mark.slow
def test_supernet_at_moments_of_a_search(tmp_path, monkeypatch):
    few = supernets.Search(channels=2, operations=("none", "nor_conv_1x1"), batch=8, moments=(0, 3))
    first, last = supernets.supernet(tmp_path, few)
    value, grads = enumerated(last)
    np.testing.assert_allclose(last.value, value, rtol=1e-5)
    np.testing.assert_allclose(last.truth, grads, atol=1e-5)
    assert np.abs(first.logits["cell"] - last.logits["cell"]).max() > 0.01
    result = measured("gdas", [last], 4)
    assert (result.draws, result.evaluations, result.mean.shape) == (4, 1, (12,))
    monkeypatch.setattr(supernets, "_moments", None)  # nothing is searched or evaluated a second time
    again = supernets.supernet(tmp_path, few)
    np.testing.assert_array_equal([case.truth for case in again], [first.truth, last.truth])


# Statistics


def test_tally_is_that_of_numpy_and_leaves_out_what_is_not_finite():
    rng = np.random.default_rng(0)
    truth, draws = np.array([1.0, -2.0, 0.5]), rng.normal(1.0, 2.0, (1000, 3))
    tally = estimator_plots.Tally(truth)
    tally.add(np.concatenate([draws[:400], np.full((2, 3), np.nan)]).astype(np.float32))
    tally.add(np.concatenate([draws[400:], [[0.0, np.inf, 0.0]]]))
    assert (tally.count, tally.nonfinite) == (1000, 3)
    found = tally.figures()
    bias = draws.mean(0) - truth
    assert found["variance"] == pytest.approx(np.trace(np.cov(draws.T)), rel=1e-5)
    assert found["mse"] == pytest.approx(np.mean(np.sum((draws - truth) ** 2, -1)), rel=1e-5)
    assert found["bias"] == pytest.approx(np.linalg.norm(bias), rel=1e-5)
    error = draws.std(0, ddof=1) / np.sqrt(1000)
    assert found["error"] == pytest.approx(np.linalg.norm(error), rel=1e-5)
    assert found["max_z"] == pytest.approx(np.abs(bias / error).max(), rel=1e-4)
    cosines = draws @ truth / np.linalg.norm(draws, axis=-1) / np.linalg.norm(truth)
    assert found["cosine"] == pytest.approx(cosines.mean(), rel=1e-5)


def test_tally_without_draws_or_without_noise():
    tally = estimator_plots.Tally(np.array([1.0, 0.3]))
    tally.add(np.full((5, 2), np.nan))
    assert np.isnan(tally.figures()["mse"])
    tally.add(np.full((50, 2), [1.1, 0.3]))
    assert (tally.figures()["variance"], tally.figures()["max_z"]) == (0.0, np.inf)
    assert tally.figures()["bias"] == pytest.approx(0.1)


@pytest.mark.statistical
def test_golden_variances():
    result = measured("st_softmax", problems.golden(), 40_000)
    assert result.draws == 40_000
    assert result.variance == pytest.approx(0.12753, rel=0.05)
    np.testing.assert_allclose(result.mean, [-0.11134581, -0.16868888, -0.06240108, 0.34243577], atol=0.01)
    assert result.max_z > 20
    assert result.mse == pytest.approx(result.variance + result.bias**2, rel=0.01)
    assert result.microseconds > 0
    result = measured("reinforce_leave_one_out", problems.golden(), 40_000)
    assert result.variance == pytest.approx(1.23624581, rel=0.05)
    assert result.max_z < 4.5
    result = measured("disarm", problems.golden_binary(), 40_000)
    assert result.variance == pytest.approx(2 * 0.0422, rel=0.05)  # of two logits, whose gradients are opposite


@pytest.mark.statistical
def test_a_moving_average_is_warm_and_frozen():
    warm, cold = (measured(name, problems.golden(), 20_000) for name in ("reinforce_moving_average", "reinforce"))
    assert warm.variance < 0.9 * cold.variance
    assert warm.max_z < 4.5


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("exact", 4),
        ("gumbel_softmax:num_samples=3", 3),
        ("reinforce", 1),
        ("reinforce_self_critical", 2),
        ("reinforce_leave_one_out:num_samples=4", 4),
        ("without_replacement", 2),
        ("arsm", 7),
        ("disarm_sb:order=given", 2),
        ("rebar", 3),
    ],
)
def test_evaluations_are_counted(text, count):
    logits = {"edges": jnp.array(problems.LOGITS)}
    estimator = estimator_variance.parse_spec(text).build(categorical(logits))
    assert estimator_variance.evaluations(estimator, logits) == count


# The command line


def test_settings_are_literals_or_text():
    spec = estimator_variance.parse_spec("gumbel_rao:samples=100:temperature=0.5")
    assert (spec.name, spec.settings) == ("gumbel_rao", {"samples": 100, "temperature": 0.5})
    assert estimator_variance.parse_spec("disarm_sb:order=given").settings == {"order": "given"}
    assert estimator_variance.parse_spec("arsm:dense=True").settings == {"dense": True}


def test_a_loss_of_ones_own_its_files_and_pictures(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("def loss(gates):\n    return (gates[0, 1] - 2 * gates[1, 0]) ** 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = "disarm,gumbel_softmax:temperature=0.5,reinforce"
    out = tmp_path / "out"
    options = ["--problem", "mine:loss", "--shape", "2x2", "--logits-seed", "3", "--sweep", "0.5,1", "--draws", "300"]
    estimator_variance.main([*options, "--estimators", names, "--out", str(out)])
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("Device ")
    assert printed == (out / "table.md").read_text()
    with (out / "estimates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["estimator"] for row in rows] == names.split(",")
    assert [row["evaluations"] for row in rows] == ["2", "1", "1"]
    assert {row["draws"] for row in rows} == {"300"}
    mean, error, truth = (
        np.array(rows[0][name].split(), float) for name in ("mean", "standard_error", "exact_gradient")
    )
    assert np.abs(mean - truth).max() < 4.5 * error.max()
    for name in ("variance_temperature", "error_evaluations"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_estimators_of_two_options_get_the_binary_toy_and_gdas_is_left_out():
    names = [spec.name for spec in estimator_variance.chosen(None, "golden", problems.PROBLEMS["golden"])]
    assert "disarm" in names
    assert "gdas" not in names
    names = [spec.name for spec in estimator_variance.chosen(None, "supernet", problems.PROBLEMS["supernet"])]
    assert "gdas" in names
    assert not {"disarm", "arm", "exact"} & set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimators", "reinforced"], "unknown estimator 'reinforced'"),
        (["--estimators", "reinforce:baseline=none:beta=1"], "unexpected keyword argument 'beta'"),
        (["--estimators", "reinforce:baseline"], "'baseline' is not of the form setting=value"),
        (["--estimators", "gumbel_softmax:temperature=-1"], "temperature must be above 0"),
        (["--problem", "silver"], "unknown problem 'silver'"),
        (["--problem", "golden", "--shape", "1x4"], "--shape and --logits-seed belong to a loss of your own"),
        (["--problem", "supernet", "--estimators", "disarm"], "disarm is for decisions between two options"),
        (["--problem", "supernet", "--estimators", "exact"], "exact is what the estimates"),
        (["--estimators", "gdas"], "it needs --problem supernet"),
        (["--draws", "1"], "--draws must be at least 2, got 1"),
        (["--sweep", "0,1"], "temperatures must be above 0"),
        (["--sweep", "cold"], "could not convert string to float: 'cold'"),
        (["--problem", "no_such_module:loss", "--shape", "2x3"], "No module named 'no_such_module'"),
        (["--problem", "math:no_such", "--shape", "2x3"], "has no attribute 'no_such'"),
        (["--problem", "jax.numpy:tanh", "--shape", "2x3"], "expected a float scalar of gates of shape (2, 3)"),
        (["--problem", "jax.numpy:sum"], "--shape must be DECISIONSxOPTIONS"),
        (["--problem", "jax.numpy:sum", "--shape", "40x4"], "more than the limit"),
        (["--problem", "jax.numpy:sum", "--shape", "2x3", "--estimators", "arm"], "for decisions between two options"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        estimator_variance.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_names_beside_a_picture_do_not_overlap():
    places = estimator_plots._apart([0.1, 0.11, 0.12, 0.5, 0.9], 0.05)
    assert np.diff(places).min() > 0.05 - 1e-9
    np.testing.assert_allclose(places, [0.06, 0.11, 0.16, 0.5, 0.9])
