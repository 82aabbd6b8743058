"""The controller of NAS-RL: an LSTM that writes an architecture token by token, each token after all earlier ones."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnas.base import Policy, Tree
from jaxnas.dtypes import wide_dtype, wide_dtype_of
from jaxnas.errors import UserError
from jaxnas.policies.tokens import Order, Token, as_they_lie, in_order

__all__ = ["controller"]


class _Walk(NamedTuple):
    """What the controller did at its `T` tokens, `A` of them anchor points; zero for tokens beyond the length.

    Attributes:
      option: `[T]`, the option taken.
      skips: `[T, A]`, 1 for the earlier anchor points that were connected.
      log_prob: `[T]`, log-probability of option or skips, given all earlier tokens.
      entropy: `[T]`, entropy of the distribution they came from, summed over the skips of an anchor point.
    """

    option: jax.Array
    skips: jax.Array
    log_prob: jax.Array
    entropy: jax.Array


def controller(
    choices: Tree,
    tokens: Sequence[Token | tuple[str, Any]] | None = None,
    *,
    length: int | jax.Array | None = None,
    num_units: int = 35,
    num_layers: int = 2,
    scale: float = 0.08,
) -> Policy:
    """`p(arch) = prod_t p(token_t | tokens before t)`: the controller of Zoph & Le (2017), a recurrent network.

    A token's probabilities are the softmax of its kind's head on the top layer of an LSTM; the input of the next step
    is the embedding of the option taken. At anchor point `i` every earlier anchor point `j` is connected with
    probability `sigmoid(v^T tanh(W_prev h_j + W_curr h_i))`, where `h` is the top layer's output at an anchor point.
    Tokens are scanned over, so that the program does not grow with their number.

    The shapes of the parameters depend on the kinds of tokens alone, not on how many there are: a controller for a
    deeper space, or with a greater `length`, goes on with the parameters (and the optimiser) of a shallower one, and
    gives the earlier tokens the same probabilities.

    `mode` is the greedy architecture: at each token the most probable option after those taken before. `entropy` is the
    mean over decisions of their entropies along that greedy path, not over all paths; it is NaN where nothing is
    decided. `decode` returns the mode.

    The paper leaves open, and this controller chooses: embeddings as wide as the layers, a learned first input, biases
    in layers and heads, every parameter drawn alike, and as input after an anchor point
    `sum_j s_ij h_j / (1 + sum_j s_ij)` over its connections `s_ij`, as ENAS has it (Pham et al., 2018, arXiv
    1802.03268).

    Args:
      choices: pytree of shapes `(E, K)`, usually `SearchSpace.choices`. Parameters have its wide dtype.
      tokens: order of the decisions, `Token`s or plain pairs. `None` takes decisions as they lie in `choices`, each of
        a kind of its own: a head that unlike edges of a cell share tends to one operation for all of them.
      length: number of tokens in use, from 1 to all; all if `None`. Decisions of later tokens are 0, and an
        architecture with another option there has probability 0. It may be traced, for a controller that is built
        inside `jax.jit` and grows without being compiled again.
      num_units: width of each LSTM layer and of the embeddings.
      num_layers: number of LSTM layers.
      scale: half width of the interval around 0 from which every parameter is drawn uniformly.

    Returns:
      The policy.

    Raises:
      UserError: tokens that do not fit the decisions (see `jaxnas.policies.tokens.in_order`), or a length, a size or a
        scale out of range.

    Example:
      >>> choices = {"filters": jnp.zeros((2, 4)), "skips": jnp.zeros((1, 2))}
      >>> policy = controller(choices, [("filters", 0), ("anchor", ()), ("filters", 1), ("anchor", (2,))])
      >>> params = policy.init(jax.random.key(0))
      >>> arch = policy.sample(jax.random.key(1), params)
      >>> arch["filters"].shape, arch["skips"].shape, round(float(jnp.exp(policy.log_prob(params, arch))), 2)
      ((2,), (1,), 0.03)

    References:
      Zoph & Le, 2017, "Neural architecture search with reinforcement learning", arXiv 1611.01578, sections 3.1 and 3.3.
    """
    order = in_order(choices, as_they_lie(choices) if tokens is None else tokens)
    number, places = order.steps.number, (order.steps.place, order.steps.places)
    if isinstance(length, int | np.integer) and not 1 <= length <= len(number):
        raise UserError(f"length must be from 1 to {len(number)}, the number of tokens, got {length}")
    if num_units < 1 or num_layers < 1 or not 0 <= scale < math.inf:
        got = f"num_units={num_units}, num_layers={num_layers}, scale={scale}"
        raise UserError(f"controller: needs sizes of at least 1 and a finite scale of at least 0, got {got}")
    _, split = ravel_pytree(jax.tree.map(lambda c: np.zeros(c.shape[:-1], np.int32), choices))

    def used(numbers):
        return jnp.asarray(numbers < (len(number) if length is None else length))

    def architecture(walk):
        return split(jnp.concatenate([walk.option, walk.skips.reshape(-1)])[order.source])

    def greedy(params):
        return _walk(params, order, used(number), number, lambda _, logits, scores: (jnp.argmax(logits), scores > 0))

    def init(key):
        # One draw for all parameters, which compiles much faster than one for each.
        flat, unflatten = ravel_pytree(_zeros(order, num_units, num_layers, wide_dtype_of(choices)))
        return unflatten(jax.random.uniform(key, flat.shape, flat.dtype, -scale, scale))

    def sample(key, params):
        # Every token has a key of its own number, so that earlier tokens do not change as the depth grows.
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)

        def pick(key, logits, scores):  # a token uses one of the two
            return jax.random.categorical(key, logits), jax.random.bernoulli(key, jax.nn.sigmoid(scores))

        return architecture(_walk(params, order, used(number), keys, pick))

    def log_prob(params, arch):
        row, _ = ravel_pytree(jax.tree.map(lambda _, leaf: jnp.asarray(leaf, jnp.int32), choices, arch))
        taken = order.steps.first + row[places[0]], row[places[1]] == 1
        walk = _walk(params, order, used(number), taken, lambda given, logits, scores: given)
        return jnp.where(jnp.all(used(order.token) | (row == 0)), jnp.sum(walk.log_prob), -jnp.inf)

    def mode(params):
        return architecture(greedy(params))

    def entropy(params):
        total = jnp.sum(greedy(params).entropy)
        return total / jnp.sum(used(order.token), dtype=total.dtype)

    def decode(params, derive):
        del derive  # the rule of the space reads independent scores, which this policy does not have
        return mode(params)

    return Policy(choices, init, sample, log_prob, mode, entropy, decode)


def _zeros(order: Order, units: int, layers: int, dtype: Any) -> dict[str, Tree]:
    """Zeros in the structure of the parameters, which the number of tokens does not enter."""

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype)

    def layer() -> dict[str, np.ndarray]:
        return {"input": zeros(units, 4 * units), "state": zeros(units, 4 * units), "bias": zeros(4 * units)}

    tree: dict[str, Tree] = {"start": zeros(units), "lstm": [layer() for _ in range(layers)]}
    tree["heads"] = {kind: {"kernel": zeros(units, count), "bias": zeros(count)} for kind, count in order.kinds.items()}
    tree["embeddings"] = {kind: zeros(count, units) for kind, count in order.kinds.items()}
    if order.steps.earlier.size:
        tree["attention"] = {"previous": zeros(units, units), "current": zeros(units, units), "score": zeros(units)}
    return tree


def _walk(params: Tree, order: Order, used: jax.Array, given: Tree, pick: Callable[..., tuple[Any, Any]]) -> _Walk:
    """Takes all tokens in order, each by `pick(given_t, logits, scores) -> (option, skips)`.

    Args:
      params: parameters of the controller.
      order: the tokens.
      used: bools `[T]`, which tokens are in use.
      given: what `pick` is told of each token, a pytree with a leading axis `T`.
      pick: takes an option by its logits, which stand in one row for all kinds and are minus infinity for the other
        kinds, and bools `[A]` by the scores of skips; a decision uses the former, an anchor point the latter.
    """
    anchors, kinds = order.steps.earlier.shape[1], order.kinds
    # Options of all kinds in one row: kernel [H, K], bias [K], embeddings [K, H].
    kernel = jnp.concatenate([params["heads"][kind]["kernel"] for kind in kinds], 1)
    bias = jnp.concatenate([params["heads"][kind]["bias"] for kind in kinds])
    embeddings = jnp.concatenate([params["embeddings"][kind] for kind in kinds])
    wide, row = wide_dtype(bias.dtype), np.arange(sum(kinds.values()))

    def body(carry, xs):
        states, x, memory = carry
        step, used, given = xs
        is_anchor, earlier = step.slot < anchors, step.earlier & used
        states = list(states)
        for layer, weights in enumerate(params["lstm"]):
            states[layer] = _lstm(weights, states[layer], x)
            x = states[layer][0]
        # The distributions of a decision, and of skips: p_ij = sigmoid(v^T tanh(W_prev h_j + W_curr h_i)).
        of_kind = (row >= step.first) & (row < step.end)
        logits = jnp.where(of_kind, (x @ kernel + bias).astype(wide), -jnp.inf)
        scores = _scores(params["attention"], memory[:-1], x).astype(wide) if anchors else jnp.zeros(0, wide)
        option, skips = pick(given, logits, scores)
        option, skips = option.astype(jnp.int32), earlier & skips
        # Log-probability and entropy of what was taken.
        log_p, log_one, log_zero = jax.nn.log_softmax(logits), jax.nn.log_sigmoid(scores), jax.nn.log_sigmoid(-scores)
        of_skips = jnp.sum(jnp.where(earlier, jnp.where(skips, log_one, log_zero), 0))
        log_prob = jnp.where(is_anchor, of_skips, log_p[option])
        entropy_of_skips = jnp.sum(jnp.where(earlier, _entropy(log_one) + _entropy(log_zero), 0))
        entropy = jnp.where(is_anchor, entropy_of_skips, jnp.sum(_entropy(log_p)))
        # The next input: the embedding of the option, or sum_j s_ij h_j / (1 + sum_j s_ij).
        s = skips.astype(x.dtype)
        after = jnp.where(is_anchor, s @ memory[:-1] / (1 + jnp.sum(s)), embeddings[option])
        memory = memory.at[step.slot].set(x)  # in the row that nobody reads unless this is an anchor point
        taken = jnp.where(is_anchor, 0, option - step.first)
        walk = _Walk(taken, skips.astype(jnp.int32), log_prob, entropy)
        return (states, after, memory), jax.tree.map(lambda leaf: jnp.where(used, leaf, jnp.zeros_like(leaf)), walk)

    zero = jnp.zeros_like(params["start"])
    start = [(zero, zero) for _ in params["lstm"]], params["start"], jnp.zeros((anchors + 1, len(zero)), zero.dtype)
    return jax.lax.scan(body, start, (jax.tree.map(jnp.asarray, order.steps), used, given))[1]


def _lstm(weights: Tree, state: tuple[jax.Array, jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of an LSTM layer from `(h, c)` to the next; the gates stand in the order input, forget, cell, output."""
    h, c = state
    i, f, g, o = jnp.split(x @ weights["input"] + h @ weights["state"] + weights["bias"], 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _scores(weights: Tree, memory: jax.Array, h: jax.Array) -> jax.Array:
    """`v^T tanh(W_prev h_j + W_curr h)` for every `h_j` of `memory[A, H]`, shape `[A]`."""
    return jnp.tanh(memory @ weights["previous"] + (h @ weights["current"])[None]) @ weights["score"]


def _entropy(log_p: jax.Array) -> jax.Array:
    """`-p log p`, which is 0 where `p` is."""
    p = jnp.exp(log_p)
    return -p * jnp.where(p > 0, log_p, 0)
