"""The nouns of jaxnas: every space, policy, estimator and searcher is one of the containers below.

Read this file first. House rule: key first, state second, data after; return `(state, output)`; `init` always takes a
key. Containers are NamedTuples of pure functions made by lower-case factories. They are closed over, never passed to
`jax.jit`: as traced arguments they fail, as static ones they retrace.

Letters for shapes: `P` population, `E` edges or decisions, `K` operations, `B` batch, `S` samples.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "About",
    "Arch",
    "Batch",
    "BlackBox",
    "CostTable",
    "Estimate",
    "Estimator",
    "LossFn",
    "Network",
    "Op",
    "Params",
    "Part",
    "Paths",
    "Policy",
    "SearchSpace",
    "Searcher",
    "Tree",
    "dense_paths",
    "one_hot_paths",
    "sparse_paths",
]

Tree = Any  # a pytree of arrays
Params = Any  # a pytree of weights
Arch = Any  # a pytree of int32 arrays, one integer per decision, structured like `SearchSpace.choices`
Key = jax.Array  # a typed key, `jax.random.key(seed)`


class Op(NamedTuple):
    """One candidate operation, as a pair of pure functions.

    Attributes:
      init: `(key, x) -> params`.
      apply: `(params, x, *, key=None) -> y`; `key=None` turns drop path and dropout off.
    """

    init: Callable[[Key, jax.Array], Params]
    apply: Callable[..., jax.Array]


class Paths(NamedTuple):
    """What runs, how much it counts, and what the backward pass is asked about.

    `SearchSpace.apply` sees only this: no logits, temperatures or noise. Each field is a pytree structured like
    `SearchSpace.choices`, whose leaves have shape `[E, K]`.

    * Dense: `index=None`, `weight[E, K]`. Every operation runs and the outputs are weighted (DARTS, SNAS).
    * Sparse: `index[E, k]`, `weight[E, k]` with `k < K`. Only these operations run, through `lax.switch`.

    Attributes:
      index: int32 operations that run, or `None` for all of them in order.
      weight: float factors of their outputs.
      probe: another `Paths`, taken as zero in value: it costs nothing forward; backward it evaluates its operations
        and receives the gate gradients `<dL/dy, o_j(x)>` as the cotangent of its `weight`.
    """

    index: Tree
    weight: Tree
    probe: "Paths | None" = None

    def select(self, pick: Callable[[Tree], Tree]) -> "Paths":
        """Applies `pick` to every field, for example `paths.select(lambda tree: tree["normal"])`."""
        index = None if self.index is None else pick(self.index)
        probe = None if self.probe is None else self.probe.select(pick)
        return Paths(index, pick(self.weight), probe)


def dense_paths(weight: Tree) -> Paths:
    """Every operation runs, weighted by `weight[E, K]`."""
    return Paths(None, weight)


def sparse_paths(arch: Arch, weight: Tree | None = None) -> Paths:
    """Exactly the operations of `arch` run, each with weight one, or with `weight[E]`."""
    index = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.int32)[..., None], arch)
    if weight is None:
        return Paths(index, jax.tree.map(lambda leaf: jnp.ones(leaf.shape, jnp.float32), index))
    return Paths(index, jax.tree.map(lambda leaf: leaf[..., None], weight))


def one_hot_paths(choices: Tree, arch: Arch) -> Paths:
    """The dense form of `sparse_paths(arch)`: every operation runs, those of `arch` with weight one."""
    return Paths(None, jax.tree.map(lambda c, leaf: jax.nn.one_hot(leaf, c.shape[-1], dtype=c.dtype), choices, arch))


class CostTable(NamedTuple):
    """A cost that adds up over decisions: `fixed + sum_e table[e, arch[e]]`.

    Attributes:
      fixed: part of the cost that no decision changes.
      table: numpy arrays `[E, K]` like `SearchSpace.choices`: the cost of operation `k` at decision `e`.
    """

    fixed: float | int
    table: Tree


class Network(NamedTuple):
    """A stand-alone network of one architecture.

    Attributes:
      init: `(key, x) -> variables`.
      apply: `(variables, x, *, key=None, train=False, drop_path=0.0) -> (y, variables)`. With `train=True`
        normalisation uses the statistics of the batch and returns updated running averages, otherwise it uses those
        of `variables`. With an auxiliary head `y` is the pair `(logits, auxiliary_logits)` while training.
      inherit: `(params) -> variables`: the weights of a supernet of the same shape, given to this network.
      module: the Linen module behind it, if there is one.
    """

    init: Callable[[Key, jax.Array], Tree]
    apply: Callable[..., tuple[Any, Tree]]
    inherit: Callable[[Params], Tree] | None = None
    module: Any = None


class Part(NamedTuple):
    """A block of a stand-alone network, to be looked up in a latency table or measured by itself.

    Attributes:
      key: text that names all that the latency depends on, in the form of the published tables.
      module: a Linen module, called with an input alone, as it runs in a deployed network.
      input_shape: `(H, W, C)` of one input.
    """

    key: str
    module: Any
    input_shape: tuple[int, ...]


class About(NamedTuple):
    """What a space says of itself to people and to the tools around a search. Every field is optional.

    Attributes:
      name: the space's name.
      operations: pytree like `choices` whose leaves are tuples of operation names.
      size: exact number of architectures that `derive` can return.
      costs: `(image_shape, **changes) -> {"parameters": CostTable, "macs": CostTable, ...}` of the stand-alone network.
      genotype: `(arch) -> str` or nested tuples, in the paper's notation.
      parse: the inverse of `genotype`.
      network: `(arch, **changes) -> Network`, the stand-alone network.
      edges: pytree like `choices` of `(source, target)` pairs, for drawing.
      parts: `(image_shape) -> (fixed, rows)`: blocks of every network, and like `choices` those of candidates `[E][K]`.
      config: plain dictionary that, with `name`, rebuilds the space.
      supernet: changes to `network` under which it computes what the supernet does on its paths: `{"affine": False}`.
      counts: `(arch, image_shape, **changes) -> {"parameters": int, "macs": int}`, if costs are no sums over decisions.
    """

    name: str = "custom"
    operations: Any = None
    size: int | None = None
    costs: Callable[..., dict[str, CostTable]] | None = None
    genotype: Callable[[Arch], Any] | None = None
    parse: Callable[[Any], Arch] | None = None
    network: Callable[..., Network] | None = None
    edges: Any = None
    parts: Callable[..., tuple[tuple[Part, ...], dict[str, Any]]] | None = None
    config: dict[str, Any] | None = None
    supernet: Mapping[str, Any] = {}  # nobody writes into it
    counts: Callable[..., dict[str, int]] | None = None


class SearchSpace(NamedTuple):
    """A supernet and the rule that reads an architecture from scores.

    Attributes:
      init: `(key, x) -> params` for one batch `x[B, ...]`.
      apply: `(params, paths, x, *, key=None) -> y`.
      used: `(params, paths) -> tree` of bools that broadcast against `params`: which weights took part.
      derive: `(scores) -> arch` from unnormalised log-probabilities `[E, K]`: the rule of the space.
      choices: pytree of `jax.ShapeDtypeStruct((E, K), float32)`.
      about: names, exact size, costs and the stand-alone network.
    """

    init: Callable[[Key, jax.Array], Params]
    apply: Callable[..., Any]
    used: Callable[[Params, Paths], Tree]
    derive: Callable[[Tree], Arch]
    choices: Tree
    about: About = About()


class Policy(NamedTuple):
    """A distribution over architectures. It alone knows what its parameters mean.

    Attributes:
      choices: pytree of shapes `(E, K)`, usually `SearchSpace.choices`: the decisions that the policy takes.
      init: `(key) -> policy_params`.
      sample: `(key, policy_params) -> arch`.
      log_prob: `(policy_params, arch) -> scalar`, in nats.
      mode: `(policy_params) -> arch`, the most probable architecture, or the greedy one if decisions depend on others.
      entropy: `(policy_params) -> scalar`, the mean entropy of a decision in nats; NaN if the policy cannot say.
      decode: `(policy_params, derive) -> arch`, what a search returns. Independent decisions hand their scores to
        `derive`, the rule of the space; a policy whose decisions depend on each other takes its mode.
    """

    choices: Tree
    init: Callable[[Key], Tree]
    sample: Callable[[Key, Tree], Arch]
    log_prob: Callable[[Tree, Arch], jax.Array]
    mode: Callable[[Tree], Arch]
    entropy: Callable[[Tree], jax.Array]
    decode: Callable[[Tree, Callable[[Tree], Arch]], Arch]


LossFn = Callable[[Paths, Params], tuple[jax.Array, Any]]  # (paths, params) -> (loss, aux)


class Estimate(NamedTuple):
    """What one call of an estimator returns.

    Attributes:
      value: the estimated loss, a scalar.
      policy_grads: gradient with respect to the policy's parameters.
      weight_grads: gradient with respect to the weights.
      paths: what ran, in the last sample if there were several; `space.used(params, paths)` says which weights did.
      aux: the auxiliary output of `loss_fn`, that of the last sample if there were several.
      info: dictionary of scalars for people. A search shows `"temperature"`, and adds `"penalty"` to its penalty.
    """

    value: jax.Array
    policy_grads: Tree
    weight_grads: Tree
    paths: Paths
    aux: Any
    info: dict[str, jax.Array]


class Estimator(NamedTuple):
    """A gradient estimator of `E[loss]` over a policy.

    Attributes:
      init: `(key, policy_params) -> state`.
      estimate: `(key, state, policy_params, loss_fn, params) -> (state, Estimate)`.
    """

    init: Callable[[Key, Tree], Tree]
    estimate: Callable[[Key, Tree, Tree, LossFn, Params], tuple[Tree, Estimate]]


class Batch(NamedTuple):
    """The data of one search step: a batch for the weights and one for the policy (the same when single-level)."""

    weights: Any
    policy: Any


class Searcher(NamedTuple):
    """A gradient search: one state pytree and one step function.

    Attributes:
      init: `(key, batch) -> state`.
      step: `(key, state, batch) -> (state, info)`.
      decode: `(state) -> arch`, the architecture that was found.
      policy: the distribution whose parameters are `state.policy_params`, where the state has such.
    """

    init: Callable[[Key, Batch], Tree]
    step: Callable[[Key, Tree, Batch], tuple[Tree, Any]]
    decode: Callable[[Tree], Arch]
    policy: Policy | None = None


class BlackBox(NamedTuple):
    """A search that only sees fitness. `fitness[P, M]` is minimised everywhere: pass `-accuracy`.

    Attributes:
      init: `(key) -> state`.
      ask: `(key, state) -> (state, archs)`, every leaf of `archs` with a leading axis `P`.
      tell: `(key, state, archs, fitness) -> (state, info)`.
      decode: `(state) -> arch`.
      origins: `(state) -> origins` reads from the state that `ask` has returned where each of the `P` architectures
        comes from, for an evaluator that lets children inherit weights: a pytree of arrays with a leading axis `P`,
        for example the parent's id and the operators applied to it. Ids count all proposals from 0, in order.
        None for a search that has nothing to say.
    """

    init: Callable[[Key], Tree]
    ask: Callable[[Key, Tree], tuple[Tree, Arch]]
    tell: Callable[[Key, Tree, Arch, jax.Array], tuple[Tree, Any]]
    decode: Callable[[Tree], Arch]
    origins: Callable[[Tree], Tree] | None = None


Relaxation = Callable[[Key, jax.Array, Any], jax.Array]  # `(key, logits[E, K], temperature) -> weight[E, K]`
