"""Toys whose gradients are known, and the statistics of an estimator on them.

The constants of `QUADRATIC` belong to a toy whose numbers were computed apart from this library.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.spaces import function_space, gates, quadratic_space

KEY = jax.random.key(11)
UPPER = [
    [0.1363215, 0.24580253, -0.09484093, -0.34144431],
    [0.0, 0.90452134, -0.25626348, -0.34555518],
    [0.0, 0.0, 0.7460141, 0.79780577],
    [0.0, 0.0, 0.0, 2.26264424],
]
QUADRATIC = quadratic_space(np.array(UPPER) + np.triu(UPPER, 1).T, [1.0, -0.5, 0.3, 2.0])
LOGITS = np.array([[0.3, -0.7, 1.1, 0.0]], np.float32)
VALUES = np.array([1.1363215, 0.40452134, 1.0460141, 4.26264424])
EXACT = np.array([-0.0982581, -0.09826052, -0.26504839, 0.46156702])

# The golden binary toy: f(b) = 3 (b - 0.499)^2 + exp(b), one decision, with the logit 0.4 of option 1.
BINARY = function_space(lambda params, g: 3 * (g[0, 1] - 0.499) ** 2 + jnp.exp(g[0, 1]), 1, 2)
BINARY_LOGITS = np.array([[0.0, 0.4]], np.float32)

# Decisions with different numbers of options, in a loss that is linear in none of them.
MIXED_LOGITS = {
    "a": np.array([[0.4, -0.7, 1.1], [0.2, 0.3, -1.0]], np.float32),
    "b": np.array([[0.8, -0.2]], np.float32),
}
PAIR_LOGITS = jax.tree.map(lambda leaf: leaf[:, :2], MIXED_LOGITS)


def space_loss(space):
    """The loss of a space of `jaxnas.spaces.toy`."""
    return lambda paths, params: (space.apply(params, paths, None), None)


def mixed_loss(paths, params):
    """Of `MIXED_LOGITS` or `PAIR_LOGITS`."""
    del params
    a = gates(paths.select(lambda tree: tree["a"]), 3)
    b = gates(paths.select(lambda tree: tree["b"]), 2)
    slopes = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)[:, : a.shape[-1]]
    x = jnp.sum(a * slopes, -1)
    return jnp.exp(x[0] * b[0, 1]) + jnp.sin(2 * x[1] + b[0, 0]) + 1.0, None


def pair_loss(paths, params):
    """`mixed_loss` of two options everywhere."""
    del params
    a = gates(paths.select(lambda tree: tree["a"]), 2)
    b = gates(paths.select(lambda tree: tree["b"]), 2)
    return jnp.exp(a[0, 1] * b[0, 1]) + jnp.sin(2 * a[1, 1] + b[0, 0]) + 1.0, None


def draw(estimator, logits, loss_fn, count, state=None, key=KEY, params=None):
    """Policy gradients `[count, D]` in float64, all decisions in one row, of one state.

    Numbers go in as arguments, so that calls that differ in them alone find the compiled program.
    """
    logits = jax.tree.map(jnp.asarray, logits)
    state = estimator.init(jax.random.key(0), logits) if state is None else state

    @jax.jit
    def all_of_them(keys, state, logits, params):
        def one(key):
            grads = estimator.estimate(key, state, logits, loss_fn, params)[1].policy_grads
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])

        return jax.vmap(one)(keys)

    return np.asarray(
        all_of_them(jax.random.split(key, count), state, logits, {} if params is None else params), np.float64
    )


def flat(tree):
    """All leaves in one row of float64."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def variance(draws):
    """Trace of the covariance."""
    return draws.var(0).sum()


def z_max(draws, expected=0.0):
    """Largest number of standard errors between the mean of `draws[N, D]` and `expected`."""
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    return np.abs((draws.mean(0) - expected) / error).max()
