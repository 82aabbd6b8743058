"""The comparison of NAS-RL with random search: which children count as the best, and the numbers of its table."""

import numpy as np
import pytest

from experiments import policy_gradient
from experiments.configs.policy_gradient import Config
from experiments.policy_gradient import REWARDS, Interval, as_text, interval, rows_of, tokens_of, tops_of
from jaxnas.searchers import PPO
from jaxnas.spaces.nas_rl import recurrent_cell_space
from jaxnas.tabular import digits, from_arrays


def test_a_child_is_among_the_best_once():
    fitness = np.array([[1.0, 2.0, 1.0, 3.0, 2.0], [1.0, 2.0, 1.0, 3.0, 2.0]])
    archs = {
        "a": np.array([[[0], [1], [0], [1], [1]], [[0], [1], [0], [0], [0]]]),
        "b": np.array([[[0, 0], [0, 0], [0, 0], [0, 1], [0, 0]], [[0, 0], [0, 0], [0, 1], [0, 1], [2, 2]]]),
    }
    tops, distinct = tops_of(fitness, archs, (2,))
    np.testing.assert_array_equal(tops[2], [[np.nan, 1.5, 1.5, 1.5, 1.5], [np.nan, 1.5, 1, 1, 1]])
    np.testing.assert_array_equal(distinct, [[1, 2, 2, 3, 3], [1, 2, 3, 3, 4]])


def test_a_child_without_a_fitness_is_distinct_but_not_among_the_best():
    fitness = np.array([[1.0, np.nan, 2.0, np.nan]])
    tops, distinct = tops_of(fitness, {"a": np.array([[[0], [1], [2], [1]]])}, (2,))
    np.testing.assert_array_equal(distinct, [[1, 2, 3, 3]])
    np.testing.assert_array_equal(tops[2], [[np.nan, np.nan, 1.5, 1.5]])


def test_rows_hold_means_intervals_and_the_distance_from_random_search():
    config = Config(children=8, top=(1,))
    rng = np.random.default_rng(0)
    chance, policy = rng.normal(-90, 1, (50, 8)), rng.normal(-92, 1, (50, 8))
    distinct = np.tile(np.arange(1, 9), (50, 1))
    found = {"random search": ({1: chance}, distinct), "controller": ({1: policy}, distinct)}
    rows = rows_of(config, found, {"controller": {1: chance - policy}})
    assert [(row["children"], row["search"]) for row in rows[:3]] == [
        (2, "random search"),
        (2, "controller"),
        (4, "random search"),
    ]
    last = rows[-1]
    assert (last["children"], last["distinct"]) == (8, 8.0)
    assert last["top 1"].mean == pytest.approx(-policy[:, 7].mean(), abs=1e-4)  # accuracies, the more the better
    assert last["top 1 above random"].mean == pytest.approx((chance - policy)[:, 7].mean(), abs=1e-4)
    assert last["top 1"].half_width == pytest.approx(2.0096 * policy[:, 7].std(ddof=1) / np.sqrt(50), abs=1e-4)
    assert rows[-2]["top 1 above random"] is None
    row = {"a": Interval(1.5, 0.25, 5, 0), "b": None, "c": Interval(2.0, None, 1, 4), "d": 3}
    assert as_text(row) == {"a": "1.500 ± 0.250", "b": "", "c": "2.000 (1 of 5)", "d": 3}


def test_an_interval_is_over_the_seeds_that_have_a_value():
    # The mean of 1, 2 and 3 has a standard error of 1 / sqrt(3); the 0.975 quantile of t with 2 degrees is 4.3027.
    found = interval(np.array([1.0, np.nan, 2.0, 3.0]))
    assert found == Interval(2.0, pytest.approx(4.3027 / np.sqrt(3), abs=1e-4), 3, 1)
    assert interval(np.array([1.0, np.nan])) == Interval(1.0, None, 1, 1)
    assert interval(np.array([np.nan])) == Interval(None, None, 0, 1)
    assert str(interval(np.array([np.nan]))) == "none (0 of 1)"


@pytest.mark.parametrize(("children", "marks"), [(402, [100, 201, 301, 402]), (400, [100, 200, 300, 400])])
def test_the_last_comparison_is_at_the_last_child(children, marks):
    found = {"random search": ({1: np.zeros((2, children))}, np.zeros((2, children)))}
    config = Config(children=children, top=(1,), seeds=2)
    assert [row["children"] for row in rows_of(config, found, {})] == marks


def test_recurrent_cells_are_written_in_the_order_of_the_paper():
    cells = recurrent_cell_space(2)
    table = from_arrays(cells.choices, {"nats": np.zeros(36_864)}, name="cells")
    assert tokens_of(table) == cells.tokens
    assert tokens_of(digits()) is None


def test_settings_reach_the_search(monkeypatch):
    seen = []
    monkeypatch.setattr(policy_gradient, "nas_rl", lambda policy, tx, **settings: seen.append(settings))
    config = Config(batch_size=3, reward="perplexity", learning_rates=(0.1, 0.2), ppo_steps=5, staleness=7)
    assert list(policy_gradient.methods(digits(), config)) == ["random search", "controller, 0.1", "controller, 0.2"]
    wanted = {"batch_size": 3, "reward": REWARDS["perplexity"], "ppo": PPO(steps=5), "staleness": 7}
    assert seen == [wanted, wanted]
    policy_gradient.methods(digits(), Config(learning_rates=(0.1,)))
    assert (seen[-1]["ppo"], seen[-1]["staleness"]) == (None, 0)


def test_rewards_take_the_units_of_a_table():
    np.testing.assert_allclose(REWARDS["accuracy"](np.array([-100.0, -50.0])), [1.0, 0.125], rtol=1e-6)
    np.testing.assert_allclose(REWARDS["perplexity"](np.log([8.0])), [1.25], rtol=1e-5)
