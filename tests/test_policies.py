"""Categorical policies: probabilities by enumeration, samples by their frequencies, modes and entropies."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.architectures import arch_like, enumerate_architectures
from jaxnas.policies import categorical

CHOICES = {"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((1, 2), jnp.float32)}
LOGITS = {
    "a": jnp.array([[0.4, -0.7, 1.1], [2.0, 0.3, -1.0]]),
    "b": jnp.array([[0.8, -0.2]]),
}
KEY = jax.random.key(3)


def test_log_prob_sums_to_one_over_all_architectures():
    archs = enumerate_architectures(CHOICES)
    log_p = jax.jit(jax.vmap(categorical(CHOICES).log_prob, (None, 0)))(LOGITS, archs)
    assert log_p.shape == (18,)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-6)


def test_log_prob_is_the_product_of_the_rows():
    arch = {"a": jnp.array([2, 0]), "b": jnp.array([1])}
    a, b = (jax.nn.softmax(LOGITS[name]) for name in "ab")
    found = categorical(CHOICES).log_prob(LOGITS, arch)
    assert found.shape == ()
    np.testing.assert_allclose(found, np.log(a[0, 2] * a[1, 0] * b[0, 1]), rtol=1e-6)
    shifted = jax.tree.map(lambda leaf: leaf + 100.0, LOGITS)
    np.testing.assert_allclose(categorical(CHOICES).log_prob(shifted, arch), found, rtol=1e-5)


def test_score_is_one_hot_minus_probability():
    arch = {"a": jnp.array([2, 0]), "b": jnp.array([1])}
    score = jax.grad(categorical(CHOICES).log_prob)(LOGITS, arch)
    for name, leaf in LOGITS.items():
        expected = jax.nn.one_hot(arch[name], leaf.shape[-1]) - jax.nn.softmax(leaf)
        np.testing.assert_allclose(score[name], expected, atol=1e-6)


def frequency_z(logits):
    """Largest |z| of the joint frequencies of 100,000 samples against the probabilities of `LOGITS`."""
    policy = categorical(CHOICES)
    count = 100_000
    archs = jax.jit(jax.vmap(policy.sample, (0, None)))(jax.random.split(KEY, count), logits)
    assert all(leaf.dtype == jnp.int32 for leaf in jax.tree.leaves(archs))
    number = np.ravel_multi_index((*np.asarray(archs["a"]).T, *np.asarray(archs["b"]).T), (3, 3, 2))
    found = np.bincount(number, minlength=18) / count
    p = np.exp(jax.vmap(policy.log_prob, (None, 0))(LOGITS, enumerate_architectures(CHOICES)))
    return np.abs((found - p) / np.sqrt(p * (1 - p) / count)).max()


@pytest.mark.statistical
def test_samples_have_the_frequencies_of_the_policy():
    assert frequency_z(LOGITS) < 4.5
    assert frequency_z(jax.tree.map(lambda leaf: 0.9 * leaf, LOGITS)) > 8


@pytest.mark.statistical
def test_bfloat16_logits_are_sampled_with_float32_noise():
    row = jnp.array([6.0, 0.0, 1.0])  # exact in bfloat16
    p, count = float(jax.nn.softmax(row)[0]), 400_000
    logits = {"a": jnp.broadcast_to(row, (count, 3)).astype(jnp.bfloat16)}
    found = categorical(logits).sample(KEY, logits)["a"]
    coarse = jax.random.categorical(KEY, logits["a"])  # its noise is bfloat16

    def z(samples):
        return abs(np.mean(np.asarray(samples) == 0) - p) / math.sqrt(p * (1 - p) / count)

    assert z(found) < 4.5
    assert z(coarse) > 8


def test_sample_and_mode_are_architectures():
    policy = categorical(CHOICES)
    logits = policy.init(KEY)
    for arch in (policy.sample(KEY, logits), policy.mode(logits)):
        arch_like(CHOICES, arch)
    mode = policy.mode(LOGITS)
    np.testing.assert_array_equal(mode["a"], [2, 0])
    np.testing.assert_array_equal(mode["b"], [0])
    best = jax.vmap(policy.log_prob, (None, 0))(LOGITS, enumerate_architectures(CHOICES)).max()
    np.testing.assert_allclose(policy.log_prob(LOGITS, mode), best, rtol=1e-6)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1e-3), (1.0, 0.01)])
def test_initial_logits_have_the_given_mean_and_scale(mean, scale):
    wide = {"a": jax.ShapeDtypeStruct((500, 8), jnp.float32), "b": jax.ShapeDtypeStruct((500, 8), jnp.float32)}
    logits = categorical(wide, mean=mean, scale=scale).init(KEY)
    assert not np.array_equal(logits["a"], logits["b"])
    for leaf in jax.tree.leaves(logits):
        assert leaf.dtype == jnp.float32
        assert abs(np.mean(leaf) - mean) < 4.5 * scale / math.sqrt(leaf.size)
        assert np.std(leaf) == pytest.approx(scale, rel=0.05)


def entropy(logits):
    return categorical(logits).entropy(logits)


def test_entropy_runs_from_log_k_to_zero():
    assert entropy({"a": jnp.zeros((3, 8))}) == pytest.approx(math.log(8), rel=1e-6)
    assert entropy({"a": 1e3 * jnp.eye(3)}) == pytest.approx(0.0, abs=1e-6)
    mixed = {"a": jnp.zeros((1, 4)), "b": jnp.zeros((3, 2))}
    assert entropy(mixed) == pytest.approx((math.log(4) + 3 * math.log(2)) / 4, rel=1e-6)
    p = jax.nn.softmax(LOGITS["b"])[0]
    assert entropy({"b": LOGITS["b"]}) == pytest.approx(float(-(p * jnp.log(p)).sum()), rel=1e-5)


def test_entropy_of_a_ruled_out_operation_is_that_of_the_others():
    logits = {"b": jnp.array([[-jnp.inf, 0.0, 0.0]])}
    assert entropy(logits) == pytest.approx(math.log(2), rel=1e-6)
    assert np.isfinite(jax.grad(entropy)(logits)["b"]).all()


def test_decode_asks_the_rule_of_the_space():
    assert categorical(CHOICES).decode(LOGITS, lambda scores: {"scores": scores}) == {"scores": LOGITS}


def test_a_decision_needs_two_operations():
    with pytest.raises(ValueError, match=r"at least two operations, got shape \(4, 1\)"):
        categorical({"a": jax.ShapeDtypeStruct((4, 1), jnp.float32)})
