"""Means and variances on the golden toy: enumerated outcome by outcome, and sampled.

An estimate depends on its key through a discrete outcome alone. Keys are drawn until every outcome has come up; each is
weighted with its exact probability, worked out here, and the sums are compared with numbers that were computed apart
from this library.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.base import Estimator
from jaxnas.estimators import ESTIMATORS, PathwiseState, build, exact, pathwise, two_path_gate
from jaxnas.estimators.evaluation import no_state
from jaxnas.policies import categorical
from jaxnas.relaxations import conditional_perturbed, exponential, gumbel_rao, st_gumbel
from jaxnas.spaces import gates, table_space
from tests.estimators.toys import (
    BINARY,
    BINARY_LOGITS,
    EXACT,
    KEY,
    LOGITS,
    QUADRATIC,
    VALUES,
    draw,
    space_loss,
    variance,
    z_max,
)

ONE, TWO = categorical({"edges": LOGITS}), categorical({"edges": BINARY_LOGITS})  # policies of four and two options
P = np.exp(LOGITS[0].astype(np.float64))
P /= P.sum()


def of_pair(a, b):
    """Probability that two different options, drawn one after the other, are `a` and `b`."""
    return P[a] * P[b] * (1 / (1 - P[a]) + 1 / (1 - P[b]))


def single(estimate):
    """The sampled option."""
    paths = estimate.paths
    return paths.weight["edges"][0].argmax()[None] if paths.index is None else paths.index["edges"][0]


def active_and_pair(estimate):
    """The operation that ran, and the pair."""
    return jnp.concatenate([single(estimate), jnp.sort(estimate.paths.probe.index["edges"][0])])


def two(estimate):
    """The set of two evaluations, by its mean loss."""
    first, second = np.triu_indices(4)
    near = jnp.argmin(jnp.abs(jnp.asarray((VALUES[first] + VALUES[second]) / 2, jnp.float32) - estimate.value))
    return jnp.stack([jnp.asarray(first)[near], jnp.asarray(second)[near]])


SINGLE = {(i,): P[i] for i in range(4)}
SETS = {(a, b): of_pair(a, b) for a, b in itertools.combinations(range(4), 2)}
PAIRS = {(a, b): P[a] * P[b] * (1 if a == b else 2) for a, b in itertools.combinations_with_replacement(range(4), 2)}
GATES = {(i, a, b): of_pair(a, b) * P[i] / (P[a] + P[b]) for a, b in SETS for i in (a, b)}

STRAIGHT = [-0.11134581, -0.16868888, -0.06240108, 0.34243577], 0.12753096
ENUMERATED = {
    "st_softmax": (single, SINGLE, *STRAIGHT),
    "binary_gate": (single, SINGLE, *STRAIGHT),
    "reinmax": (single, SINGLE, EXACT, 0.99969895),
    "two_path_gate": (active_and_pair, GATES, [-0.08231989, -0.08379731, -0.07104282, 0.23716001], 0.47833814),
    "reinforce": (single, SINGLE, EXACT, 3.30418072),
    "reinforce_leave_one_out": (two, PAIRS, EXACT, 1.23624581),
    "without_replacement": (two, SETS, EXACT, 0.77043668),
}


def outcomes(estimator, identify, count=3000):
    """`{outcome: gradient[K]}`, after checking that one outcome always has the same gradient."""
    logits = {"edges": jnp.asarray(LOGITS)}

    @jax.jit
    @jax.vmap
    def one(key):
        found = estimator.estimate(key, estimator.init(key, logits), logits, space_loss(QUADRATIC), {})[1]
        return identify(found), found.policy_grads["edges"][0]

    names, grads = (np.asarray(leaf) for leaf in one(jax.random.split(KEY, count)))
    found = {}
    for name, grad in zip(map(tuple, names.tolist()), grads.astype(np.float64), strict=True):
        np.testing.assert_allclose(grad, found.setdefault(name, grad), atol=1e-6)
    return found


@pytest.mark.parametrize("name", ENUMERATED)
def test_enumerated_mean_and_variance(name):
    identify, shares, mean, spread = ENUMERATED[name]
    np.testing.assert_allclose(sum(shares.values()), 1.0, rtol=1e-12)
    found = outcomes(build(name, ONE), identify)
    assert set(found) == set(shares)
    grads, weight = np.stack([found[k] for k in shares]), np.array(list(shares.values()))
    average = weight @ grads
    np.testing.assert_allclose(average, mean, atol=1e-6)
    np.testing.assert_allclose((weight @ (grads - average) ** 2).sum(), spread, atol=1e-6, rtol=1e-6)


SAMPLED = [  # trace of the covariance
    ("reinforce", {}, 3.306),
    ("reinforce_leave_one_out", {"num_samples": 4}, 0.403),
    ("without_replacement", {}, 0.77043668),
    ("arsm", {}, 0.567),
    ("disarm_sb", {"order": "given"}, 0.908),
    ("disarm_sb", {"order": "ascending"}, 1.095),
    ("disarm_sb", {"order": "descending"}, 0.614),
    ("disarm_iw", {}, 0.983),
    ("rebar", {"scale": 0.8, "temperature": 0.5, "coupled": False}, 1.504),
    ("st_softmax", {}, 0.12753096),
    ("gumbel_softmax", {}, 0.152),
    ("gumbel_softmax", {"temperature": 0.5}, 0.610),
    ("gumbel_softmax", {"temperature": 0.1}, 5.17),
    ("st_gumbel", {}, 0.362),
    ("st_gumbel", {"temperature": 0.5}, 1.116),
    ("st_gumbel", {"temperature": 0.1}, 8.006),
    ("gumbel_rao", {}, 0.258),
    ("gumbel_rao", {"temperature": 0.5}, 0.561),
    ("gumbel_rao", {"temperature": 0.1}, 1.606),
    ("reinmax", {}, 0.99969895),
]
SAMPLED_BINARY = [
    ("reinforce", {}, 1.4286),
    ("reinforce_leave_one_out", {}, 0.1855),
    ("arm", {}, 0.0743),
    ("disarm", {}, 0.0422),
]


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "settings", "spread"), SAMPLED)
def test_sampled_mean_and_variance(name, settings, spread):
    draws = draw(build(name, ONE, **settings), {"edges": LOGITS}, space_loss(QUADRATIC), 200_000)
    assert variance(draws) == pytest.approx(spread, rel=0.05)
    if ESTIMATORS[name].unbiased == "expected loss":
        assert z_max(draws, EXACT) < 4.5


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "settings", "spread"), SAMPLED_BINARY)
def test_sampled_mean_and_variance_of_a_binary_choice(name, settings, spread):
    draws = draw(build(name, TWO, **settings), {"edges": BINARY_LOGITS}, space_loss(BINARY), 200_000)
    assert variance(draws[:, 1:]) == pytest.approx(spread, rel=0.05)
    p = 1 / (1 + np.exp(-0.4))
    exactly = p * (1 - p) * (3 * 0.501**2 + np.e - 3 * 0.499**2 - 1)
    assert z_max(draws, np.array([-exactly, exactly])) < 4.5


@pytest.mark.statistical
def test_gumbel_rao_has_the_mean_of_straight_through_gumbel():
    logits = {"edges": LOGITS}

    def found(relaxation, temperature, seed, count=60_000):
        def loss(paths, params):
            return space_loss(QUADRATIC)(paths, params)[0], None

        cold = Estimator(
            no_state,
            lambda key, state, logits, loss_fn, t: pathwise(relaxation, t).estimate(
                key, PathwiseState(jnp.zeros((), jnp.int32)), logits, lambda paths, p: loss_fn(paths, {}), {}
            ),
        )
        return draw(cold, logits, loss, count, key=jax.random.key(seed), params=jnp.array(temperature))

    for temperature, most in ((1.0, 0.75), (0.5, 0.55), (0.1, 0.25)):  # gains more the colder
        wanted = found(st_gumbel, temperature, 0)

        def z(draws, wanted=wanted):
            error = np.sqrt(draws.var(0) / len(draws) + wanted.var(0) / len(wanted))
            return np.abs((draws.mean(0) - wanted.mean(0)) / error).max()

        one, ten = found(gumbel_rao(1), temperature, 1), found(gumbel_rao(10), temperature, 10, 20_000)
        hundred = found(gumbel_rao(100), temperature, 2, 2_000)
        assert max(map(z, (one, ten, hundred))) < 4.5
        assert variance(one) == pytest.approx(variance(wanted), rel=0.05)
        assert variance(hundred) < variance(ten) < most * variance(one)
        assert z(found(through_the_noise, temperature, 3)) > 10


def through_the_noise(key, logits, temperature):
    """The classic error: the gradient of Gumbel-Rao taken through the conditional noise as well."""
    key_sample, key_noise = jax.random.split(key)
    index = jax.random.categorical(key_sample, logits)
    noise = exponential(key_noise, logits)
    soft = jax.nn.softmax(conditional_perturbed(noise, logits, index) / temperature, -1)
    return jax.nn.one_hot(index, logits.shape[-1]) + soft - jax.lax.stop_gradient(soft)


@pytest.mark.statistical
def test_control_variates_help_on_the_squared_distance_toy():
    # The toy of REBAR and RELAX: the options differ little beside the loss itself, so a good baseline is everything.
    logits, p = {"edges": jnp.array([[0.0, -1.0]])}, 1 / (1 + np.e)

    def loss(paths, target):
        return (gates(paths.select(lambda tree: tree["edges"]), 2)[0, 1] - target) ** 2, None

    def trained(name, rate, settings):
        estimator = build(name, TWO, tx=optax.adam(rate), **settings)

        def run(keys, target):
            def body(state, key):
                return estimator.estimate(key, state, logits, loss, target)[0], None

            return jax.lax.scan(body, estimator.init(keys[0], logits), keys)[0]

        return jax.jit(run)

    cases = {
        "relax": ("relax", 1e-2, {}),
        "leaning": ("rebar", 3e-2, {"relaxation": "mean_field"}),
        "rebar": ("rebar", 1e-2, {}),
    }
    programs = {label: trained(*case) for label, case in cases.items()}
    for target in (jnp.array(0.45), jnp.array(0.499)):
        truth = p * (1 - p) * float((1 - target) ** 2 - target**2)
        spreads = {"reinforce": variance(draw(build("reinforce", TWO), logits, loss, 100_000, params=target))}
        for label, (name, _, settings) in cases.items():
            state = programs[label](jax.random.split(KEY, 5000), target)._replace(opt=())
            draws = draw(build(name, TWO, **settings), logits, loss, 100_000, state, params=target)
            assert z_max(draws, np.array([-truth, truth])) < 4.5
            spreads[label] = variance(draws)
        assert spreads["relax"] < 0.1 * spreads["reinforce"]
        assert spreads["leaning"] < 0.1 * spreads["reinforce"]
        # The plain relaxation is no baseline here: it learns to be off.
        assert spreads["rebar"] < 1.05 * spreads["reinforce"]


@pytest.mark.statistical
def test_two_path_gradient_of_a_linear_loss_is_a_fixed_share_of_the_exact_one():
    # K / (2 (K - 1)) with equal logits: 7 / 12 for seven operations.
    space, logits = table_space(np.arange(7.0) ** 2), {"edges": jnp.zeros((1, 7))}
    draws = draw(two_path_gate(), logits, space_loss(space), 100_000)
    whole = np.asarray(
        exact(categorical(logits)).estimate(KEY, (), logits, space_loss(space), {})[1].policy_grads["edges"][0]
    )
    assert z_max(draws, 7 / 12 * whole) < 4.5
    assert z_max(draws, whole) > 10
