"""A linear network with one choice, and its gradients by hand: `logits = x (W_k or 0) H`."""

import jax.numpy as jnp
import numpy as np

from jaxnas.base import Op
from jaxnas.spaces import chain_space
from tests.by_hand import cross_entropy

RNG = np.random.default_rng(10)
W = {"a": RNG.normal(size=(3, 3)), "b": RNG.normal(size=(3, 3)), "head": RNG.normal(size=(3, 4))}
NAMES = ("a", "b", "zero")
X, POLICY_X = RNG.normal(size=(2, 12, 3))
Y, POLICY_Y = RNG.integers(0, 4, (2, 12))


def matrix(name):
    """`x @ W[name]` as an operation that starts from those weights."""
    return Op(lambda key, x: jnp.asarray(W[name], jnp.float32), lambda params, x, *, key=None: x @ params)


SPACE = chain_space({"a": matrix("a"), "b": matrix("b"), "zero": jnp.zeros_like}, 1, head=matrix("head"))


def by_hand(params, k, x, y, smoothing=0.0):
    """Loss of operation `k`, gradients of the weights that it has, gradient of every gate."""
    outputs = [x @ params["a"], x @ params["b"], 0 * x]
    loss, to_logits = cross_entropy(outputs[k] @ params["head"], y, smoothing)
    to_output = to_logits @ params["head"].T
    grads = {"head": outputs[k].T @ to_logits}
    if k < 2:
        grads[NAMES[k]] = x.T @ to_output
    return loss, grads, np.array([[(to_output * output).sum() for output in outputs]])
