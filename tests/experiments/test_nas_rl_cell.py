"""The search for recurrent cells: rewards, the comparison, known cells of equal size, a kill in mid-generation."""

import dataclasses
import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cells, generations, nas_rl_cell, transfer_cell
from experiments.configs.nas_rl_cell import PRESETS, Config
from experiments.configs.transfer_cell import PRESETS as TRANSFERS
from jaxnas.data.text import windows
from jaxnas.errors import UserError
from jaxnas.export import load_variables
from jaxnas.run import History, Run
from jaxnas.spaces.nas_rl import PUBLISHED, CellState, recurrent_cell, recurrent_cell_space
from tests.experiments.killed import essentials, killed_in_second_generation
from tests.experiments.test_scripts import finish

SMALL = nas_rl_cell.smoke(PRESETS["shakespeare"])


def changed(part, **fields) -> Config:
    return dataclasses.replace(SMALL, **{part: dataclasses.replace(getattr(SMALL, part), **fields)})


@pytest.fixture(scope="module")
def study():
    return nas_rl_cell.prepare(SMALL)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("search", children=10), "search.children is 10, expected a multiple of generation, 4"),
        (changed("search", strategy="loop"), "strategy"),
        (changed("network", activations=("tanh", "gelu")), "activations is .*, expected at least two different names"),
        (changed("network", combinations=("max",)), "combinations is .*, expected at least two different names"),
        (changed("child", steps=1), r"child\.steps is 1, expected at least 2 for 2 judgements"),
        (changed("child", batch_size=900), r"child\.batch_size is 900, expected 1 to the \d+ windows there are"),
        (changed("final", batch_size=900), r"final\.batch_size is 900, expected 1 to the"),
        (changed("final", test_length=999), "expected at least 1000 for a window of length 999"),
        (changed("child", length=999), "for a window of length 999"),
        (changed("data", path="/nowhere/at/all.txt"), "cannot be read"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        nas_rl_cell.prepare(config)


def test_settings_reach_the_space_and_the_language_model():
    network = {
        "combinations": ("add", "max"),
        "activations": ("sin", "tanh", "relu"),
        "base": 3,
        "layers": 2,
        "hidden": 5,
    }
    study = nas_rl_cell.prepare(changed("network", **network))
    assert study.space.about.operations["combination"] == ("add", "max")
    assert study.space.about.operations["activation"] == ("sin", "tanh", "relu")
    params = study.family.init(jax.random.key(0), None, None)
    assert [layer["h"].shape for layer in params["cells"]] == [(3, 5, 5)] * 2
    assert len(params["embedding"]) == len(study.text.vocabulary)
    assert (study.recipe.steps, study.recipe.batch_size, study.data.train[0].shape[1]) == (4, 4, 8)


def test_settings_reach_the_controller(study, monkeypatch):
    settings = {"learning_rate": 0.25, "baseline_decay": 0.5, "c": 7.0, "ppo_steps": 3, "staleness": 2}
    config, asked = changed("search", **settings), {}
    monkeypatch.setattr(nas_rl_cell, "nas_rl", lambda policy, tx, **given: asked.update(given, policy=policy, tx=tx))
    nas_rl_cell.make_searcher("nas_rl", study._replace(config=config))
    np.testing.assert_allclose(asked["reward"](jnp.log(jnp.array([2.0, 4.0]))), [7 / 4, 7 / 16], rtol=1e-5)
    assert (asked["batch_size"], asked["baseline_decay"], asked["staleness"]) == (4, 0.5, 2)
    assert asked["ppo"].steps == 3
    update, _ = asked["tx"].update(jnp.ones(1), asked["tx"].init(jnp.ones(1)))
    np.testing.assert_allclose(update, [-0.25], rtol=1e-5)  # the first step of Adam
    nas_rl_cell.make_searcher("nas_rl", study)
    assert asked["ppo"] is None


def test_a_cell_is_worth_the_best_of_its_last_five_judgements(study, monkeypatch):
    scores = np.array([[1.0, 9, 8, 7, 6, 5.5], [3, 3, 3, 3, 2, 4], [3, 3, 3, 3, 3, np.nan]])
    asked = {}

    def train(run, name, family, archs, data, recipe, **settings):
        asked.update(settings, name=name, parts=list(data.parts))
        return SimpleNamespace(score={"validation": scores}, seconds=np.array([1.0, 2.0, 3.0]))

    kept = {}
    monkeypatch.setattr(nas_rl_cell.common, "train_networks", train)
    evaluate = nas_rl_cell.make_evaluator(
        SimpleNamespace(once=lambda name, fn: kept.update({name: fn()})), study, "nas_rl"
    )
    np.testing.assert_array_equal(evaluate(np.array([8, 9, 10]), None, None), [[5.5], [2.0], [np.nan]])
    assert (asked["name"], asked["seeds"].tolist(), asked["parts"]) == ("nas_rl/8", [8, 9, 10], ["validation"])
    assert (asked["choices"], asked["strategy"], kept) == (study.space.choices, "vmap", {"seconds/nas_rl/8": 6.0})


def history_of(nats, choices, *, cell=None):
    """A search whose cells are all different, or those with the given numbers."""
    ids = np.arange(len(nats))
    archs = {name: np.zeros((len(ids), c.shape[0]), int) for name, c in choices.items()}
    archs["activation"][:, :2] = np.stack(np.divmod(ids if cell is None else cell, 4), 1)
    values = {"ids": ids, "archs": archs, "fitness": np.array(nats, float)[:, None], "seconds": np.full(len(ids), 0.5)}
    return History(**{**dict.fromkeys(History._fields), **values})


def test_the_comparison_by_hand(study, monkeypatch):
    monkeypatch.setattr(nas_rl_cell, "TOP", (1, 3, 15))
    nats = [math.log(4.0), math.nan, math.log(2.0), math.log(8.0), math.log(4.0)]
    history = history_of(nats, study.space.choices, cell=[0, 1, 2, 3, 0])
    np.testing.assert_allclose(nas_rl_cell.rewards(history, 80.0), [5, 0, 20, 1.25, 5], rtol=1e-5)
    top = nas_rl_cell.top_rewards(history, 80.0)
    np.testing.assert_allclose(top[1], [5, 5, 20, 20, 20], rtol=1e-5)
    # The diverged cell earns 0, and the first cell does not count a second time.
    np.testing.assert_allclose(top[3], [np.nan, np.nan, 25 / 3, 26.25 / 3, 26.25 / 3], rtol=1e-5)
    assert np.isnan(top[15]).all()
    assert generations.best_arch(history)["activation"].tolist() == [0, 2, 0, 0]  # the third cell
    found = nas_rl_cell.summary(study, {"nas_rl": history})
    row = found["methods"]["nas_rl"]
    np.testing.assert_allclose(list(row["validation"].values()), [math.log(2), 2.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose([row["top_rewards"][k] for k in ("1", "3")], [20, 8.75], rtol=1e-5)
    assert (row["children"], row["distinct"], row["not_finite"]) == (5, 4, 1)
    assert (row["seconds"], row["children_per_hour"], found["cells"]) == (2.5, 7200, 36_864)


def test_units_by_hand():
    assert cells.in_units(math.log(8.0)) == pytest.approx({"nats": math.log(8.0), "perplexity": 8.0, "bits": 3.0})
    assert cells.in_units(1000.0)["perplexity"] == math.inf
    assert np.isnan(list(cells.in_units(math.nan).values())).all()


def test_an_lstm_by_hand():
    """The gates in the order input, forget, memory, output; the forget gate has 1 more."""
    space, (d, h) = cells.lstm_space(), (3, 2)
    params = jax.device_get(space.init(jax.random.key(0), d, h))
    rng = np.random.default_rng(0)
    x, state = rng.normal(size=d).astype(np.float32), CellState(*rng.normal(size=(2, h)).astype(np.float32))

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    i, f, g, o = (x @ params["x"][n] + state.h @ params["h"][n] for n in range(4))
    c = sigmoid(f + 1) * state.c + sigmoid(i) * np.tanh(g)
    found = space.step(params, None, state, jnp.asarray(x))
    np.testing.assert_allclose(found.c, c, rtol=1e-5)
    np.testing.assert_allclose(found.h, sigmoid(o) * np.tanh(c), rtol=1e-5)


def test_known_cells_have_the_size_of_the_found_one():
    space = recurrent_cell_space(4)
    like = cells.Cell(space, None, cells.Size(num_tokens=65, hidden=24, layers=1))
    weights = jax.eval_shape(lambda: like.model.init(jax.random.key(0), None, None))
    assert like.parameters == sum(leaf.size for leaf in jax.tree.leaves(weights))
    assert like.macs == 2 * 4 * 24 * 24 + 24 * 65
    known = cells.known_cells(like)
    assert known["lstm"].size == like.size  # four pairs of matrices as a tree of base 4
    assert known["lstm"].parameters == like.parameters
    nascell = known["nascell"]
    assert nascell.space.about.genotype(nascell.arch) == PUBLISHED["nascell"]
    errors = [
        abs(nascell._replace(size=nascell.size._replace(hidden=hidden)).parameters - like.parameters)
        for hidden in range(nascell.size.hidden - 1, nascell.size.hidden + 2)
    ]
    assert errors[1] == min(errors) < 0.05 * like.parameters


def test_the_last_training_computes_the_cell_and_scales_its_first_weights():
    space = recurrent_cell_space(2)
    cell = cells.Cell(space, space.about.parse(PUBLISHED["worked_example"]), cells.Size(7, 3, 2))
    family = cells.family_fn(cell)({"init_scale": 0.5})
    tokens = jnp.array([[1, 2, 6], [0, 5, 3]])
    params, plain = (make(jax.random.key(0), cell.arch, tokens) for make in (family.init, cell.model.init))
    for layer, expected in zip(params["cells"], plain["cells"], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-6), layer, expected)
    for name in ("embedding", "head"):
        jax.tree.map(np.testing.assert_array_equal, params[name], plain[name])
    # Step by step: the layers of one text.
    step, states = recurrent_cell(space, PUBLISHED["worked_example"]), [CellState(jnp.zeros(3), jnp.zeros(3))] * 2
    found = family.apply(params, cell.arch, tokens)
    for t, token in enumerate(tokens[1]):
        x = params["embedding"][token]
        for number, layer in enumerate(params["cells"]):
            states[number] = step(layer, states[number], x)
            x = states[number].h
        expected = x @ params["head"]["kernel"] + params["head"]["bias"]
        np.testing.assert_allclose(found[1, t], expected, atol=1e-6)


def test_the_grid_of_the_configuration_is_trained_and_its_best_point_tested(study, monkeypatch):
    changes = {"learning_rates": (0.01, 0.1), "init_scales": (1.0, 0.5), "decay_shares": (0.25,), "repeats": 2}
    form, asked = dataclasses.replace(SMALL.final, **changes), {}

    def final_grid(run, name, family_fn, arch, data, recipe, grid, *, test, repeats):
        asked.update(name=name, data=data, recipe=recipe, grid=grid, test=test, repeats=repeats)
        return SimpleNamespace(test=[math.log(2), math.log(8)], params="weights", summary=lambda: {"grid": "points"})

    monkeypatch.setattr(cells.final_grid, "final_grid", final_grid)
    cell = cells.Cell(cells.lstm_space(), {"cell": np.zeros(1, np.int32)}, study.size._replace(hidden=2))
    row, params = cells.train_to_the_end(None, "final/lstm", cell, study.text, form)
    assert (asked["name"], asked["repeats"], params) == ("final/lstm", 2, "weights")
    assert asked["grid"] == {"learning_rate": (0.01, 0.1), "init_scale": (1.0, 0.5), "decay_from": (0.25,)}
    assert list(asked["data"].parts) == ["validation"]
    np.testing.assert_array_equal(asked["test"][0], windows(study.text.test, 16).inputs)
    # A point's rates make the optimiser; the range of first weights is the family's.
    assert asked["recipe"].moments == (form.steps,)  # one judgement, as no other one would be looked at
    tx = asked["recipe"].tx({"learning_rate": 0.1, "init_scale": 1.0, "decay_from": 0.25})
    np.testing.assert_allclose(tx.update(jnp.ones(1), tx.init(jnp.ones(1)))[0], [-0.1], rtol=1e-5)
    expected = {"perplexity": 4.0, "hidden": 2, "parameters": cell.parameters, "final": {"grid": "points"}}
    assert {name: pytest.approx(row[name]) for name in expected} == expected


@pytest.mark.parametrize(("diverged", "about"), [(("a",), {}), (("a", "b"), {"search": "found"})])
def test_a_cell_that_diverges_at_every_point_ends_no_run(diverged, about, study, tmp_path, monkeypatch):
    def final_grid(run, name, *given, **settings):
        fails = name.rpartition("/")[2] in diverged
        test, params = ([math.nan], None) if fails else ([1.0], {"w": np.ones(1)})
        return SimpleNamespace(test=test, params=params, summary=lambda: {})

    monkeypatch.setattr(cells.final_grid, "final_grid", final_grid)
    arch = jax.tree.map(lambda leaf: np.zeros(leaf.shape[0], int), study.space.choices)
    contestants = dict.fromkeys(("a", "b"), cells.Cell(study.space, arch, cells.Size(7, 3, 1)))
    with Run(tmp_path, writers=()) as run:
        result = cells.conclude(run, contestants, study.text, SMALL.final, about)
    assert str(result["child"]["nats"]) in ("nan", "NaN")
    assert (result["baseline"]["b"]["nats"] == 1.0) == ("b" not in diverged)
    assert json.loads((tmp_path / "architecture.json").read_text())["weights"] is None
    assert not (tmp_path / "network.safetensors").exists()


def test_cells_that_all_diverge_without_a_search_are_refused(study, monkeypatch):
    monkeypatch.setattr(cells, "train_to_the_end", lambda *given: ({"nats": math.nan}, None))
    with pytest.raises(UserError, match="no cell of a, b could be trained"):
        cells.conclude(None, {"a": None, "b": None}, study.text, SMALL.final, {})


def test_no_setting_of_a_last_training_is_without_meaning():
    fields = {field.name for field in dataclasses.fields(SMALL.final)}
    assert fields.isdisjoint({"learning_rate", "decay_from", "judgements", "judge_every"})
    assert not hasattr(TRANSFERS["words"].data, "validation_windows")


def test_a_picture_of_both_searches_leaves_out_cells_that_are_worse_than_a_guess(study, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        nas_rl_cell.pictures,
        "draw",
        lambda picture, path, *values, **labels: drawn.update({path.name: (values, labels)}),
    )
    nats = [1.0, 2.0, 30.0, math.nan, *np.linspace(1.5, 2.5, 4)]
    history = history_of(nats, study.space.choices)
    nas_rl_cell.draw(SimpleNamespace(path=tmp_path), study, {"nas_rl": history, "random_search": history})
    (found,), labels = drawn["history.png"]
    np.testing.assert_array_equal(found["nas_rl"], [1.0, 2.0, np.inf, np.inf, *np.linspace(1.5, 2.5, 4)])
    assert labels["title"] == "synthetic, base 2, 4 hidden units"
    (times, curves), labels = drawn["top.png"]
    assert times.tolist() == list(range(1, 9))
    assert {name: values.shape for name, values in curves.items()} == {
        f"{method}, top {k}": (1, 8) for method in nas_rl_cell.METHODS for k in (1, 5)
    }
    assert labels["ylabel"] == "mean reward (80 / perplexity²)"


@pytest.mark.parametrize("kind", ["name", "genotype", "file", "folder"])
def test_a_cell_is_read_in_every_form(kind, tmp_path):
    text = PUBLISHED["worked_example"]
    record = {"space": "nas-rl-cell", "genotype": text}
    (tmp_path / "architecture.json").write_text(json.dumps(record))
    forms = {"name": "worked_example", "genotype": text}
    source = forms.get(kind) or str(tmp_path / ("architecture.json" if kind == "file" else ""))
    space, arch = cells.read_cell(source)
    assert space.about.genotype(arch) == text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere", "cannot be read"),
        ("add tanh | add tanh | inject add tanh | index 0 0", "expected that of a cell with at least 2 leaves"),
        ("add tanh, add cosh | add tanh | inject add tanh | index 0 0", "genotype is "),
        ('{"space": "darts", "arch": [0]}', "not a recurrent cell of nas_rl_cell, but of space 'darts'"),
    ],
)
def test_what_is_no_cell_is_refused(source, message):
    with pytest.raises(UserError, match=message):
        transfer_cell.prepare(dataclasses.replace(transfer_cell.smoke(TRANSFERS["words"]), cell=source))


@pytest.mark.slow
def test_killed_in_mid_generation_goes_on_there_and_its_cell_transfers(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, out, err = finish("nas_rl_cell", whole, "--smoke")
    assert code == 0, err
    result = json.loads(out)
    for name in ("history.png", "top.png", "architecture.png"):
        assert (whole / name).stat().st_size > 0
    assert set(result["baseline"]) == {"random_search", "nascell", "lstm"}
    record = json.loads((whole / "architecture.json").read_text())
    space = recurrent_cell_space(**record["settings"])
    assert space.about.genotype({name: np.array(leaf) for name, leaf in record["arch"].items()}) == record["genotype"]
    weights = load_variables(whole / "network.safetensors")
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == record["parameters"] == result["child"]["parameters"]
    # A kill when a part of the second generation has been saved.
    assert killed_in_second_generation("nas_rl_cell", killed, "nas_rl", "--smoke")
    code, _, err = finish("nas_rl_cell", killed, "--smoke")
    assert code == 0, err
    assert essentials(killed) == essentials(whole)
    # The found cell on another text.
    code, out, err = finish("transfer_cell", tmp_path / "words", "words", "--smoke", "--cell", str(whole))
    assert code == 0, err
    transferred = json.loads(out)
    assert transferred["child"]["genotype"] == record["genotype"]
    assert (transferred["unit"], set(transferred["baseline"])) == ("words", {"nascell", "lstm"})
