"""What every estimator has in common, checked for one table of all of them.

To add an estimator, add a row to `ROWS`: a name and a factory that takes the policy, once for each of its modes that
has code of its own. Everything below then runs on it; put what is special to it into `test_oracles.py`. The loss takes
dense and sparse paths and probes, and its weights are a plain dictionary. `temperature` says what the estimator's
`info["temperature"]` reads at its first two steps, where it has one.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnas.estimators
import jaxnas.relaxations
from jaxnas.base import Batch, Estimate, Estimator, Policy, SearchSpace
from jaxnas.estimators import (
    ESTIMATORS,
    arm,
    arsm,
    binary_gate,
    build,
    disarm,
    disarm_iw,
    disarm_sb,
    exact,
    gdas,
    pathwise,
    rebar,
    reinforce,
    relax,
    two_path_gate,
    without_replacement,
)
from jaxnas.policies import categorical
from jaxnas.relaxations import (
    annealed,
    gumbel_rao,
    gumbel_softmax,
    reinmax,
    softmax,
    st_gumbel,
    st_softmax,
    straight_through,
)
from jaxnas.searchers import gradient_search, joint
from jaxnas.spaces import gates

pytestmark = pytest.mark.x64  # make test-all runs this file once more, with 64-bit JAX

ANNEALED = annealed(1.0, 0.5, epochs=4)


class Row(NamedTuple):
    name: str
    factory: Callable[[Policy], Estimator]
    temperature: tuple[float, float] | None = None
    binary: bool = False

    @property
    def logits(self):
        return jax.tree.map(lambda leaf: leaf[:, :2], LOGITS) if self.binary else LOGITS

    @property
    def estimator(self):
        return self.factory(categorical(self.logits))

    @property
    def params(self):
        return {**PARAMS, "ops": PARAMS["ops"][:, :2]} if self.binary else PARAMS


ROWS = [
    Row("exact", exact),
    Row("exact sparse", lambda policy: exact(policy, dense=False)),
    Row("softmax", lambda _: pathwise(softmax), (1.0, 1.0)),
    Row("gumbel_softmax", lambda _: pathwise(gumbel_softmax, ANNEALED), (0.875, 0.75)),
    Row("gumbel_softmax, 3 samples", lambda _: pathwise(gumbel_softmax, 0.7, num_samples=3), (0.7, 0.7)),
    Row("straight-through", lambda _: pathwise(straight_through(gumbel_softmax), ANNEALED), (0.875, 0.75)),
    Row("st_gumbel", lambda _: pathwise(st_gumbel), (1.0, 1.0)),
    Row("st_softmax", lambda _: pathwise(st_softmax, ANNEALED), (0.875, 0.75)),
    Row("gumbel_rao", lambda _: pathwise(gumbel_rao(3), 0.5), (0.5, 0.5)),
    Row("reinmax", lambda _: pathwise(reinmax, 1.5), (1.5, 1.5)),
    Row("binary_gate", lambda _: binary_gate()),
    Row("two_path_gate", lambda _: two_path_gate()),
    Row("reinforce", reinforce),
    Row("reinforce dense", lambda policy: reinforce(policy, dense=True)),
    Row("reinforce_moving_average", lambda policy: reinforce(policy, baseline="moving_average", num_samples=2)),
    Row("reinforce_inclusive_average", lambda policy: reinforce(policy, baseline="inclusive_average", num_samples=2)),
    Row("reinforce_self_critical", lambda policy: reinforce(policy, baseline="self_critical", num_samples=4)),
    Row("reinforce_leave_one_out", lambda policy: reinforce(policy, baseline="leave_one_out", num_samples=4)),
    Row("without_replacement", lambda _: without_replacement()),
    Row("arsm", lambda _: arsm()),
    Row("disarm_sb", lambda _: disarm_sb()),
    Row("disarm_iw", lambda _: disarm_iw()),
    Row("arm", lambda _: arm(), binary=True),
    Row("disarm", lambda _: disarm(), binary=True),
    Row("rebar", lambda _: rebar(), (0.5, 0.5)),
    Row("relax", lambda _: relax(), (0.5, 0.5)),
    Row("rebar, learned", lambda _: rebar(tx=optax.adam(1e-2)), (0.5, 0.5 * np.exp(0.01))),
    Row("relax, learned", lambda _: relax(tx=optax.adam(1e-2)), (0.5, 0.5 * np.exp(0.01))),
]
EAGER = ["exact", "gumbel_softmax, 3 samples", "two_path_gate", "reinforce_self_critical", "relax"]
# Of module scope, so that pytest keeps the tests of a row together: they share a compiled program.
EVERY = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS], scope="module")

KEY = jax.random.key(0)
LOGITS = {"a": jnp.float32([[0.4, -0.7, 1.1], [0.2, 0.3, -1.0]]), "b": jnp.float32([[0.8, -0.2]])}
POLICY = categorical(LOGITS)
PARAMS = {
    "ops": jnp.linspace(-1.0, 1.0, 18, dtype=jnp.float32).reshape(2, 3, 3),
    "gain": jnp.float32([0.5, -1.5]),
    "bias": jnp.float32(0.3),
}


def loss_fn(paths, params):
    """A smooth loss in the gates of both leaves and in all weights; the auxiliary output is a dictionary."""
    a = gates(paths.select(lambda tree: tree["a"]), params["ops"].shape[1])
    b = gates(paths.select(lambda tree: tree["b"]), 2)
    x = jnp.tanh(jnp.einsum("ek,ekd->d", a, params["ops"]) + params["bias"])
    loss = jnp.sum(x**2 * (1 + b[0] @ params["gain"]))
    return loss, {"accuracy": jnp.mean(x)}


def start(row):
    return row.estimator.init(KEY, row.logits)


def run(row):
    """`(key, state, logits) -> (state, estimate)` on the loss above."""
    estimator = row.estimator
    return lambda key, state, logits=row.logits: estimator.estimate(key, state, logits, loss_fn, row.params)


@functools.cache
def compiled(row):
    """`run` as a program that all tests of a row share, and that refuses to be traced twice."""
    estimate, traces = run(row), []

    def once(key, state, logits):
        traces.append(None)
        assert len(traces) == 1, f"{row.name} was traced {len(traces)} times"
        return estimate(key, state, logits)

    return jax.jit(once)


@EVERY
def test_parameter_names(row):
    estimator = row.estimator
    assert list(inspect.signature(estimator.init).parameters) == ["key", "policy_params"]
    names = ["key", "state", "policy_params", "loss_fn", "params"]
    assert list(inspect.signature(estimator.estimate).parameters) == names


@pytest.mark.leaks
@EVERY
def test_state_is_a_fixed_point_and_gradients_look_like_what_they_are_of(row):
    state = start(row)
    new, estimate = jax.eval_shape(run(row), KEY, state)
    assert isinstance(estimate, Estimate)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(estimate.policy_grads, row.logits)
    chex.assert_trees_all_equal_shapes_and_dtypes(estimate.weight_grads, row.params)
    scalars = [estimate.value, estimate.aux["accuracy"], *estimate.info.values()]
    assert all(leaf.shape == () for leaf in scalars)
    assert jax.tree.structure(estimate.paths.weight) == jax.tree.structure(LOGITS)


@EVERY
def test_gradients_are_finite_and_reach_everything(row):
    several = [compiled(row)(key, start(row), row.logits)[1] for key in jax.random.split(KEY, 8)]
    chex.assert_tree_all_finite(several)
    for grads in ([found.policy_grads for found in several], [found.weight_grads for found in several]):
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(jax.tree.map(lambda *g: np.stack(g), *grads)))


@pytest.mark.parametrize("row", [row for row in ROWS if not row.name.startswith("exact")], ids=lambda row: row.name)
def test_the_auxiliary_output_is_that_of_the_paths_that_are_returned(row):
    _, found = compiled(row)(KEY, start(row), row.logits)
    aux = jax.jit(loss_fn)(found.paths, row.params)[1]
    np.testing.assert_allclose(found.aux["accuracy"], aux["accuracy"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in EAGER], ids=EAGER)
def test_jit_equals_eager(row):
    # One row for each kind: without `jit` every operation is compiled on its own, seconds a row.
    state = start(row)
    eager = run(row)(KEY, state, row.logits)
    chex.assert_trees_all_close(compiled(row)(KEY, state, row.logits), eager, rtol=1e-5, atol=1e-6)


@EVERY
def test_scan_and_vmap_equal_loops_and_repeats_do_not_trace_again(row):
    start_state = start(row)
    keys = jax.random.split(KEY, (2, 3))
    step = run(row)
    together = jax.jit(jax.vmap(lambda keys: jax.lax.scan(lambda s, key: step(key, s), start_state, keys)))(keys)
    for i in range(2):
        last, estimates = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        state = start_state
        for j in range(3):
            state, estimate = compiled(row)(keys[i, j], state, row.logits)
            own = jax.tree.map(lambda leaf, j=j: leaf[j], estimates)
            chex.assert_trees_all_close(own, estimate, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(last, state, rtol=1e-5, atol=1e-6)


@EVERY
def test_bfloat16_in_is_bfloat16_out(row):
    logits, params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (row.logits, row.params))
    estimator = row.factory(categorical(logits))
    state = estimator.init(KEY, logits)

    def estimate(logits, params):
        return estimator.estimate(KEY, state, logits, loss_fn, params)

    new, found = jax.eval_shape(estimate, logits, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal_dtypes(found.policy_grads, logits)
    chex.assert_trees_all_equal_dtypes(found.weight_grads, params)
    chex.assert_trees_all_equal_dtypes(jax.eval_shape(estimate, logits, row.params)[1].weight_grads, row.params)
    chex.assert_trees_all_equal_dtypes(jax.eval_shape(estimate, row.logits, params)[1].policy_grads, row.logits)
    if found.paths.index is None:
        chex.assert_trees_all_equal_dtypes(found.paths.weight, logits)


@EVERY
def test_a_shift_of_logits_changes_nothing(row):
    state = start(row)
    _, estimate = compiled(row)(KEY, state, row.logits)
    _, shifted = compiled(row)(KEY, state, jax.tree.map(lambda leaf: leaf + 2.0, row.logits))
    chex.assert_trees_all_close(shifted, estimate, rtol=1e-4, atol=1e-5)
    for leaf in jax.tree.leaves(shifted.policy_grads):
        np.testing.assert_allclose(leaf.sum(-1), 0.0, atol=1e-5)


@EVERY
def test_schedules_of_temperature_advance_with_the_state(row):
    state = start(row)
    state, first = compiled(row)(KEY, state, row.logits)
    state, second = compiled(row)(KEY, state, row.logits)
    if row.temperature is None:
        assert "temperature" not in first.info
    else:
        found = float(first.info["temperature"]), float(second.info["temperature"])
        assert found == pytest.approx(row.temperature, rel=1e-6)


@EVERY
def test_a_bad_batch_then_thirty_good_ones(row):
    """Of a rejected step nothing survives but two counts, and the search goes on."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), row.logits)
    space = SearchSpace(lambda key, x: row.params, None, None, None, shapes)

    def loss(paths, params, data, key):
        value, aux = loss_fn(paths, params)
        return data[0] * value, aux

    txs = optax.adam(0.01), optax.adam(0.01)
    searcher = gradient_search(space, categorical(shapes), row.estimator, *txs, loss=loss, step=joint)
    good, bad = (Batch((jnp.float32(factor),), (jnp.float32(factor),)) for factor in (1.0, jnp.nan))
    step = jax.jit(searcher.step)
    start = searcher.init(KEY, good)._replace(policy_params=row.logits)
    state, info = step(KEY, start, bad)
    assert info.nonfinite == 1
    chex.assert_trees_all_equal(state, start._replace(step=state.step, bad=state.bad))
    for i in range(30):
        state, info = step(jax.random.fold_in(KEY, i), state, good)
        assert info.nonfinite == 0
    assert (state.step, state.bad, state.policy_steps) == (31, 1, 30)
    chex.assert_tree_all_finite(state)
    for before, after in ((start.policy_params, state.policy_params), (start.params, state.params)):
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max() > 1e-3, before, after)))


@pytest.mark.parametrize("name", ["moving_average", "inclusive_average", "rebar", "relax"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_what_an_estimator_learns_by_itself_survives_a_loss_that_is_not_finite(name, bad):
    learned = {"rebar": rebar(tx=optax.adam(1e-2)), "relax": relax(tx=optax.adam(1e-2))}
    estimator = learned[name] if name in learned else reinforce(categorical(LOGITS), baseline=name, num_samples=2)

    @jax.jit
    def estimate(state, factor):
        def scaled(paths, params):
            return factor * loss_fn(paths, params)[0], None

        return estimator.estimate(KEY, state, LOGITS, scaled, PARAMS)

    state, _ = estimate(estimator.init(KEY, LOGITS), 1.0)
    after, found = estimate(state, bad)
    assert not np.isfinite(found.value)  # the caller is told
    chex.assert_trees_all_equal(after, state)


def test_a_temperature_can_be_swept_under_vmap():
    @jax.jit
    @jax.vmap
    def grads(temperature):
        estimator = pathwise(gumbel_softmax, temperature)
        return estimator.estimate(KEY, estimator.init(KEY, LOGITS), LOGITS, loss_fn, PARAMS)[1].policy_grads

    row = Row("gumbel_softmax, at 0.7", lambda _: pathwise(gumbel_softmax, 0.7))
    expected = compiled(row)(KEY, start(row), LOGITS)[1].policy_grads
    cold, mild = (jax.tree.map(lambda leaf, i=i: leaf[i], grads(jnp.array([0.7, 1.0]))) for i in (0, 1))
    chex.assert_trees_all_close(cold, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(mild["a"] - cold["a"]).max() > 1e-2


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_above_zero(temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        pathwise(gumbel_softmax, temperature)


def test_number_of_samples_and_of_architectures_are_bounded():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        pathwise(num_samples=0)
    with pytest.raises(ValueError, match="18 architectures, more than the limit of 17"):
        run(Row("exact, 17", lambda policy: exact(policy, limit=17)))(KEY, ())


def test_every_estimator_has_a_row():
    names = {row.name for row in ROWS}
    assert names >= {name for name, entry in ESTIMATORS.items() if not entry.supernet}
    assert [row.name for row in ROWS if row.binary] == [name for name, entry in ESTIMATORS.items() if entry.binary]


@pytest.mark.parametrize("name", [name for name, entry in ESTIMATORS.items() if not entry.supernet])
def test_the_code_in_the_table_makes_what_the_name_does(name):
    entry = ESTIMATORS[name]
    row = Row(name, functools.partial(build, name), binary=entry.binary)
    scope = {**vars(jaxnas.estimators), **vars(jaxnas.relaxations)}
    written = row._replace(factory=lambda policy: eval(entry.code, {**scope, "policy": policy}))
    one, other = (str(jax.make_jaxpr(run(made))(KEY, start(row), row.logits)) for made in (row, written))
    assert re.sub("0x[0-9a-f]+", "", one) == re.sub("0x[0-9a-f]+", "", other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build("reinforced", POLICY),
            "unknown estimator 'reinforced', accepted are exact, softmax, gumbel_softmax",
        ),
        (
            lambda: build("arsm", POLICY, temperature=1.0),
            "estimator 'arsm': arsm.* unexpected keyword argument 'temperature'",
        ),
        (
            lambda: build("reinforce", POLICY, baseline="mean"),
            "baseline must be one of none, .* leave_one_out, got 'mean'",
        ),
        (lambda: reinforce(POLICY, baseline="leave_one_out"), "num_samples must be at least 2 with .*, got 1"),
        (lambda: reinforce(POLICY, num_samples=0), "num_samples must be at least 1 with .*, got 0"),
        (lambda: reinforce(POLICY, decay=1.0), r"decay must lie in \[0, 1\), got 1.0"),
        (lambda: gumbel_rao(0), "num_samples must be at least 1, got 0"),
        (lambda: disarm_sb(order="random"), "order must be 'given', 'ascending' or 'descending', got 'random'"),
        (lambda: rebar(temperature=0.0), "temperature must be above 0, got 0.0"),
        (lambda: rebar(relaxation="gumbel"), "relaxation must be 'concrete' or 'mean_field', got 'gumbel'"),
        (lambda: relax(temperature=-1.0), "temperature must be above 0, got -1.0"),
        (
            lambda: disarm().estimate(KEY, disarm().init(KEY, LOGITS), LOGITS, loss_fn, PARAMS),
            r"decisions must have two options here, got logits of shape \(2, 3\); see disarm_iw",
        ),
        (
            lambda: gdas().estimate(KEY, gdas().init(KEY, LOGITS), LOGITS, loss_fn, PARAMS),
            r"for a function of gates use pathwise\(st_gumbel\)",
        ),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
