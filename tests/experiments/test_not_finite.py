"""What a script makes of NaN: it counts the steps, gives no accuracy to a network of NaN, and ends without a result."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import common, outcome
from jaxnas import data
from jaxnas.base import SearchSpace, sparse_paths
from jaxnas.population import Population
from jaxnas.run.metrics import has_bad_loss

COUNT = 10


def apply(params, paths, x, *, key=None):
    """The logits are the pixels of the image plus a number."""
    return x.reshape(len(x), -1) + params[None]


def setting(labels):
    """Three classes, of which the brightest of three pixels is the right one."""
    images = np.eye(3, dtype=np.uint8)[labels % 3].reshape(-1, 1, 3, 1) * 200
    examples = data.Examples(jnp.asarray(images), jnp.asarray(labels, jnp.int32))
    search = SimpleNamespace(weights=examples, policy=examples, mean=jnp.zeros(1), std=jnp.ones(1))
    space = SearchSpace(None, apply, None, None, {"edges": jax.ShapeDtypeStruct((1, 2), jnp.float32)})
    return SimpleNamespace(judge=common.make_judge(lambda reference: space, search, batch_size=4)), examples


def judged(labels, params):
    own, examples = setting(labels)
    return own.judge(params, sparse_paths({"edges": jnp.zeros(1, jnp.int32)}), examples)


def test_the_judge_counts_every_example_once_and_knows_no_accuracy_of_nan():
    right = np.arange(COUNT) % 3
    assert judged(right, jnp.zeros(3)) == 1.0
    assert judged(right, jnp.array([0.0, 0.0, 900.0])) == pytest.approx(0.3)  # 3 of 10 are of the last class
    assert np.isnan(judged(right, jnp.array([0.0, jnp.nan, 0.0])))
    assert np.isnan(judged(right, jnp.full(3, jnp.inf)))
    assert np.isnan(judged(right - 1, jnp.zeros(3)))  # a label that is no class, not the filling of the last batch


def test_a_child_of_nan_or_with_a_step_that_was_not_finite_has_no_accuracy():
    made, examples = setting(np.arange(COUNT) % 3)
    params = jnp.zeros((3, 3)).at[1].set(jnp.nan)
    archs = {"edges": jnp.zeros((3, 1), jnp.int32)}
    found = Population({}, np.zeros((3, 1)), np.array([True, True, False]), np.zeros(3), params)
    np.testing.assert_array_equal(common.judge_children(made, found, archs, examples), [1.0, np.nan, np.nan])


@pytest.mark.parametrize(
    ("row", "bad"),
    [
        ({"loss": 0.5, "nonfinite": 0.0}, False),
        ({"loss": 0.5, "nonfinite": 1.0}, True),
        ({"loss": 0.5, "nonfinite": 0.25}, True),  # the mean over four children
        ({"search/nonfinite": [0.0, 1.0]}, True),
        ({"loss": 0.5, "nonfinite": False}, False),
        ({"loss": 0.5, "policy_loss": float("nan"), "nonfinite": 0.0}, False),  # the policy rests
        ({"loss": 0.5, "policy_loss": float("nan"), "nonfinite": 1.0}, True),
        ({"loss": 0.5, "other_loss": float("nan")}, True),
        ({"search/loss": [0.5, float("inf")]}, True),
        ({"accuracy": 0.5}, False),
    ],
)
def test_a_rejected_step_is_counted_wherever_its_cause_lies(row, bad):
    assert has_bad_loss(row) is bad


@pytest.mark.parametrize(("bad", "policy_steps", "refused"), [(0, 0, False), (3, 2, False), (3, 0, True)])
def test_a_search_whose_policy_never_moved_has_found_nothing(monkeypatch, bad, policy_steps, refused):
    state = SimpleNamespace(bad=jnp.array(bad), policy_steps=jnp.array(policy_steps))
    run = SimpleNamespace(key=lambda name: jax.random.key(0), phase=lambda *arguments, **settings: state)
    monkeypatch.setattr(common.batches, "num_steps", lambda *arguments: 7)
    own = SimpleNamespace(
        config=SimpleNamespace(data=None),
        images=SimpleNamespace(weights=None),
        space=SimpleNamespace(about=SimpleNamespace(name="toy")),
    )
    if refused:
        with pytest.raises(ValueError, match="search: nothing was found, 3 of 7 steps were not finite and rejected"):
            common.run_search(run, own, "search", None, None, None)
    else:
        assert common.run_search(run, own, "search", None, None, None) is state


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_result_of_nan_is_no_result(value):
    with pytest.raises(ValueError, match="the found network gives logits that are not finite, or learned from no step"):
        outcome.refuse_nan("the found network", value)
    outcome.refuse_nan("the found network", 0.0)


def test_tables_take_nan_as_json_has_it():
    text = outcome.spread_table("weight", {"0": [{"a": "NaN"}], "1": [{"a": 0.5}]}, ("a",), mean=".2f", spread=".2f")
    assert text.splitlines()[2:] == ["| 0 (n=1) | nan |", "| 1 (n=1) | 0.50 |"]
