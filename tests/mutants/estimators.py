"""Mistakes in `jaxnas/estimators`, `jaxnas/relaxations` and `jaxnas/policies`."""

from tests.mutants.mutant import Mutant

GATES = "jaxnas/estimators/gates.py"
SCORE = "jaxnas/estimators/score.py"
MEANS = "tests/estimators/test_unbiased.py::test_mean_is_the_exact_gradient_and_a_wrong_variant_is_caught"
GOLDENS = ("tests/estimators/test_goldens.py",)
ORACLES = ("tests/estimators/test_oracles.py",)
ROWS = ("tests/estimators/test_rows.py",)
RELAXATIONS = ("tests/test_relaxations.py",)
PROXYLESS = ("tests/searchers/test_first_steps_proxyless.py",)

MUTANTS = (
    Mutant(
        "uniform-active",
        "the active path of a pair drawn uniformly",
        GATES,
        "active = categorical(two).sample(key_active, two)",
        "active = categorical(two).sample(key_active, jax.tree.map(jnp.zeros_like, two))",
        PROXYLESS,
    ),
    Mutant(
        "pair-unpaired",
        "the pair gets the probabilities of all operations",
        GATES,
        "i, _to_logits(two, g), -1, inplace=False)",
        "i, _to_logits(two, g) * jnp.sum(jnp.take_along_axis(jax.nn.softmax(leaf), i, -1)), -1, inplace=False)",
        ("tests/estimators/test_gates.py",),
    ),
    Mutant(
        "rescale-sign",
        "the shift of a pair added instead of taken away",
        GATES,
        "i, moved - shift, -1",
        "i, moved + shift, -1",
        ("tests/estimators/test_gates.py",),
    ),
    Mutant(
        "inclusive",
        "the average of all rewards used before it has moved",
        SCORE,
        '(average if baseline == "inclusive_average" else state.baseline)[None]',
        "state.baseline[None]",
        PROXYLESS,
    ),
    Mutant(
        "leave-one-in",
        "leave-one-out divided by all samples",
        SCORE,
        "levels = (jnp.sum(losses) - losses) / (num_samples - 1)",
        "levels = (jnp.sum(losses) - losses) / num_samples",
        PROXYLESS,
    ),
    Mutant(
        "average-start",
        "a moving average that starts at zero",
        SCORE,
        "jnp.where(state.step == 0, mean, decay * average + (1 - decay) * mean)",
        "decay * average + (1 - decay) * mean",
        PROXYLESS,
    ),
    Mutant(
        "stale-key",
        "all samples of an estimate from one key",
        "jaxnas/estimators/_pathwise.py",
        "                (value, out), grads = draw(key)\n",
        "                (value, out), grads = draw(keys[0])\n",
        ORACLES,
    ),
    Mutant(
        "sample-sum",
        "the sum over samples instead of the mean",
        "jaxnas/estimators/_pathwise.py",
        "t + new / num_samples",
        "t + new",
        (
            "tests/estimators/test_oracles.py::test_samples_are_averaged_and_weights_scale_the_operations_they_belong_to",
        ),
    ),
    Mutant(
        "weight-sum",
        "weight gradients of all samples added instead of averaged",
        "jaxnas/estimators/evaluation.py",
        "t + g / count",
        "t + g",
        ROWS,
    ),
    Mutant(
        "control-left-out",
        "the control variate missing in the score term",
        "jaxnas/estimators/control_variates.py",
        "(loss - tied) * s + d",
        "loss * s + d",
        (MEANS + "[rebar]",),
    ),
    Mutant(
        "mirrored",
        "both members of a pair from the same side of the uniforms",
        "jaxnas/estimators/coupled.py",
        "bits, mirrored = 1 - u < s, u < s",
        "bits, mirrored = u < s, u < s",
        (MEANS + "[disarm_sb order0]",),
    ),
    Mutant(
        "arsm-axis",
        "the losses of swaps centred over the wrong axis",
        "jaxnas/estimators/_arsm.py",
        "jnp.mean(table[:k, :k], 0, keepdims=True)",
        "jnp.mean(table[:k, :k], keepdims=True)",
        ROWS,
    ),
    Mutant(
        "arm-half",
        "the sign of ARM's uniforms",
        "jaxnas/estimators/binary.py",
        "return u - 0.5",
        "return 0.5 - u",
        (MEANS + "[arm]",),
    ),
    Mutant(
        "unordered",
        "the weight of a pair without its normalisation",
        "jaxnas/estimators/_without_replacement.py",
        "weight = rest[0] * rest[1] / (rest[0] + rest[1]) *",
        "weight = rest[0] * rest[1] *",
        (MEANS + "[without_replacement]",),
    ),
    Mutant(
        "normal-noise",
        "normal noise instead of Gumbel's",
        "jaxnas/relaxations/gumbel.py",
        "logits + jax.random.gumbel(key, logits.shape, logits.dtype)",
        "logits + jax.random.normal(key, logits.shape, logits.dtype)",
        ("tests/test_relaxations.py::test_argmax_is_drawn_from_the_softmax",),
    ),
    Mutant(
        "concrete-power",
        "the density of a relaxed sample with a power of the temperature too many",
        "jaxnas/relaxations/gumbel.py",
        "(k - 1) * jnp.log(t)",
        "k * jnp.log(t)",
        ("tests/test_relaxations.py::test_density_of_two_operations_integrates_to_one",),
    ),
    Mutant(
        "reinmax-half",
        "the second term of ReinMax not halved",
        "jaxnas/relaxations/_straight_through.py",
        "- _slope(jax.nn.softmax(logits, -1), logits) / 2",
        "- _slope(jax.nn.softmax(logits, -1), logits)",
        ("tests/estimators/test_limits.py",),
    ),
    Mutant(
        "rao-temperature",
        "the inner derivative of the temperature left out of Gumbel-Rao",
        "jaxnas/relaxations/_straight_through.py",
        "return _slope(jax.nn.softmax(z / temperature, -1), logits) / temperature",
        "return _slope(jax.nn.softmax(z / temperature, -1), logits)",
        ("tests/estimators/test_limits.py",),
    ),
    Mutant(
        "st-temperature",
        "the inner derivative of the temperature left out of a straight-through softmax",
        "jaxnas/relaxations/_straight_through.py",
        "return (hard + _slope(p, logits) / temperature).astype(dtype)",
        "return (hard + _slope(p, logits)).astype(dtype)",
        ("tests/estimators/test_limits.py",),
    ),
    Mutant(
        "annealed-offset",
        "the temperature falls one epoch late",
        "jaxnas/relaxations/temperature.py",
        "t = jnp.minimum(step // steps_per_epoch + 1, epochs)",
        "t = jnp.minimum(step // steps_per_epoch, epochs)",
        ("tests/test_relaxations.py::test_annealed_has_the_endpoints_of_the_release",),
    ),
    Mutant(
        "one-key",
        "all kinds of decisions share their noise",
        "jaxnas/policies/_categorical.py",
        "jax.tree.map(draw, optax.tree.split_key_like(key, logits), logits)",
        "jax.tree.map(lambda leaf: draw(key, leaf), logits)",
        ("tests/test_policies.py",),
    ),
    Mutant(
        "entropy-sum",
        "the entropy of all decisions added instead of averaged",
        "jaxnas/policies/_categorical.py",
        "return jnp.mean(jnp.concatenate(",
        "return jnp.sum(jnp.concatenate(",
        ("tests/test_policies.py",),
    ),
)
