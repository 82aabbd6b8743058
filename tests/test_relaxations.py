"""Relaxations: limits and invariances, Gumbel noise against the softmax it stands for, and the Concrete density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.relaxations import (
    annealed,
    check_temperature,
    concrete_log_prob,
    gumbel_softmax,
    softmax,
    straight_through,
    temperature_at,
)

LOGITS = np.array([[0.3, -0.7, 1.1, 0.0], [2.0, 0.5, -1.0, 0.1]], np.float32)
ROW = LOGITS[0]
KEY = jax.random.key(7)
SOFT = {"softmax": softmax, "gumbel_softmax": gumbel_softmax}
HARD = {name: straight_through(relaxation) for name, relaxation in SOFT.items()}
ALL = [*SOFT.values(), *HARD.values()]
NAMES = [*SOFT, *(f"straight_through({name})" for name in HARD)]


def z_scores(draws, expected=0.0):
    """How many standard errors the mean of `draws[N, ...]` lies from `expected`."""
    draws = np.asarray(draws, np.float64)
    return (draws.mean(0) - expected) / (draws.std(0, ddof=1) / np.sqrt(len(draws)))


def probabilities(logits):
    """Softmax in float64."""
    exp = np.exp(np.asarray(logits, np.float64))
    return exp / exp.sum(-1, keepdims=True)


def sample(relaxation, count, temperature, logits=ROW, dtype=jnp.float32):
    """Draws `[count, K]` of one decision."""
    rows = jnp.broadcast_to(jnp.asarray(logits, dtype), (count, len(logits)))
    return relaxation(KEY, rows, temperature)


# Limits and invariances


@pytest.mark.parametrize("relaxation", ALL, ids=NAMES)
@pytest.mark.parametrize("temperature", [0.03, 1.0, 10.0])
def test_rows_sum_to_one_and_shifts_change_nothing(relaxation, temperature):
    weight = relaxation(KEY, LOGITS, temperature)
    assert weight.shape == LOGITS.shape
    np.testing.assert_allclose(weight.sum(-1), 1.0, rtol=1e-6)
    shifted = relaxation(KEY, jnp.asarray(LOGITS + np.array([[5.0], [-3.0]], np.float32)), temperature)
    np.testing.assert_allclose(weight, shifted, atol=1e-4 if temperature < 0.1 else 1e-6)


@pytest.mark.parametrize("relaxation", SOFT.values(), ids=SOFT)
def test_temperature_goes_from_one_hot_to_uniform(relaxation):
    cold, mild, hot = (relaxation(KEY, LOGITS, t) for t in (1e-4, 1.0, 1e6))
    chosen = jax.nn.one_hot(jnp.argmax(mild, -1), LOGITS.shape[-1])
    np.testing.assert_allclose(cold, chosen, atol=1e-6)
    np.testing.assert_allclose(hot, 0.25, atol=1e-4)


def test_softmax_ignores_the_key_and_keeps_order():
    np.testing.assert_allclose(softmax(None, LOGITS), probabilities(LOGITS), rtol=1e-6)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(softmax(KEY, LOGITS[:, order], 0.5), softmax(None, LOGITS, 0.5)[:, order], rtol=1e-6)


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_straight_through_is_discrete_in_value_and_relaxed_in_gradient(name, temperature):
    soft, hard = SOFT[name], jax.jit(HARD[name])
    weight = hard(KEY, LOGITS, temperature)
    assert set(np.unique(weight)) == {0.0, 1.0}
    np.testing.assert_array_equal(jnp.argmax(weight, -1), jnp.argmax(soft(KEY, LOGITS, temperature), -1))
    jacobians = [jax.jacobian(fn, 1)(KEY, jnp.asarray(LOGITS), temperature) for fn in (soft, hard)]
    assert np.abs(jacobians[0]).max() > 1e-3
    np.testing.assert_allclose(*jacobians, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("relaxation", ALL, ids=NAMES)
def test_bfloat16_stays_bfloat16(relaxation):
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    for temperature in (0.5, jnp.asarray(0.5, jnp.float32), temperature_at(annealed(), jnp.asarray(3))):
        weight = relaxation(KEY, logits, temperature)
        assert weight.dtype == jnp.bfloat16
        np.testing.assert_allclose(weight.astype(jnp.float32).sum(-1), 1.0, atol=0.02)


def test_ten_million_draws_hold_no_nan():
    finite = jax.jit(lambda: jnp.isfinite(sample(gumbel_softmax, 2_500_000, 0.03)).all())
    assert finite()


# Gumbel noise


def gumbel_with(sign_and_scale):
    def relaxation(key, logits, temperature):
        return jax.nn.softmax((logits + sign_and_scale * jax.random.gumbel(key, logits.shape)) / temperature)

    return relaxation


def frequency_z(relaxation, temperature, dtype=jnp.float32):
    chosen = jnp.argmax(sample(relaxation, 200_000, temperature, dtype=dtype), -1)
    return np.abs(z_scores(jax.nn.one_hot(chosen, len(ROW)), probabilities(ROW))).max()


@pytest.mark.statistical
@pytest.mark.parametrize("temperature", [0.03, 1.0])
def test_argmax_is_drawn_from_the_softmax(temperature):
    assert frequency_z(gumbel_softmax, temperature) < 4.5
    assert frequency_z(HARD["gumbel_softmax"], temperature) < 4.5
    assert frequency_z(gumbel_with(-1.0), temperature) > 20
    assert frequency_z(gumbel_with(0.9), temperature) > 20


@pytest.mark.statistical
def test_bfloat16_logits_are_drawn_with_float32_noise():
    logits = np.array([6.0, 0.0, 1.0, 0.0], np.float32)  # rare operations, which noise of eight bits never reaches
    chosen = jnp.argmax(sample(gumbel_softmax, 200_000, 1.0, logits, jnp.bfloat16), -1)
    assert np.abs(z_scores(jax.nn.one_hot(chosen, 4), probabilities(logits))).max() < 4.5
    coarse = jnp.asarray(logits[None], jnp.bfloat16) + jax.random.gumbel(KEY, (200_000, 4), jnp.bfloat16)
    assert np.abs(z_scores(jax.nn.one_hot(jnp.argmax(coarse, -1), 4), probabilities(logits))).max() > 8


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("temperature", "mean", "largest"),
    [
        (1.0, (0.248, 0.121, 0.430, 0.201), 0.629),
        (0.5, (0.239, 0.096, 0.482, 0.183), 0.785),
        (0.1, (0.231, 0.086, 0.513, 0.171), 0.955),
    ],
)
def test_mean_weight_is_not_the_softmax_above_zero_temperature(temperature, mean, largest):
    weight = sample(gumbel_softmax, 200_000, temperature)
    np.testing.assert_allclose(weight.mean(0), mean, atol=4e-3)
    np.testing.assert_allclose(weight.max(-1).mean(), largest, atol=2e-3)


# The Concrete density


def log_draws(count, temperature, logits=ROW):
    rows = jnp.broadcast_to(jnp.asarray(logits), (count, len(logits)))
    return jax.nn.log_softmax((rows + jax.random.gumbel(KEY, rows.shape)) / temperature)


def score(logits, temperature, log_weight):
    """`d log p / d logits`, one row per draw."""
    rows = jnp.broadcast_to(jnp.asarray(logits), log_weight.shape)
    return jax.jit(jax.grad(lambda rows: concrete_log_prob(rows, temperature, log_weight).sum()))(rows)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("logits", [(0.0, 0.0), (1.5, -0.4)])
def test_density_of_two_operations_integrates_to_one(temperature, logits):
    s = np.linspace(-60.0, 60.0, 24_001) / min(temperature, 1.0)  # z = sigmoid(s), so dz = z (1 - z) ds
    log_z = np.stack([-np.logaddexp(0.0, -s), -np.logaddexp(0.0, s)], -1)

    def integral(density_temperature):
        rows = jnp.broadcast_to(jnp.asarray(logits), log_z.shape)
        log_p = np.asarray(concrete_log_prob(rows, density_temperature, jnp.asarray(log_z, jnp.float32)), np.float64)
        return np.trapezoid(np.exp(log_p + log_z.sum(-1)), s)

    assert integral(temperature) == pytest.approx(1.0, abs=1e-4)
    # The logistic density of s = (logits_1 - logits_2 + noise) / t, written without the general formula.
    rows = jnp.broadcast_to(jnp.asarray(logits), log_z.shape)
    u = temperature * s - (logits[0] - logits[1])
    expected = np.log(temperature) - np.logaddexp(0, u) - np.logaddexp(0, -u) - log_z.sum(-1)
    found = concrete_log_prob(rows, temperature, jnp.asarray(log_z, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.statistical
def test_density_of_three_operations_integrates_to_one():
    logits = jnp.array([0.4, -0.3, 0.9])
    log_z = jax.nn.log_softmax(-jax.random.gumbel(KEY, (100_000, 3)))  # uniform over the simplex: density 2
    log_p = concrete_log_prob(jnp.broadcast_to(logits, log_z.shape), 1.2, log_z)
    assert np.abs(z_scores(np.exp(log_p) / 2, 1.0)) < 4.5
    assert np.abs(z_scores(np.exp(log_p), 1.0)) > 20  # the constant (K - 1)! left out


@pytest.mark.statistical
@pytest.mark.parametrize("temperature", [0.03, 0.7])
def test_score_has_mean_zero(temperature):
    log_weight = log_draws(200_000, temperature)
    assert np.abs(z_scores(score(ROW, temperature, log_weight))).max() < 4.5
    assert np.abs(z_scores(score(ROW * 0.9, temperature, log_weight))).max() > 10
    assert np.abs(z_scores(score(ROW, temperature * 1.2, log_weight))).max() > 10


def test_score_is_finite_at_the_coldest_temperature():
    noise = jax.random.gumbel(KEY, (20_000, 4))
    level = (jnp.broadcast_to(jnp.asarray(ROW), noise.shape) + noise) / 0.03
    assert jnp.isfinite(score(ROW, 0.03, jax.nn.log_softmax(level))).all()
    assert not jnp.isfinite(score(ROW, 0.03, jnp.log(jax.nn.softmax(level)))).all()


def test_score_is_one_minus_k_softmax():
    log_weight = log_draws(100, 0.7)
    expected = 1 - 4 * probabilities(ROW[None] - 0.7 * np.asarray(log_weight))
    np.testing.assert_allclose(score(ROW, 0.7, log_weight), expected, atol=1e-5)


# Temperatures


def test_annealed_has_the_endpoints_of_the_release():
    schedule = annealed()
    levels = np.array([schedule(epoch) for epoch in range(400)])
    assert levels[0] == pytest.approx(1 - 0.97 / 150, abs=1e-6)
    assert levels[149] == pytest.approx(0.03, abs=1e-7)
    assert levels.min() >= np.float32(0.03)
    assert (levels[150:] == levels[149]).all()
    assert (np.diff(levels[:150]) < 0).all()


def test_annealed_moves_once_per_epoch_and_under_jit():
    schedule = jax.jit(annealed(2.0, 0.5, epochs=3, steps_per_epoch=4))
    levels = [float(schedule(jnp.asarray(step, jnp.int32))) for step in range(14)]
    np.testing.assert_allclose(levels, [1.5] * 4 + [1.0] * 4 + [0.5] * 6, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"last": 0.0}, {"last": -0.1}, {"first": 0.02}, {"epochs": 0}, {"steps_per_epoch": 0}, {"first": float("nan")}],
)
def test_annealed_names_a_bad_argument(arguments):
    ((_, value),) = arguments.items()
    with pytest.raises(ValueError, match=rf"{value}"):
        annealed(**arguments)


def test_temperature_must_be_above_zero():
    for bad in (0.0, -1.0, float("nan"), jnp.array([1.0, 0.0])):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            check_temperature(bad)
    for good in (1e-3, jnp.asarray(2.0), annealed()):
        check_temperature(good)
    jax.jit(check_temperature)(0.0)  # a traced value cannot be looked at


def test_temperature_at_takes_a_float_an_array_or_a_schedule():
    step = jnp.asarray(1, jnp.int32)
    for temperature in (0.5, jnp.asarray(0.5), lambda step: 0.25 * (step + 1)):
        level = temperature_at(temperature, step)
        assert level == 0.5
        assert level.dtype == jnp.float32
        assert level.shape == ()
