"""The judge against a loop in numpy: every example by itself, and one architecture as many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.base import Op, sparse_paths
from jaxnas.errors import UserError
from jaxnas.judge import judge, judge_children, judge_paths, mean_score
from jaxnas.spaces import chain_space
from jaxnas.strategies import lift, member_mesh
from jaxnas.train import hits

KEY = jax.random.key(2)
X = np.asarray(jax.random.normal(KEY, (11, 4)))
Y = np.asarray(jax.random.randint(KEY, (11,), 0, 4))
ARCHS = {"chain": np.array([[0, 1], [1, 2], [2, 2]])}


def scaled(factor):
    return Op(
        lambda key, x: {"by": jax.random.normal(key, (4,)) + factor},
        lambda params, x, *, key=None: x * params["by"][None],
    )


SPACE = chain_space({"one": scaled(1.0), "tanh": jnp.tanh, "two": scaled(2.0)}, 2)
PARAMS = SPACE.init(KEY, jnp.asarray(X))


def by_hand(params, number):
    """Accuracy and loss of an architecture, example by example."""
    right, nats = [], []
    for x, y in zip(X, Y, strict=True):
        for place, op in enumerate(ARCHS["chain"][number]):
            name = ("one", "tanh", "two")[op]
            x = np.tanh(x) if name == "tanh" else x * np.asarray(params["blocks"][name]["by"][place])
        right.append(np.argmax(x) == y)
        nats.append(np.log(np.exp(x).sum()) - x[y])
    return np.mean(right), np.mean(nats)


def paths_of(number):
    return sparse_paths({"chain": jnp.asarray(ARCHS["chain"][number])})


@pytest.mark.parametrize("batch_size", [1, 4, 11, 500])
def test_accuracy_and_loss_are_those_of_a_loop(batch_size):
    """Also where copies fill up the last batch."""
    verdict = jax.jit(judge(SPACE.apply, batch_size=batch_size))
    for number in range(3):
        found = verdict(PARAMS, paths_of(number), X, Y)
        accuracy, loss = by_hand(PARAMS, number)
        assert found["accuracy"] == pytest.approx(accuracy, rel=1e-6)
        assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_one_program_serves_examples_of_several_numbers():
    verdict = jax.jit(judge(SPACE.apply, batch_size=4))
    for count in (1, 5, 11):
        found = verdict(PARAMS, paths_of(0), X, Y, count)
        logits = SPACE.apply(PARAMS, paths_of(0), jnp.asarray(X[:count]))
        assert found["accuracy"] == pytest.approx(np.mean(np.argmax(np.asarray(logits), -1) == Y[:count]), rel=1e-6)
    assert verdict._cache_size() == 1


def test_many_architectures_are_judged_as_one_at_a_time():
    children = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), PARAMS)
    one = judge(SPACE.apply, batch_size=4)
    for strategy, mesh in (("map", None), ("vmap", None), ("auto", None), ("shard", member_mesh())):
        settings = {"strategy": strategy, "mesh": mesh}
        archs = jax.jit(judge_paths(one, **settings))(PARAMS, sparse_paths(ARCHS), X, Y)
        own = jax.jit(judge_children(one, **settings))(children, sparse_paths(ARCHS), X, Y)
        for number, factor in enumerate((1, 2, -1)):
            for found, params in ((archs, PARAMS), (own, jax.tree.map(lambda leaf, f=factor: f * leaf, PARAMS))):
                accuracy, loss = by_hand(params, number)
                assert found["accuracy"][number] == pytest.approx(accuracy, rel=1e-6), strategy
                assert found["loss"][number] == pytest.approx(loss, rel=1e-5), strategy


def test_a_verdict_depends_on_the_reference_examples_and_on_no_neighbour():
    def normalised(number):
        def apply(params, paths, x):
            fixed = x[:number] if number else x  # as a space built with `reference=number` does
            return (x - jnp.mean(fixed, 0, keepdims=True)) / jnp.std(fixed, 0, keepdims=True)

        return apply

    reference, first = jnp.asarray(X[:5]), lambda outputs, targets: outputs[:, 0]
    by_hand = (X[:, 0] - X[:5, 0].mean()) / X[:5, 0].std()
    for group in ([3, 7, 8], [8, 8, 8], [10, 0, 7]):
        x, y = jnp.asarray(X[group]), jnp.zeros(3, jnp.int32)
        found = judge(normalised(5), reference=reference, score=first, batch_size=2)(None, None, x, y)
        assert found == pytest.approx(by_hand[group].mean(), rel=1e-5)
    # Without reference examples the batch gives the statistics: its mean is zero.
    assert judge(normalised(0), score=first, batch_size=3)(None, None, X[:3], Y[:3]) == pytest.approx(0.0, abs=1e-6)
    other = judge(normalised(5), reference=2 * reference, score=first, batch_size=2)(None, None, x, y)
    assert abs(float(other) - by_hand[group].mean()) > 1e-2


def test_images_are_prepared_with_the_reference_examples():
    seen = []

    def apply(params, paths, x):
        seen.append(x.shape)
        return x[:, :3].astype(jnp.float32)

    raw, labels = np.full((5, 4), 255, np.uint8), np.zeros(5, np.int32)
    prepare = lambda x: x / 255  # noqa: E731
    total = judge(apply, reference=raw[:2], prepare=prepare, score=lambda y, t: y[:, 0], batch_size=5)
    assert jax.jit(total)(None, None, raw, labels) == 1.0
    assert seen == [(7, 4)]


def test_examples_that_cannot_be_judged_make_the_mean_unknown():
    x = jnp.eye(4)[jnp.array([0, 1, 2, 3, 0])]
    labels = jnp.array([0, 1, 0, 0, 1])

    def accuracy(logits, labels=labels):
        found = jax.jit(judge(lambda params, paths, x: x, batch_size=3))(None, None, logits, labels)
        return found["accuracy"]

    assert accuracy(x) == pytest.approx(2 / 5)
    for bad in (jnp.nan, jnp.inf):
        assert np.isnan(accuracy(x.at[3, 1].set(bad)))
        assert np.isnan(accuracy(jnp.full_like(x, bad)))
    assert np.isnan(accuracy(jnp.full_like(x, -jnp.inf)))
    assert np.isnan(accuracy(x, labels.at[4].set(4)))  # no class
    assert accuracy(x.at[:, 3].set(-jnp.inf)) == pytest.approx(3 / 5)  # a class that is ruled out


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (jnp.zeros((3, 1), jnp.int32), r"labels must be integers of shape \(3,\), got int32"),
        (jnp.zeros(3), r"labels must be integers of shape \(3,\), got float32"),
        (jnp.zeros(2, jnp.int32), "targets must be one for each of the 3 inputs, got 2"),
    ],
)
def test_targets_that_do_not_fit_are_refused_when_traced(labels, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(judge(lambda params, paths, x: x), None, None, jnp.zeros((3, 4)), labels)


def test_one_program_serves_all_architectures():
    traces = []

    def apply(params, paths, x):
        traces.append(x.shape)
        return SPACE.apply(params, paths, x)

    verdict = jax.jit(judge(apply, batch_size=4))
    for number in range(3):
        verdict(PARAMS, paths_of(number), X, Y)
    assert traces == [(4, 4)]


def test_a_scalar_score_counts_no_copies():
    halves = mean_score(lambda x: x, lambda y, t: jnp.mean(hits(y, t)), X, Y, batch_size=8)
    assert halves == pytest.approx(np.mean(X.argmax(-1) == Y), rel=1e-6)


@pytest.mark.parametrize(("examples", "batch_size"), [(0, 4), (11, 0)])
def test_nothing_to_judge_is_refused(examples, batch_size):
    with pytest.raises(UserError, match=f"examples and batch_size must be at least 1, got {examples} and {batch_size}"):
        mean_score(lambda x: x, hits, X[:examples], Y[:examples], batch_size=batch_size)


def test_a_mesh_is_made_where_none_is_given():
    doubled = lift(lambda member, data: member * data, "auto")
    np.testing.assert_allclose(jax.jit(doubled)(jnp.arange(4.0), 2.0), [0.0, 2.0, 4.0, 6.0])
