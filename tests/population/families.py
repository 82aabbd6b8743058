"""A population that trains in a second: chains of small dense layers on points in a plane."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Op
from jaxnas.population import PopulationData, Recipe, family_of, train_population
from jaxnas.spaces import chain_space

KEY = jax.random.key(1)


def dense(features):
    def init(key, x):
        return {"kernel": jax.random.normal(key, (x.shape[-1], features), jnp.float32) / math.sqrt(x.shape[-1])}

    return Op(init, lambda params, x, *, key=None: x @ params["kernel"])


SPACE = chain_space({"dense": dense(4), "tanh": jnp.tanh, "other": dense(4)}, 2, head=dense(3))
FAMILY = family_of(SPACE)
ARCHS = {"chain": np.array([[0, 1], [2, 0], [1, 1], [0, 2], [1, 2], [2, 2], [0, 0]])}
RECIPE = Recipe(functools.partial(optax.sgd, momentum=0.9), steps=100, batch_size=16, judge_at=(7, 30))
RATES = np.linspace(0.02, 0.05, 7)


def examples(count, seed):
    x = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(np.argmax(x[:, :3] + 0.3 * x[:, 1:], -1).astype(np.int32))


DATA = PopulationData(examples(100, 0), {"validation": examples(50, 1), "test": examples(37, 2)})


def rows(tree, index):
    """Some members of a tree with a leading axis `P`."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(index)], tree)


def trained(archs=ARCHS, recipe=RECIPE, **settings):
    """A population of the space above, weights and all."""
    settings = {"rates": RATES[: len(archs["chain"])], "keep_params": True, "choices": SPACE.choices, **settings}
    return train_population(KEY, FAMILY, archs, DATA, recipe, **settings)
