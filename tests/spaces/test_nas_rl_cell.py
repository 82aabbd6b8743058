"""A recurrent cell computes the formulas of its tree, as data and as constants alike."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.architectures import decisions, enumerate_architectures
from jaxnas.data.text import streams, text_of, window_at, windows
from jaxnas.errors import UserError
from jaxnas.population import Family, PopulationData, Recipe, train_population
from jaxnas.spaces.nas_rl import (
    PUBLISHED,
    CellState,
    constants,
    language_model,
    recurrent_cell,
    recurrent_cell_space,
)

FEATURES, HIDDEN = 3, 5
EVERYTHING = {
    "combinations": ("add", "elem_mult", "max"),
    "activations": ("identity", "tanh", "sigmoid", "relu", "sin"),
}


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _relu(x):
    return np.maximum(x, 0)


def _problem(space, seed=0):
    """Weights, a state and an input of ordinary size, and the products of both with every leaf's matrices."""
    params = space.init(jax.random.key(seed), FEATURES, HIDDEN)
    c, h, x = (np.random.default_rng(seed).standard_normal(n).astype(np.float32) for n in (HIDDEN, HIDDEN, FEATURES))
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return params, CellState(jnp.asarray(c), jnp.asarray(h)), jnp.asarray(x), x @ wide["x"], h @ wide["h"], c


def _both(space, text, seed=0):
    """What a cell computes with its architecture as traced arrays, and as constants."""
    params, state, x, *_ = _problem(space, seed)
    arch = jax.tree.map(jnp.asarray, space.about.parse(text))
    return [jax.jit(space.step)(params, arch, state, x), jax.jit(recurrent_cell(space, text))(params, state, x)]


def test_the_worked_example_of_the_paper():
    space = recurrent_cell_space(2)
    *_, x, h, c = _problem(space)
    a0 = np.tanh(x[0] + h[0])
    a1 = _relu(x[1] * h[1])
    injected = _relu(a0 + c)
    for found in _both(space, PUBLISHED["worked_example"]):
        np.testing.assert_allclose(found.h, _sigmoid(injected * a1), atol=1e-6)
        np.testing.assert_allclose(found.c, x[1] * h[1], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_published_cell(seed):
    space = recurrent_cell_space(8)
    *_, x, h, c = _problem(space, seed)
    # Leaves, in order.
    a0, a1, a2 = _sigmoid(x[0] + h[0]), _relu(x[1] + h[1]), _sigmoid(x[2] + h[2])
    a3, a4, a5 = _relu(x[3] * h[3]), np.tanh(x[4] + h[4]), _sigmoid(x[5] + h[5])
    a6, a7 = np.tanh(x[6] + h[6]), _sigmoid(x[7] + h[7])
    # Inner nodes; the memory comes in at the first of them and goes out before the activation of node 12.
    a8 = np.tanh(np.tanh(a0 * a1) + c)
    a9, a10, a11 = np.tanh(a2 + a3), np.tanh(a4 * a5), _sigmoid(a6 + a7)
    memory = a8 * a9
    output = np.tanh(memory * np.tanh(a10 + a11))
    for found in _both(space, PUBLISHED["nascell"], seed):
        np.testing.assert_allclose(found.c, memory, atol=1e-6)
        np.testing.assert_allclose(found.h, output, atol=1e-6)


def test_a_base_that_is_no_power_of_two_with_every_operation():
    space = recurrent_cell_space(3, **EVERYTHING)
    *_, x, h, c = _problem(space)
    text = "max sin, add identity, elem_mult tanh | add sin, max identity | inject max sin | index 4 1"
    a0, a1, a2 = np.sin(np.maximum(x[0], h[0])), x[1] + h[1], np.tanh(x[2] * h[2])
    a3 = np.sin(a0 + np.sin(np.maximum(a1, c)))  # node 3 joins 0 and 1, node 4 joins 2 and 3
    for found in _both(space, text):
        np.testing.assert_allclose(found.h, np.maximum(a2, a3), atol=1e-6)
        np.testing.assert_allclose(found.c, found.h, atol=1e-6)


def test_an_inject_at_the_root_reaches_the_output_and_not_the_memory():
    space = recurrent_cell_space(2)
    *_, x, h, c = _problem(space)
    total = x[0] + h[0] + x[1] + h[1]
    for found in _both(space, "add identity, add identity | add tanh | inject elem_mult sigmoid | index 2 2"):
        np.testing.assert_allclose(found.h, _sigmoid(np.tanh(total) * c), atol=1e-6)
        np.testing.assert_allclose(found.c, total, atol=1e-6)


@pytest.mark.parametrize(("base", "names"), [(2, {}), (3, EVERYTHING), (8, {})])
def test_data_and_constants_agree_in_values_and_gradients(base, names):
    space = recurrent_cell_space(base, **names)
    params, state, x, *_ = _problem(space)
    row = decisions(space.choices)
    archs = row.split(row.random(jax.random.key(base), 3))

    def loss_fn(step, params, state, x):
        return sum(jnp.sum(leaf * weight) for leaf, weight in zip(step(params, state, x), (1.0, 0.3)))

    def traced(arch):
        return jax.value_and_grad(functools.partial(loss_fn, lambda p, s, x: space.step(p, arch, s, x)), (0, 1, 2))(
            params, state, x
        )

    found = jax.jit(jax.vmap(traced))(archs)
    for i in range(3):
        cell = recurrent_cell(space, jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), archs))
        expected = jax.jit(jax.value_and_grad(functools.partial(loss_fn, cell), (0, 1, 2)))(params, state, x)
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, i=i: leaf[i], found), expected, rtol=1e-5, atol=1e-6)


def test_an_operation_that_is_not_chosen_cannot_spoil_a_gradient():
    space = recurrent_cell_space(2, **EVERYTHING)
    params, state, x, *_ = _problem(space)
    state = state._replace(h=jnp.full(HIDDEN, 1e30), c=jnp.full(HIDDEN, jnp.inf))
    text = "elem_mult tanh, elem_mult sigmoid | add tanh | inject add tanh | index 2 2"
    arch = jax.tree.map(jnp.asarray, space.about.parse(text))
    grads = jax.grad(lambda params: jnp.sum(space.step(params, arch, state, 1e30 * x).h))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_constants_leave_only_the_chosen_operations_in_the_program():
    space = recurrent_cell_space(8, **EVERYTHING)
    params, state, x, *_ = _problem(space)
    text = jax.jit(recurrent_cell(space, PUBLISHED["nascell"])).lower(params, state, x).as_text()
    assert text.count("stablehlo.tanh") == 8  # seven nodes and the inject
    assert "sine" not in text
    assert "maximum" in text  # relu


@pytest.mark.parametrize(
    ("base", "names", "size", "tokens"),
    [
        (2, {}, 36_864, 10),
        (8, {}, 8**15 * 8 * 15 * 15, 34),
        (8, EVERYTHING, 15**16 * 225, 34),
        (3, {"combinations": ("add", "max")}, 8**6 * 25, 14),
    ],
)
def test_sizes_and_numbers_of_tokens(base, names, size, tokens):
    space = recurrent_cell_space(base, **names)
    assert space.about.size == decisions(space.choices).size == size
    assert len(space.tokens) == tokens
    assert sorted(place for _, place in space.tokens) == list(range(tokens))


def test_every_cell_of_base_two_is_counted_once():
    space = recurrent_cell_space(2)
    archs = enumerate_architectures(space.choices)
    every = np.concatenate([archs[name] for name in sorted(archs)], 1)
    # Written down independently: eight settings of three nodes and the inject, and three nodes for each index.
    settings = itertools.product(*[range(4)] * 4, *[range(2)] * 4, range(3), range(3))
    assert {tuple(row) for row in every.tolist()} == set(settings)
    assert len(every) == space.about.size
    sample = jax.tree.map(lambda leaf: leaf[::1009], archs)
    texts = {space.about.genotype(jax.tree.map(lambda leaf, i=i: leaf[i], sample)) for i in range(len(sample["index"]))}
    assert len(texts) == len(sample["index"])


def test_tokens_are_nodes_by_number_then_inject_then_indices():
    space = recurrent_cell_space(2)
    row = decisions(space.choices)
    arch = space.about.parse(PUBLISHED["worked_example"])
    values = np.asarray(row.join(arch))
    read = [
        {"combination": ("add", "elem_mult"), "activation": ("identity", "tanh", "sigmoid", "relu")}.get(
            kind, ("0", "1", "2")
        )[values[place]]
        for kind, place in space.tokens
    ]
    assert read == "add tanh elem_mult relu elem_mult sigmoid add relu 1 0".split()
    kinds = [kind for kind, _ in space.tokens]
    assert kinds == ["combination", "activation"] * 4 + ["index"] * 2


@pytest.mark.parametrize(("base", "name"), [(2, "worked_example"), (8, "nascell")])
def test_a_genotype_is_read_as_it_is_written(base, name):
    space = recurrent_cell_space(base)
    arch = space.about.parse(PUBLISHED[name])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(arch)} == {"int32"}
    assert space.about.genotype(arch) == PUBLISHED[name]
    assert constants(space, arch) == constants(space, PUBLISHED[name])


def test_a_space_is_rebuilt_from_its_settings():
    names = {"combinations": ("max", "add"), "activations": ("sin", "tanh")}
    space = recurrent_cell_space(3, **names, init_range=0.2)
    rebuilt = recurrent_cell_space(**space.about.config)
    operations = {"combination": ("max", "add"), "activation": ("sin", "tanh"), "index": ("0", "1", "2", "3", "4")}
    assert rebuilt.about.operations == space.about.operations == operations
    assert rebuilt.about.size == space.about.size
    chex.assert_trees_all_equal(*(one.init(jax.random.key(0), 3, 4) for one in (space, rebuilt)))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("elem_mult relu |", "elem_mult relu, add tanh |"),
        ("sigmoid |", "sigmoid, add tanh |"),
        ("tanh, elem_mult relu |", "tanh | elem_mult relu,"),
        ("add tanh", "plus tanh"),
        ("add relu", "add sin"),
        ("inject add", "injected add"),
        ("index 1", "node 1"),
        ("1 0", "1"),
        ("1 0", "1 root"),
        ("| inject", "inject"),
    ],
)
def test_a_genotype_of_another_form(right, wrong):
    text = PUBLISHED["worked_example"].replace(right, wrong, 1)
    with pytest.raises(UserError, match="expected 2 leaves and 1 inner nodes as"):
        recurrent_cell(recurrent_cell_space(2), text)


def test_architectures_outside_of_the_space():
    space = recurrent_cell_space(2)
    with pytest.raises(UserError, match=r"must lie in 0\.\.2"):
        recurrent_cell(space, PUBLISHED["worked_example"].replace("1 0", "3 0"))
    with pytest.raises(UserError, match="expected 2 leaves"):
        recurrent_cell(space, PUBLISHED["nascell"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": 1}, "base is 1, expected an integer of at least 2"),
        ({"base": 2.0}, "base is 2.0, expected an integer"),
        ({"combinations": ("add",)}, "combinations is .* expected at least two different names out of add, elem_mult"),
        ({"activations": ("tanh", "tanh")}, "activations is .* at least two different names"),
        ({"activations": ("tanh", "swish")}, "out of identity, tanh, sigmoid, relu, sin"),
        ({"activations": "tanh"}, r"activations is \('tanh',\), expected at least two"),
        ({"init_range": 0.0}, "init_range is 0.0, expected a number above 0"),
        ({"init_range": float("nan")}, "init_range is nan"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        recurrent_cell_space(**settings)


def test_first_weights_lie_in_their_range():
    for init_range, bounds in ((0.3, {"x": 0.3, "h": 0.3}), (None, {"x": 1 / 8, "h": 1 / 4})):
        params = recurrent_cell_space(2, init_range=init_range).init(jax.random.key(0), 64, 16)
        assert {name: leaf.shape for name, leaf in params.items()} == {"x": (2, 64, 16), "h": (2, 16, 16)}
        for name, bound in bounds.items():
            assert 0.95 * bound < np.abs(params[name]).max() <= bound
            assert params[name].min() < -0.9 * bound
    assert not np.array_equal(params["x"][0, :16], params["h"][0])


def _model(layers=1, num_tokens=7):
    space = recurrent_cell_space(2)
    model = language_model(space, num_tokens, 6, layers=layers)
    arch = space.about.parse(PUBLISHED["worked_example"])
    tokens = jax.random.randint(jax.random.key(1), (3, 8), 0, num_tokens, jnp.int32)
    return space, model, arch, tokens, model.init(jax.random.key(0), arch, tokens)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_is_the_loop_over_time_and_layers(layers):
    space, model, arch, tokens, params = _model(layers)
    cell = recurrent_cell(space, arch)
    params["head"]["bias"] = jnp.arange(7.0)
    zeros = jnp.zeros(6)
    expected = []
    for text in tokens:
        states, rows = [CellState(zeros, zeros)] * layers, []
        for token in text:
            x = params["embedding"][token]
            for layer in range(layers):
                states[layer] = cell(params["cells"][layer], states[layer], x)
                x = states[layer].h
            rows.append(x @ params["head"]["kernel"] + params["head"]["bias"])
        expected.append(jnp.stack(rows))
    for form in (jax.tree.map(jnp.asarray, arch), constants(space, arch)):
        np.testing.assert_allclose(model.apply(params, form, tokens), jnp.stack(expected), rtol=1e-5, atol=1e-5)
    assert len({leaf.tobytes() for cell in params["cells"] for leaf in map(np.asarray, cell.values())}) == 2 * layers


def test_windows_that_continue_each_other_are_one_long_window():
    _, model, arch, _, params = _model(2)
    rows = streams(np.arange(26) % 7, 2)
    states, found = model.start(2), []
    for step in range(3):
        states, logits = model.advance(params, arch, states, window_at(rows, step, 4).inputs)
        found.append(logits)
    np.testing.assert_allclose(jnp.concatenate(found, 1), model.apply(params, arch, rows[:, :12]), atol=1e-5)


def test_sizes_of_a_model_that_do_not_fit():
    space = recurrent_cell_space(2)
    for sizes, layers in (((1, 4), 1), ((4, 0), 1), ((4, 4), 0)):
        with pytest.raises(UserError, match=r"num_tokens, hidden and layers are .*, expected at least 2, 1 and 1"):
            language_model(space, *sizes, layers=layers)


TEXT = text_of("aab" * 300, fractions=(0.6, 0.2, 0.2))


def _nats(logits, targets):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets), -1)


def _learned(archs, apply_of=lambda model: model.apply):
    """Nats per character of a validation text for each cell, after the first training step and after the last."""
    space = recurrent_cell_space(2)
    model = language_model(space, len(TEXT.vocabulary), 8)
    recipe = Recipe(optax.adam(0.03), 120, 16, judge_at=(1,), loss=lambda *pair: jnp.mean(_nats(*pair)), score=_nats)
    # Windows of 13 characters begin at each of the three places of the period.
    data = PopulationData(tuple(windows(TEXT.train, 13)), {"validation": tuple(windows(TEXT.validation, 13))})
    family = Family(model.init, apply_of(model))
    archs = jax.tree.map(lambda *leaves: np.stack(leaves), *map(space.about.parse, archs))
    found = train_population(jax.random.key(0), family, archs, data, recipe, choices=space.choices, strategy="vmap")
    assert found.good.all()
    return found.score["validation"].T


def test_a_population_learns_the_next_characters_of_a_periodic_text():
    archs = [
        "add tanh, add tanh | add tanh | inject add tanh | index 1 2",
        "add tanh, add relu | add identity | inject add sigmoid | index 0 1",
        "add tanh, add sigmoid | elem_mult tanh | inject add tanh | index 0 0",
    ]
    # One of two letters may follow an "a", which two of three letters are: 2/3 ln 2 nats = 0.46 without memory. With it
    # only the first letter of a window leaves a doubt: 0.46 / 13 nats.
    first, last = _learned(archs)
    assert (first > 0.4).all()
    assert (last < 0.15).all(), last

    def forgetful(model):
        return lambda params, arch, tokens: model.apply(params, arch, tokens.reshape(-1, 1)).reshape(*tokens.shape, -1)

    assert (_learned(archs, forgetful)[1] > 0.4).all()
