"""What comes after NAS-RL's search on images: numbers, final grid, ablation, and whole runs that are killed."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import final_grid, nas_rl, nas_rl_children, skips
from jaxnas.population import PopulationData, own_family
from jaxnas.run import History, Run
from jaxnas.spaces.nas_rl import decode, layer_plan
from tests.by_hand import Sgd
from tests.experiments.killed import essentials, killed_in_second_generation
from tests.experiments.test_nas_rl import KEY, SMALL, changed
from tests.experiments.test_scripts import check_files, finish


@pytest.fixture(scope="module")
def setting():
    return nas_rl.prepare(SMALL)


def history_of(errors, lengths, filters):
    archs = {"filters": np.array(filters), "skip": np.zeros((len(errors), 1), int)}
    ids, origins = np.arange(len(errors)), {"length": np.array(lengths)}
    return History(ids, archs, np.array(errors, float)[:, None], origins, np.full(len(ids), 0.5), ids)


def test_summaries_by_hand():
    found = {
        "nas_rl": history_of([0.5, np.nan, 0.25, 0.3, 0.2, 0.4], [4, 4, 4, 8, 8, 8], [[0], [1], [0], [0], [1], [1]])
    }
    rows = nas_rl.summaries(found, {"nas_rl": 2}, {"nas_rl": [0.9, 0.8]})
    np.testing.assert_allclose(rows["nas_rl"].pop("best_error"), 0.2)
    assert list(rows["nas_rl"]["top_errors"]) == [1, 5]
    # The repeats of the first and of the fifth network do not count, and there are no five others that are finite.
    np.testing.assert_allclose(list(rows["nas_rl"].pop("top_errors").values()), [0.2, np.nan])
    assert rows["nas_rl"] == {
        "best_layers": 2,
        "test_accuracies": [0.9, 0.8],
        "children": 6,
        "distinct": 4,  # one network is another one with more layers
        "diverged": 1,
        "seconds": 3.0,
        "children_per_hour": 7200,
    }


def test_a_network_fills_one_place_of_the_top_and_another_one_with_more_layers_the_next(monkeypatch, tmp_path):
    errors, filters = [0.1, 0.1, 0.3, 0.4, 0.5, 0.6], [[0], [0], [0], [1], [0], [1]]
    history, drawn = history_of(errors, [4, 4, 8, 8, 12, 12], filters), {}
    np.testing.assert_allclose(nas_rl.top_errors(history, 2), [np.nan, np.nan, 0.2, 0.2, 0.2, 0.2])
    rows = nas_rl.summaries({"nas_rl": history}, {"nas_rl": 1}, {"nas_rl": []})
    np.testing.assert_allclose(list(rows["nas_rl"]["top_errors"].values()), [0.1, np.mean([0.1, 0.3, 0.4, 0.5, 0.6])])
    monkeypatch.setattr(
        nas_rl.pictures, "draw", lambda picture, path, *values, **labels: drawn.update({path.name: values})
    )
    about = SimpleNamespace(about=SimpleNamespace(name="nas-rl"))
    nas_rl.draw(SimpleNamespace(path=tmp_path), SimpleNamespace(config=SMALL, space=about), {"nas_rl": history})
    np.testing.assert_allclose(drawn["top.png"][1]["nas_rl, top 5"][0, -1], 1 - rows["nas_rl"]["top_errors"][5])


def test_the_networks_of_the_ablation_are_what_they_say(setting):
    plan = layer_plan(setting.space)
    arch = {
        kind: np.arange(leaf.shape[0], dtype=np.int32) % 2
        for kind, leaf in setting.space.choices.items()
    }  # fmt: skip
    found, every, none = (decode(plan, skips.with_skips(arch, variant)) for variant in skips.VARIANTS)
    assert found == decode(plan, arch)
    assert [layer.inputs for layer in every.layers] == [(-1,), (0,), (0, 1)]
    assert every.outputs == (2,)
    assert [layer.inputs for layer in none.layers] == [(-1,), (0,), (1,)]
    assert none.outputs == (2,)
    for network in (every, none):
        assert [one._replace(inputs=()) for one in network.layers] == [one._replace(inputs=()) for one in found.layers]
    alone = {kind: leaf[:1] for kind, leaf in arch.items() if kind != "skip"}
    assert skips.with_skips(alone, "all") == alone


def test_the_ablation_reports_test_errors_of_all_seeds(setting, monkeypatch):
    calls = []

    def train_alone(run, setting, name, arch, seeds, examples, recipe):
        calls.append((name, seeds.tolist(), len(examples.train[1]), sorted(examples.parts), recipe.steps))
        return {"test": [0.5, 0.75]}

    monkeypatch.setattr(nas_rl_children, "train_alone", train_alone)
    arch = {kind: np.zeros(leaf.shape[0], np.int32) for kind, leaf in setting.space.choices.items()}
    rows = skips.ablation(None, setting, arch)
    assert calls == [(f"skips/{name}", [0, 1], 96, ["test"], 6) for name in skips.VARIANTS]
    assert {name: row["connections"] for name, row in rows.items()} == {"found": 0, "all": 3, "none": 2}
    assert rows["all"]["test_errors"] == [50.0, 25.0]
    np.testing.assert_allclose([rows["all"]["test_error_mean"], rows["all"]["test_error_std"]], [37.5, np.sqrt(312.5)])
    assert rows["all"]["macs"] > rows["none"]["macs"]


def test_every_point_of_the_grid_has_its_rates_and_its_epsilon(setting, monkeypatch):
    called = {}

    def grid(run, name, family, arch, data, recipe, grid, **options):
        called.update(family=family, data=data, recipe=recipe, grid=grid, **options)

    monkeypatch.setattr(final_grid, "final_grid", grid)
    values = {"learning_rate": (0.1, 0.4), "weight_decay": (0.0, 0.5), "epsilon": (1e-5, 0.5), "decay_at": (0.5, 0.75)}
    config = changed("grid", **values, epochs=4, repeats=3)
    arch = {kind: np.ones(leaf.shape[0], np.int32) for kind, leaf in setting.space.choices.items()}
    nas_rl.train_grid(None, setting._replace(config=config), arch)
    assert (called["grid"], called["repeats"], sorted(called["data"].parts)) == (values, 3, ["validation"])
    assert called["error_of"](0.75) == 0.25
    # 48 examples in batches of 16: three steps an epoch, so that the rate falls after 9 of 12 steps.
    tx = called["recipe"].tx({"learning_rate": 0.4, "weight_decay": 0.5, "epsilon": 0.5, "decay_at": 0.75})
    state, params, by_hand = tx.init({"w": jnp.ones(1)}), {"w": np.ones(1)}, Sgd(0.9, 0.5, nesterov=True)
    for step in range(12):
        updates, state = tx.update({"w": jnp.ones(1)}, state, jax.tree.map(jnp.float32, params))
        expected = by_hand.step(params, {"w": np.ones(1)}, 0.4 if step < 9 else 0.04)
        np.testing.assert_allclose(params["w"] + updates["w"], expected["w"], rtol=1e-4, atol=1e-6)
        params = expected
    # The networks of the two epsilons.
    x = jax.random.normal(KEY, (6, 8, 8, 1))
    for epsilon in values["epsilon"]:
        family, alone = (
            called["family"]({"epsilon": jnp.float32(epsilon)}),
            own_family(setting.space, arch, eps=epsilon),
        )
        weights = alone.init(KEY, arch, x)
        np.testing.assert_allclose(family.apply(weights, arch, x), alone.apply(weights, arch, x), rtol=1e-5, atol=1e-6)
    near, far = (called["family"]({"epsilon": jnp.float32(one)}).apply(weights, arch, x) for one in values["epsilon"])
    assert np.abs(near - far).max() > 1e-3


def test_the_best_child_is_trained_anew_with_seeds_that_no_child_had(setting, monkeypatch):
    calls = []

    def train_alone(run, setting, name, arch, seeds, examples, recipe):
        calls.append((name, seeds.tolist(), sorted(examples.parts)))
        return {"test": [0.5] * len(seeds)}

    monkeypatch.setattr(nas_rl_children, "train_alone", train_alone)
    arch = {kind: np.zeros(leaf.shape[0], np.int32) for kind, leaf in setting.space.choices.items()}
    tested = nas_rl.verify(None, dict.fromkeys(nas_rl.METHODS, (setting, arch)))
    assert calls == [(f"verified/{method}", [8, 9], ["test"]) for method in nas_rl.METHODS]
    assert tested["random_search"] == [0.5, 0.5]


def test_one_network_is_trained_for_each_seed_in_a_program_of_its_own(setting, tmp_path):
    arch = {kind: np.ones(leaf.shape[0], np.int32) for kind, leaf in setting.space.choices.items()}
    recipe = nas_rl_children.make_recipe(setting.config, setting.images)
    data = PopulationData(
        tuple(setting.images.weights), {"a": tuple(setting.images.policy), "b": tuple(setting.images.weights)}
    )
    with Run(tmp_path, writers=()) as run:
        found = nas_rl_children.train_alone(run, setting, "alone", arch, np.array([3, 4, 3]), data, recipe)
    assert sorted(found) == ["a", "b"]
    assert found["b"][0] == found["b"][2]
    assert len(found["a"]) == 3


@pytest.mark.slow
def test_killed_in_mid_batch_goes_on_there_and_ends_in_the_same_bits(tmp_path):
    options = ("--smoke", "--search.verified", "1", "--retrain.random-children", "1", "--skips.seeds", "1")
    options += ("--checkpoint-seconds", "0")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, out, err = finish("nas_rl", whole, *options)
    assert code == 0, err
    check_files(whole, out)
    for name in ("history.png", "top.png"):
        assert (whole / name).stat().st_size > 0
    result = json.loads(out)
    assert sorted(result["search"]["skips"]) == ["all", "found", "none"]
    assert len(result["search"]["final_grid"]["grid"]) == 6
    layers = json.loads((whole / "architecture.json").read_text())["settings"]["num_layers"]
    assert layers == result["search"]["methods"]["nas_rl"]["best_layers"]
    saved = killed_in_second_generation("nas_rl", killed, "nas_rl", *options)
    assert saved
    assert max(saved) < 4 * 6  # children, each of so many steps
    code, _, err = finish("nas_rl", killed, *options)
    assert code == 0, err
    assert essentials(killed) == essentials(whole)
