"""Every estimator that claims the gradient of the expected loss, against enumeration, by z-scores.

A new unbiased estimator is one row: its name and settings, and a variant of it that is wrong in the place where it is
easily got wrong. The variant has to fail by far.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Estimator, Op
from jaxnas.estimators import (
    ESTIMATORS,
    arsm,
    binary,
    build,
    coupled,
    disarm_iw,
    disarm_sb,
    exact,
    rebar,
    reinforce,
    relax,
    without_replacement,
)
from jaxnas.estimators.evaluation import estimate_of, evaluate, no_state, score_gradient
from jaxnas.estimators.score import ReinforceState
from jaxnas.policies import categorical
from jaxnas.relaxations import conditional_perturbed
from tests.estimators.toys import (
    BINARY,
    BINARY_LOGITS,
    LOGITS,
    MIXED_LOGITS,
    PAIR_LOGITS,
    QUADRATIC,
    draw,
    flat,
    mixed_loss,
    pair_loss,
    space_loss,
    z_max,
)

COUNT = 80_000


class Row(NamedTuple):
    """`patch`: a name in `jaxnas.estimators` and what the wrong variant has there."""

    name: str
    settings: dict[str, Any]
    wrong: Callable[[], Estimator] | None = None
    patch: tuple[str, Any] | None = None


def own_mean(count):
    """Leave-one-out without leaving one out: `(1 - 1 / count)` of the gradient."""

    def estimate(key, state, logits, loss_fn, params):
        policy = categorical(logits)
        archs = jax.vmap(policy.sample, (0, None))(jax.random.split(key, count), logits)
        found = evaluate(loss_fn, params, logits, archs, dense=False)
        weight = (found.losses - found.losses.mean()) / count
        return state, estimate_of(found, score_gradient(policy, logits, archs, weight), logits, {})

    return Estimator(no_state, estimate)


def uncentred():
    """REINFORCE with `e_a` for the score, which is `e_a - p`."""

    def log_prob(logits, arch):
        rows = jax.tree.map(lambda leaf, a: jnp.sum(jnp.take_along_axis(leaf, a[..., None], -1)), logits, arch)
        return sum(jax.tree.leaves(rows))

    def estimate(key, state, logits, loss_fn, params):
        own = reinforce(categorical(logits)._replace(log_prob=log_prob))
        return own.estimate(key, state, logits, loss_fn, params)

    return Estimator(reinforce(categorical(MIXED_LOGITS)).init, estimate)


def lone_pair(key, logits):
    """Two chains from uniforms of their own, where the two of a pair share them."""
    pairs = [DRAW(k, logits) for k in jax.random.split(key)]
    return pairs[0]._replace(mirrored=pairs[1].bits, second=pairs[1].first)


def half_disarm(phi, u, first, second):
    """DisARM without its factor `sigmoid(|phi|)`."""
    del phi, u
    return jnp.where(first == second, 0.0, 0.5 * jnp.where(second == 1, -1.0, 1.0))


def stopped(noise, logits, index):
    """The conditional noise taken as a constant."""
    return conditional_perturbed(noise, jax.lax.stop_gradient(logits), index)


def waves():
    """A control variate that has nothing to do with the loss."""
    return Op(lambda key, z: jnp.linspace(-1.0, 1.5, z.size), lambda c, z: jnp.sin(z @ c) + 0.1 * jnp.sum(z**2))


DRAW = coupled._draw
ROWS = [
    Row("reinforce", {}, uncentred),
    Row("reinforce", {"num_samples": 3, "dense": True}),
    Row("reinforce_moving_average", {}),
    Row("reinforce_self_critical", {}),
    Row("reinforce_leave_one_out", {}, lambda: own_mean(2)),
    Row("reinforce_leave_one_out", {"num_samples": 4}),
    Row(
        "without_replacement",
        {},
        without_replacement,
        ("_without_replacement.another", lambda key, logits, arch: categorical(logits).sample(key, logits)),
    ),
    Row("arsm", {}, arsm, ("_arsm.exponential", lambda key, like: jax.random.uniform(key, like.shape))),
    *(
        Row("disarm_sb", {"order": o}, disarm_sb, ("coupled._draw", lone_pair))
        for o in ("given", "ascending", "descending")
    ),
    Row("disarm_iw", {}, disarm_iw, ("coupled._draw", lone_pair)),
    Row("arm", {}, lambda: binary._antithetic(lambda phi, u, first, second: jnp.abs(u - 0.5), False)),
    Row("disarm", {}, lambda: binary._antithetic(half_disarm, False)),
    Row("rebar", {}, rebar, ("control_variates.conditional_perturbed", stopped)),
    Row("rebar", {"coupled": False}),
    Row("rebar", {"relaxation": "mean_field"}),
    Row("relax", {}, relax, ("control_variates.conditional_perturbed", stopped)),
    Row("relax", {"network": waves()}),
]


@functools.cache
def problem(binary, mixed):
    """`(logits, loss, exact gradient in one row)`: one decision, or several with different numbers of options."""
    if mixed:
        logits, loss_fn = (PAIR_LOGITS, pair_loss) if binary else (MIXED_LOGITS, mixed_loss)
    else:
        logits, loss_fn = {"edges": BINARY_LOGITS if binary else LOGITS}, space_loss(BINARY if binary else QUADRATIC)
    given = jax.tree.map(jnp.asarray, logits)
    found = jax.jit(lambda given: exact(categorical(given)).estimate(jax.random.key(0), (), given, loss_fn, {})[1])(
        given
    )
    return logits, loss_fn, flat(found.policy_grads)


@pytest.mark.statistical
@pytest.mark.parametrize("row", ROWS, ids=[f"{row.name} {' '.join(row.settings)}".strip() for row in ROWS])
def test_mean_is_the_exact_gradient_and_a_wrong_variant_is_caught(row, monkeypatch):
    # `test_goldens` has the same for one decision.
    logits, loss_fn, exactly = problem(ESTIMATORS[row.name].binary, True)
    assert z_max(draw(build(row.name, categorical(logits), **row.settings), logits, loss_fn, COUNT), exactly) < 4.5
    if row.patch:
        module, name = row.patch[0].split(".")
        monkeypatch.setattr(importlib.import_module(f"jaxnas.estimators.{module}"), name, row.patch[1])
    if row.wrong:
        assert z_max(draw(row.wrong(), logits, loss_fn, COUNT), exactly) > 8


def test_every_unbiased_estimator_has_a_row():
    wanted = {name for name, entry in ESTIMATORS.items() if entry.unbiased == "expected loss"}
    assert {row.name for row in ROWS} == wanted - {"exact"}


def test_a_mean_that_includes_the_sample_itself_is_three_quarters_of_the_gradient():
    logits, loss_fn, exactly = problem(False, False)
    assert z_max(draw(own_mean(4), logits, loss_fn, COUNT), 0.75 * exactly) < 4.5


@pytest.mark.statistical
def test_an_average_that_is_moved_before_its_use_shrinks_the_gradient():
    logits = {"edges": jnp.array(LOGITS)}
    estimator = reinforce(categorical(logits), baseline="inclusive_average", num_samples=4, decay=0.01)
    exactly = problem(False, False)[2]
    later = ReinforceState(jnp.array(2.0), jnp.array(7))
    for state, factor in ((later, 1 - 0.99 / 4), (estimator.init(None, logits), 1 - 1 / 4)):
        found = draw(estimator, logits, space_loss(QUADRATIC), COUNT, state)
        assert z_max(found, factor * exactly) < 4.5
        assert z_max(found, exactly) > 8


@pytest.mark.statistical
def test_a_moving_average_of_earlier_losses_keeps_the_mean():
    logits = {"edges": jnp.asarray(LOGITS)}
    estimator = reinforce(categorical(logits), baseline="moving_average", num_samples=2)

    @jax.jit
    def warm(keys):
        def body(state, key):
            return estimator.estimate(key, state, logits, space_loss(QUADRATIC), {})[0], None

        return jax.lax.scan(body, estimator.init(keys[0], logits), keys)[0]

    state = warm(jax.random.split(jax.random.key(3), 100))
    assert abs(state.baseline - 1.5) < 0.7
    with_baseline, without = (
        draw(estimator, logits, space_loss(QUADRATIC), COUNT, s) for s in (state, estimator.init(None, logits))
    )
    assert z_max(with_baseline, problem(False, False)[2]) < 4.5
    assert with_baseline.var(0).sum() < 0.7 * without.var(0).sum()


def test_the_gradient_of_a_policy_of_ones_own():
    # The second choice depends on the first: an autoregressive controller of two steps.
    params = {"first": jnp.array([0.3, -0.5]), "second": jnp.array([[0.1, 0.9], [-1.0, 0.4]])}
    table = jnp.array([[1.0, -2.0], [0.5, 3.0]])

    def sample(key, params):
        key_first, key_second = jax.random.split(key)
        first = jax.random.categorical(key_first, params["first"])
        return {"edges": jnp.stack([first, jax.random.categorical(key_second, params["second"][first])])}

    def log_prob(params, arch):
        first, second = arch["edges"]
        return jax.nn.log_softmax(params["first"])[first] + jax.nn.log_softmax(params["second"][first])[second]

    def expected(params):
        first, second = jax.nn.softmax(params["first"]), jax.nn.softmax(params["second"])
        return jnp.sum(first[:, None] * second * table)

    def loss_fn(paths, params):
        del params
        first, second = paths.index["edges"][:, 0]
        return table[first, second], None

    policy = categorical({"edges": jax.ShapeDtypeStruct((2, 2), jnp.float32)})._replace(
        sample=sample, log_prob=log_prob
    )
    right = reinforce(policy, num_samples=3, baseline="leave_one_out")
    wanted = flat(jax.grad(expected)(params))
    assert z_max(draw(right, params, loss_fn, COUNT), wanted) < 4.5
    blind = reinforce(policy._replace(log_prob=lambda p, arch: jax.nn.log_softmax(p["first"])[arch["edges"][0]]))
    draws = draw(blind, params, loss_fn, COUNT)
    np.testing.assert_array_equal(draws[:, 2:], 0.0)
    assert z_max(draws[:, :2], wanted[:2]) < 4.5


def test_leave_one_out_does_not_see_a_shift_of_the_loss_and_a_constant_loss_gives_nothing():
    def scaled(paths, params):
        return params["scale"] * mixed_loss(paths, params)[0] + params["shift"], None

    def found(scale, shift):
        params = {"scale": jnp.array(scale), "shift": jnp.array(shift)}
        return draw(
            build("reinforce_leave_one_out", categorical(MIXED_LOGITS), num_samples=3),
            MIXED_LOGITS,
            scaled,
            100,
            params=params,
        )

    np.testing.assert_allclose(found(1.0, 100.0), found(1.0, 0.0), atol=2e-4)
    np.testing.assert_allclose(found(0.0, 5.0), 0.0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, entry in ESTIMATORS.items() if not entry.supernet])
def test_settled_and_level_logits_give_finite_gradients(name):
    logits, loss_fn, _ = problem(ESTIMATORS[name].binary, True)
    for scale in (0.0, 30.0):
        scaled = jax.tree.map(lambda leaf, scale=scale: scale * leaf, logits)
        assert np.isfinite(draw(build(name, categorical(logits)), scaled, loss_fn, 10_000)).all()


def test_a_learned_control_variate_lowers_the_variance():
    logits, loss_fn = {"edges": jnp.asarray(LOGITS)}, space_loss(QUADRATIC)
    learning, frozen = (relax(tx=tx) for tx in (optax.adam(1e-2), None))

    @jax.jit
    def train(keys):
        def body(state, key):
            return learning.estimate(key, state, logits, loss_fn, {})[0], None

        return jax.lax.scan(body, learning.init(keys[0], logits), keys)[0]

    state = train(jax.random.split(jax.random.key(5), 3000))
    assert float(state.control.scale) == 1.0
    before = draw(frozen, logits, loss_fn, 20_000)
    after = draw(frozen, logits, loss_fn, COUNT, state._replace(opt=()))
    assert z_max(after, problem(False, False)[2]) < 4.5
    assert after.var(0).sum() < 0.8 * before.var(0).sum()
