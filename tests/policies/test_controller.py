"""The controller: against a recurrent network written out in numpy, by enumeration, by frequencies, and as it grows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.architectures import arch_like, decisions, enumerate_architectures
from jaxnas.estimators import exact, reinforce
from jaxnas.policies import Token, controller
from jaxnas.policies.tokens import as_they_lie
from jaxnas.searchers import policy_search
from tests.estimators.toys import draw, flat, z_max

KEY = jax.random.key(5)


def layers(depth):
    """Layers of a kernel (3 options), a number of filters (2 options) and an anchor point: decisions and tokens."""
    shapes = {"filters": (depth, 2), "kernel": (depth, 3), "skips": (depth * (depth - 1) // 2, 2)}
    tokens, skip = [], 2 * depth
    for layer in range(depth):
        tokens += [("kernel", depth + layer), Token("filters", layer), ("anchor", tuple(range(skip, skip + layer)))]
        skip += layer
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}, tokens


CHOICES, TOKENS = layers(3)
POLICY = controller(CHOICES, TOKENS, num_units=5, scale=1.5)  # far from uniform
PARAMS = POLICY.init(KEY)
MODE, ENTROPY = jax.jit(POLICY.mode), jax.jit(POLICY.entropy)
SHORT_ENTROPY = jax.jit(controller(CHOICES, TOKENS, length=6).entropy)
SMALL = controller(*layers(2), num_units=5, scale=1.5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(params, tokens, take, num_layers=2):
    """Probabilities of every token in order, in float64: of options, or of each skip being 1.

    `take(token, probabilities)` returns the option or the skips of a token.
    """
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    h, c = np.zeros((2, num_layers, len(params["start"])))
    x, anchors, found = params["start"], [], []
    for kind, place in tokens:
        for n, w in enumerate(params["lstm"]):
            i, f, g, o = np.split(w["input"].T @ x + w["state"].T @ h[n] + w["bias"], 4)
            c[n] = sigmoid(f) * c[n] + sigmoid(i) * np.tanh(g)
            h[n] = x = sigmoid(o) * np.tanh(c[n])
        if isinstance(place, tuple):
            w = params["attention"]
            p = np.array([sigmoid(w["score"] @ np.tanh(w["previous"].T @ a + w["current"].T @ x)) for a in anchors])
            skips = take((kind, place), p)
            anchors.append(x)
            x = sum((s * a for s, a in zip(skips, anchors)), np.zeros(len(x))) / (1 + sum(skips))
        else:
            logits = params["heads"][kind]["kernel"].T @ x + params["heads"][kind]["bias"]
            p = np.exp(logits) / np.exp(logits).sum()
            x = params["embeddings"][kind][take((kind, place), p)]
        found.append(p)
    return found


def taking(arch):
    """`take` of `by_hand` that follows an architecture."""
    row = np.concatenate([np.asarray(leaf) for leaf in jax.tree.leaves(arch)])
    return lambda token, p: row[list(token[1])] if isinstance(token[1], tuple) else row[token[1]]


def taken(tokens, found, arch):
    """Log-probabilities of what `arch` takes, by token."""
    values = [taking(arch)(token, None) for token in tokens]
    return [
        np.sum(np.log(np.where(value, p, 1 - p))) if isinstance(token[1], tuple) else np.log(p[value])
        for token, value, p in zip(tokens, values, found, strict=True)
    ]


def greedy(token, p):
    return (p > 0.5).astype(int) if isinstance(token[1], tuple) else np.argmax(p)


def architecture(index, archs):
    return jax.tree.map(lambda leaf: leaf[index], archs)


def probabilities(policy, params, choices=CHOICES):
    return np.exp(jax.jit(jax.vmap(policy.log_prob, (None, 0)))(params, enumerate_architectures(choices)))


def test_probabilities_of_all_architectures_sum_to_one():
    p = probabilities(POLICY, PARAMS)
    assert len(p) == 1728
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    assert p.max() > 10 / len(p)


@pytest.mark.parametrize("length", [1, 2, 4, 8])
def test_beyond_the_length_there_is_one_architecture(length):
    p = probabilities(controller(CHOICES, TOKENS, length=length, num_units=5), PARAMS)
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    assert (p > 0).sum() == {1: 3, 2: 6, 4: 18, 8: 36 * 2 * 6}[length]


def test_samples_have_the_log_probability_of_a_network_written_by_hand():
    archs = jax.jit(jax.vmap(POLICY.sample, (0, None)))(jax.random.split(KEY, 30), PARAMS)
    found = jax.jit(jax.vmap(POLICY.log_prob, (None, 0)))(PARAMS, archs)
    assert found.shape == (30,)
    for n in range(30):
        arch = architecture(n, archs)
        wanted = sum(taken(TOKENS, by_hand(PARAMS, TOKENS, taking(arch)), arch))
        np.testing.assert_allclose(found[n], wanted, atol=1e-5)


def test_one_layer_and_three_layers_too():
    for num_layers in (1, 3):
        policy = controller(CHOICES, TOKENS, num_units=4, num_layers=num_layers, scale=1.5)
        params = policy.init(KEY)
        arch = policy.mode(params)
        wanted = sum(taken(TOKENS, by_hand(params, TOKENS, taking(arch), num_layers), arch))
        np.testing.assert_allclose(policy.log_prob(params, arch), wanted, atol=1e-5)


def test_probabilities_of_skips_are_those_of_the_formula():
    # p(skips | before) as quotients of probabilities with one token more and one less.
    archs = enumerate_architectures(CHOICES)
    before, after = (
        np.exp(jax.jit(jax.vmap(controller(CHOICES, TOKENS, length=n).log_prob, (None, 0)))(PARAMS, archs))
        for n in (8, 9)
    )
    row = np.concatenate(jax.tree.leaves(archs), -1)
    for n in np.flatnonzero(before > 1e-4)[::7]:  # those whose last two skips are 0
        pair = by_hand(PARAMS, TOKENS, taking(architecture(n, archs)))[-1]
        for skips in ((0, 0), (0, 1), (1, 0), (1, 1)):
            other = np.flatnonzero((row == np.append(row[n, :-2], skips)).all(-1))[0]
            wanted = np.prod(np.where(skips, pair, 1 - pair))
            np.testing.assert_allclose(after[other] / before[n], wanted, atol=1e-6)


def test_what_was_taken_early_changes_what_comes_later():
    # Axes: filters, kernels, skips of three layers; everything between the first kernel and the last is held fixed.
    p = probabilities(POLICY, PARAMS).reshape(2, 2, 2, 3, 3, 3, 2, 2, 2)[0, 0, :, :, 0, :, 0].sum((0, 3, 4))
    assert np.ptp(p / p.sum(1, keepdims=True), axis=0).max() > 0.01


def chi_square(params, sampler_params, count=40_000):
    archs = jax.jit(jax.vmap(SMALL.sample, (0, None)))(jax.random.split(KEY, count), sampler_params)
    flat_row = decisions(SMALL.choices)
    numbers = np.asarray(flat_row.number(flat_row.join(archs)))
    expected = count * probabilities(SMALL, params, SMALL.choices)
    return np.sum((np.bincount(numbers, minlength=len(expected)) - expected) ** 2 / expected), len(expected) - 1


@pytest.mark.statistical
def test_samples_have_the_frequencies_of_the_policy():
    params = SMALL.init(jax.random.key(1))
    found, degrees = chi_square(params, params)
    assert degrees == 71
    assert found < degrees + 4.5 * np.sqrt(2 * degrees)
    # Samplers that forget what they took, or take skips the wrong way round, are noticed.
    forgetful = params | {"embeddings": optax.tree.zeros_like(params["embeddings"])}
    reverse = params | {"attention": params["attention"] | {"score": -params["attention"]["score"]}}
    for wrong in (forgetful, reverse):
        assert chi_square(params, wrong)[0] > degrees + 20 * np.sqrt(2 * degrees)


def test_growth_changes_no_parameter_and_no_earlier_probability():
    deep_choices, deep_tokens = layers(5)
    deep = controller(deep_choices, deep_tokens, num_units=5, scale=1.5)
    chex.assert_trees_all_equal(deep.init(KEY), PARAMS)
    arch = POLICY.sample(KEY, PARAMS)
    padded = jax.tree.map(lambda c, leaf: jnp.pad(leaf, (0, c.shape[0] - len(leaf))), deep_choices, arch)
    short = controller(deep_choices, deep_tokens, length=len(TOKENS), num_units=5)
    np.testing.assert_allclose(short.log_prob(PARAMS, padded), POLICY.log_prob(PARAMS, arch), rtol=1e-6)
    # The same key takes the same decisions, and the deeper policy goes on from there.
    chex.assert_trees_all_equal(short.sample(KEY, PARAMS), padded)
    chex.assert_trees_all_equal(short.mode(PARAMS)["kernel"][:3], POLICY.mode(PARAMS)["kernel"])
    grown = deep.sample(KEY, PARAMS)
    for name, number in {"filters": 3, "kernel": 3, "skips": 3}.items():
        np.testing.assert_array_equal(grown[name][:number], arch[name])
    wanted = taken(deep_tokens, by_hand(PARAMS, deep_tokens, taking(grown)), grown)
    np.testing.assert_allclose(deep.log_prob(PARAMS, grown), sum(wanted), atol=1e-5)
    np.testing.assert_allclose(sum(wanted[: len(TOKENS)]), POLICY.log_prob(PARAMS, arch), atol=1e-5)


def test_a_traced_length_grows_without_being_traced_again():
    arch = jax.tree.map(lambda c: jnp.zeros(c.shape[:-1], jnp.int32), CHOICES)

    @jax.jit
    @chex.assert_max_traces(1)
    def both(length, key):
        policy = controller(CHOICES, TOKENS, length=length, num_units=5)
        return policy.log_prob(PARAMS, arch), policy.sample(key, PARAMS), policy.entropy(PARAMS)

    for length in (3, 6, 9):
        policy = controller(CHOICES, TOKENS, length=length, num_units=5)
        found = both(length, KEY)
        np.testing.assert_allclose(found[0], policy.log_prob(PARAMS, arch), rtol=1e-6)
        chex.assert_trees_all_equal(found[1], policy.sample(KEY, PARAMS))
        np.testing.assert_allclose(found[2], policy.entropy(PARAMS), rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_mode_and_entropy_are_those_of_the_greedy_path(seed):
    params = POLICY.init(jax.random.key(seed))
    mode = MODE(params)
    arch_like(CHOICES, mode)
    found = by_hand(params, TOKENS, greedy)
    for token, p in zip(TOKENS, found, strict=True):
        np.testing.assert_array_equal(taking(mode)(token, None), greedy(token, p))
    both = [np.stack([p, 1 - p]) if isinstance(token[1], tuple) else p for token, p in zip(TOKENS, found, strict=True)]
    entropies = [-np.sum(p * np.log(p)) for p in both]
    np.testing.assert_allclose(ENTROPY(params), sum(entropies) / 9, rtol=1e-5)
    # Two layers have four decisions and one skip.
    np.testing.assert_allclose(SHORT_ENTROPY(params), sum(entropies[:6]) / 5, rtol=1e-5)
    chex.assert_trees_all_equal(POLICY.decode(params, lambda scores: pytest.fail("asked for independent scores")), mode)


def test_entropy_of_nothing_is_not_a_number():
    tokens = [("anchor", ()), ("filters", 0)]
    policy = controller({"filters": jnp.zeros((1, 2))}, tokens, length=1)
    assert np.isnan(policy.entropy(policy.init(KEY)))


def test_gradients_are_finite_where_kinds_have_different_numbers_of_options():
    arch = POLICY.mode(PARAMS)
    for grads in (jax.grad(POLICY.log_prob)(PARAMS, arch), jax.grad(POLICY.entropy)(PARAMS)):
        chex.assert_tree_all_finite(grads)
        assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_parameters_start_uniform_in_a_narrow_interval():
    params = controller(CHOICES, TOKENS).init(KEY)
    row = flat(params)
    lstm, attention = 2 * (35 * 140 * 2 + 140), 2 * 35 * 35 + 35
    assert len(row) == 35 + lstm + attention + (35 + 1 + 35) * 5
    assert np.abs(row).max() <= 0.08
    assert abs(row.mean()) < 4.5 * 0.08 / np.sqrt(3 * len(row))
    np.testing.assert_allclose(row.std(), 0.08 / np.sqrt(3), rtol=0.02)
    assert len(np.unique(row)) > 0.98 * len(row)
    wide = controller(CHOICES, TOKENS, scale=0.5).init(KEY)
    chex.assert_trees_all_close(wide, jax.tree.map(lambda leaf: leaf * (0.5 / 0.08), params), atol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "choices",
    [
        {"edges": (6, 5)},  # the topology of NAS-Bench-201
        {"reduce": (2, 4), "normal": {"a": (3, 2), "b": (1, 7)}},
        [(3, 2)],
        (4, 3),
    ],
    ids=["table", "tree", "list", "leaf"],
)
def test_any_choices_are_written_as_they_lie(choices):
    choices = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), choices, is_leaf=lambda s: type(s) is tuple)
    policy = controller(choices, num_units=4, scale=1.0)
    params = policy.init(KEY)
    assert "attention" not in params
    arch = arch_like(choices, policy.sample(KEY, params))
    tokens = as_they_lie(choices)
    assert [place for _, place in tokens] == list(range(len(params["heads"])))
    assert [params["heads"][kind]["bias"].size for kind, _ in tokens] == decisions(choices).counts.tolist()
    wanted = sum(taken(tokens, by_hand(params, tokens, taking(arch)), arch))
    np.testing.assert_allclose(policy.log_prob(params, arch), wanted, atol=1e-5)


TABLE = np.random.default_rng(3).normal(size=72)


def table_loss(paths, params):
    row = decisions(SMALL.choices)
    number = row.number(row.join(jax.tree.map(lambda leaf: leaf[..., 0], paths.index)))
    return jnp.asarray(TABLE, jnp.float32)[number], {}


@pytest.mark.statistical
def test_reinforce_has_the_exact_gradient_as_its_mean():
    params = SMALL.init(jax.random.key(2))
    oracle = exact(SMALL, dense=False)
    wanted = flat(jax.jit(lambda p: oracle.estimate(None, (), p, table_loss, {})[1].policy_grads)(params))
    seen = np.abs(wanted) > 1e-3 * np.abs(wanted).max()  # the rest is rounding

    def z(policy):
        estimator = reinforce(policy, num_samples=2, baseline="leave_one_out")
        return z_max(draw(estimator, params, table_loss, 8_000)[:, seen], wanted[seen])

    assert z(SMALL) < 5.0  # Bonferroni: some 500 coordinates instead of 12
    half = lambda params, arch: 0.5 * SMALL.log_prob(params, arch)  # noqa: E731
    assert z(SMALL._replace(log_prob=half)) > 8  # the wrong variant


def search(policy, fitness, steps, signs):
    """Modes after searches for the least `sign * fitness`, one for each of `signs`, side by side in one program."""
    searcher = policy_search(policy, optax.adam(0.01), batch_size=8)

    def one(key, sign):
        def body(state, key):
            state, archs = searcher.ask(key, state)
            return searcher.tell(key, state, archs, sign * fitness(archs)[:, None])[0], None

        keys = jax.random.split(key, steps + 1)
        return policy.mode(jax.lax.scan(body, searcher.init(keys[0]), keys[1:])[0].policy_params)

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, len(signs)), signs)


def test_a_bandit_is_solved_with_every_seed():
    policy = controller({"arms": jax.ShapeDtypeStruct((1, 4), jnp.float32)})
    cost = jnp.array([0.5, 0.8, 0.4, 0.6])  # a gap of 0.1
    signs = jnp.repeat(jnp.array([1.0, -1.0]), 20)
    found = search(policy, lambda archs: cost[archs["arms"][:, 0]], 120, signs)["arms"][:, 0]
    assert np.sum(found[:20] == 2) == 20
    assert np.sum(found[20:] == 1) == 20  # the sign turned round finds the worst


def test_layers_with_skips_are_learnt_with_every_seed():
    target = {"filters": [1, 0], "kernel": [2, 0], "skips": [1]}

    def fitness(archs):  # every decision that differs from the target costs one
        wrong = jax.tree.map(lambda leaf, t: jnp.sum(leaf != jnp.array([t]), -1), archs, target)
        return sum(jax.tree.leaves(wrong)).astype(jnp.float32)

    found = search(controller(*layers(2), num_units=16), fitness, 160, jnp.ones(20))
    for name, values in target.items():
        np.testing.assert_array_equal(found[name], [values] * 20)


def test_a_search_goes_on_as_the_depth_grows():
    first, grown = (controller(CHOICES, TOKENS, length=length) for length in (6, 9))
    state = policy_search(first, optax.adam(0.01), batch_size=2).init(KEY)
    for policy in (first, grown):
        searcher = policy_search(policy, optax.adam(0.01), batch_size=2)
        state, archs = searcher.ask(KEY, state)
        before = state
        state, _ = jax.jit(searcher.tell)(KEY, state, archs, jnp.array([[0.1], [0.7]]))
        chex.assert_trees_all_equal_shapes_and_dtypes(state, before)
    assert not np.array_equal(flat(state.policy_params), flat(first.init(KEY)))


def test_seeds_side_by_side_equal_a_loop():
    keys = jax.random.split(KEY, 3)
    params = jax.vmap(POLICY.init)(keys)
    archs = jax.vmap(POLICY.sample)(keys, params)
    together = jax.vmap(POLICY.log_prob)(params, archs)
    for n in range(3):
        chex.assert_trees_all_close(architecture(n, params), POLICY.init(keys[n]))
        alone = POLICY.sample(keys[n], architecture(n, params))
        chex.assert_trees_all_equal(architecture(n, archs), alone)
        np.testing.assert_allclose(together[n], POLICY.log_prob(architecture(n, params), alone), rtol=1e-5)


def test_narrow_parameters_give_wide_probabilities():
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    arch = POLICY.sample(KEY, narrow)
    found = POLICY.log_prob(narrow, arch)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(probabilities(POLICY, narrow).sum(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(found, POLICY.log_prob(PARAMS, arch), atol=0.5)


@pytest.mark.x64
def test_wide_choices_give_wide_parameters():
    if not jax.config.jax_enable_x64:
        pytest.skip("needs 64-bit JAX")
    policy = controller(jax.tree.map(lambda c: jax.ShapeDtypeStruct(c.shape, jnp.float64), CHOICES), TOKENS)
    params = policy.init(KEY)
    arch = policy.sample(KEY, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float64)}
    wanted = sum(taken(TOKENS, by_hand(params, TOKENS, taking(arch)), arch))
    np.testing.assert_allclose(policy.log_prob(params, arch), wanted, rtol=1e-12)


PAIR = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((1, 3))}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: controller({"a": jnp.zeros((4, 1))}), r"at least two options, got \[\(4, 1\)\]"),
        (lambda: controller({}), r"at least two options, got \[\]"),
        (lambda: controller(PAIR, [("a", 0), ("a", 1)]), r"each place from 0 to 2 once, got \[0, 1\]"),
        (lambda: controller(PAIR, [("a", 0), ("a", 1), ("b", 1)]), r"each place from 0 to 2 once, got \[0, 1, 1\]"),
        (lambda: controller(PAIR, [("a", n) for n in range(3)]), "kind 'a' has decisions of 2 and of 3 options"),
        (
            lambda: controller(PAIR, [("a", 0), ("b", 2), ("s", (1,))]),
            r"anchor point 0 needs 0 decisions of two options, got \[1\]",
        ),
        (
            lambda: controller(PAIR, [("a", 0), ("a", 1), ("s", ()), ("s", (2,))]),
            r"anchor point 1 needs 1 decisions of two options, got \[2\]",
        ),
        (
            lambda: controller(PAIR, [("a", 0), ("b", 2), ("s", ()), ("t", (1,))]),
            r"of one kind of their own, got \['a', 'b', 's', 't'\]",
        ),
        (lambda: controller(PAIR, [("a", 0), ("b", 2), ("a", ()), ("a", (1,))]), r"got \['a', 'b', 'a'\]"),
        (lambda: controller({"a": jnp.zeros((1, 2))}, [("s", ()), ("s", (0,))]), r"need decisions, .* got \['s'\]"),
        (lambda: controller(PAIR, length=0), "length must be from 1 to 3, the number of tokens, got 0"),
        (lambda: controller(PAIR, length=4), "length must be from 1 to 3, the number of tokens, got 4"),
        (lambda: controller(PAIR, num_units=0), "num_units=0"),
        (lambda: controller(PAIR, num_layers=0), "num_layers=0"),
        (lambda: controller(PAIR, scale=-0.1), "scale=-0.1"),
        (lambda: controller(PAIR, scale=float("nan")), "scale=nan"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
