"""A controller whose decisions depend on each other goes through estimators and searches like any other policy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.architectures import arch_like, enumerate_architectures
from jaxnas.base import Batch, Policy
from jaxnas.estimators import exact, reinforce
from jaxnas.searchers import gradient_search, joint, policy_search
from jaxnas.spaces import table_space
from tests.estimators.toys import draw, flat, z_max

KEY = jax.random.key(5)
TABLE = np.random.default_rng(3).normal(size=(2, 2, 2))
TABLE[1, 0, 1] = TABLE.min() - 1.0  # the best one, by a gap
SPACE = table_space(TABLE)


class Controller(nn.Module):
    """Two layers of LSTM; the input of a step is the decision before it, and every decision has a head of its own."""

    counts: tuple[int, ...]
    width: int = 4

    @nn.compact
    def __call__(self, pick):
        """Decisions in order, each by `pick(place, logits) -> option`: all logits, and the options."""
        cells = [nn.OptimizedLSTMCell(self.width) for _ in range(2)]
        carries = [cell.initialize_carry(jax.random.key(0), (self.width,)) for cell in cells]
        x, rows, options = self.param("start", nn.initializers.normal(1.0), (self.width,)), [], []
        for place, count in enumerate(self.counts):
            for layer, cell in enumerate(cells):
                carries[layer], x = cell(carries[layer], x)
            rows.append(nn.Dense(count, name=f"head_{place}")(x))
            options.append(pick(place, rows[-1]))
            x = nn.Embed(count, self.width, name=f"option_{place}")(options[-1])
        return rows, jnp.stack(options).astype(jnp.int32)


def lstm(choices):
    """The controller as a policy over the edges of a toy."""
    count, options = choices["edges"].shape
    controller = Controller((options,) * count)

    def greedy(params):
        return controller.apply(params, lambda place, row: jnp.argmax(row))

    def sample(key, params):
        def pick(place, row):
            return jax.random.categorical(jax.random.fold_in(key, place), row)

        return {"edges": controller.apply(params, pick)[1]}

    def log_prob(params, arch):
        rows, _ = controller.apply(params, lambda place, row: arch["edges"][place])
        return sum(jax.nn.log_softmax(row)[option] for row, option in zip(rows, arch["edges"], strict=True))

    def mode(params):
        return {"edges": greedy(params)[1]}

    def entropy(params):  # of the decisions along the greedy path
        rows = [jax.nn.log_softmax(row) for row in greedy(params)[0]]
        return -sum(jnp.sum(jnp.exp(row) * row) for row in rows) / len(rows)

    init = functools.partial(controller.init, pick=lambda place, row: jnp.argmax(row))
    return Policy(choices, init, sample, log_prob, mode, entropy, lambda params, derive: mode(params))


POLICY = lstm(SPACE.choices)
BATCH = Batch((None,), (None,))


def spread(seed):
    """Parameters whose probabilities are far from uniform."""
    return jax.tree.map(lambda leaf: 4 * leaf, POLICY.init(jax.random.key(seed)))


def loss_fn(paths, params):
    return SPACE.apply(params, paths), {}


def test_it_is_a_distribution_and_samples_itself():
    params = spread(0)
    archs = enumerate_architectures(SPACE.choices)
    p = np.exp(jax.jit(jax.vmap(POLICY.log_prob, (None, 0)))(params, archs))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    assert p.max() > 2 / 8  # not uniform
    draws = jax.jit(jax.vmap(POLICY.sample, (0, None)))(jax.random.split(KEY, 20_000), params)["edges"]
    found = np.bincount(np.ravel_multi_index(tuple(np.asarray(draws).T), (2, 2, 2)), minlength=8) / 20_000
    assert np.abs((found - p) / np.sqrt(p * (1 - p) / 20_000)).max() < 4.5


def test_exact_is_the_gradient_of_the_expected_loss():
    params, archs = spread(1), enumerate_architectures(SPACE.choices)

    def expected(params):
        return jnp.exp(jax.vmap(POLICY.log_prob, (None, 0))(params, archs)) @ jnp.asarray(TABLE.ravel(), jnp.float32)

    value, grads = jax.jit(jax.value_and_grad(expected))(params)
    _, found = jax.jit(lambda params: exact(POLICY, dense=False).estimate(None, (), params, loss_fn, {}))(params)
    np.testing.assert_allclose(found.value, value, rtol=1e-5)
    np.testing.assert_allclose(flat(found.policy_grads), flat(grads), atol=2e-6)


@pytest.mark.statistical
def test_reinforce_has_the_exact_gradient_as_its_mean():
    params = spread(2)
    wanted = flat(jax.jit(lambda p: exact(POLICY).estimate(None, (), p, loss_fn, {})[1].policy_grads)(params))
    seen = np.abs(wanted) > 1e-3 * np.abs(wanted).max()  # the rest is rounding, as of biases that nothing hangs on

    def z(policy):
        estimator = reinforce(policy, num_samples=2, baseline="leave_one_out")
        return z_max(draw(estimator, params, loss_fn, 10_000)[:, seen], wanted[seen])

    assert z(POLICY) < 5.0  # Bonferroni: some 300 coordinates instead of 12
    half = lambda params, arch: 0.5 * POLICY.log_prob(params, arch)  # noqa: E731
    assert z(POLICY._replace(log_prob=half)) > 8  # the wrong variant


@pytest.mark.parametrize("estimator", [exact(POLICY), reinforce(POLICY, num_samples=8, baseline="leave_one_out")])
def test_a_gradient_search_finds_the_best_architecture(estimator):
    def loss(paths, params, batch, key):
        return loss_fn(paths, params)

    searcher = gradient_search(SPACE, POLICY, estimator, optax.sgd(0.1), optax.adam(0.03), loss=loss, step=joint)

    def body(state, _):
        return searcher.step(jax.random.fold_in(KEY, state.step), state, BATCH)

    state, info = jax.jit(lambda state: jax.lax.scan(body, state, length=100))(searcher.init(KEY, BATCH))
    assert arch_like(SPACE.choices, searcher.decode(state))["edges"].tolist() == [1, 0, 1]
    assert not info.nonfinite.any()
    assert info.entropy[0] > 0.5 > info.entropy[-1]


def test_a_black_box_search_finds_it_too():
    searcher = policy_search(POLICY, optax.adam(0.03), batch_size=8)

    def body(state, key):
        state, archs = searcher.ask(key, state)
        fitness = jnp.asarray(TABLE, jnp.float32)[tuple(archs["edges"].T)]
        return searcher.tell(key, state, archs, fitness[:, None])

    state, _ = jax.jit(lambda state, keys: jax.lax.scan(body, state, keys))(
        searcher.init(KEY), jax.random.split(KEY, 100)
    )
    assert searcher.decode(state)["edges"].tolist() == [1, 0, 1]
    assert POLICY.mode(state.policy_params)["edges"].tolist() == [1, 0, 1]
