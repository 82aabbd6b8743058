"""REBAR and RELAX: REINFORCE with a control variate on the Gumbel noise, whose mean has a pathwise gradient."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Estimator, Op, Tree, dense_paths
from jaxnas.dtypes import wide_dtype, wide_dtype_of
from jaxnas.errors import UserError
from jaxnas.estimators.evaluation import estimate_of, evaluate, score_gradient, stacked, wide
from jaxnas.guard import guarded
from jaxnas.policies import categorical
from jaxnas.relaxations import check_temperature, conditional_noise, conditional_perturbed, exponential, perturbed

__all__ = ["ControlParams", "ControlState", "rebar", "relax", "tanh_network"]


class ControlParams(NamedTuple):
    """What a control variate learns.

    Attributes:
      log_temperature: logarithm of the temperature of the relaxation.
      scale: factor of the relaxed loss.
      network: parameters of the network whose output is added to the relaxed loss, None without one.
    """

    log_temperature: jax.Array
    scale: jax.Array
    network: Tree


class _Form(NamedTuple):
    """The choices that make REBAR, RELAX and their variants.

    Attributes:
      network: network whose output is added to the relaxed loss, or None.
      mean_field: whether `t^2 / (1 + t) logits` is added to `z`, with `t` the temperature; see `rebar`.
      learned: names of the fields of `ControlParams` that the optimiser moves.
      coupled: whether `z'` has the value of `z`, or comes from independent noise.
      dense: whether the architecture runs as one-hot dense paths or as sparse ones.
    """

    network: Op | None
    mean_field: bool
    learned: tuple[str, ...]
    coupled: bool
    dense: bool


class ControlState(NamedTuple):
    """What an estimator with a control variate remembers.

    Attributes:
      control: parameters of the control variate.
      opt: state of its optimiser, empty without one.
    """

    control: ControlParams
    opt: optax.OptState


def rebar(
    *,
    temperature: float = 0.5,
    scale: float = 1.0,
    relaxation: Literal["concrete", "mean_field"] = "concrete",
    tx: optax.GradientTransformation | None = None,
    coupled: bool = True,
    dense: bool = False,
) -> Estimator:
    """`grad = (loss(b) - c(z')) d log p(b) + d c(z) - d c(z')` with `c(z) = scale loss(softmax(z / temperature))`.

    `z = logits + G` with Gumbel noise, `b = argmax z`, and `z'` drawn from the distribution of `z` given `b`, all
    differentiated with respect to the logits, `z'` through the conditioning too. Unbiased for any `scale` and
    `temperature`; they are learned with `tx`, which descends on the variance of the gradient.

    Needs derivatives of the loss with respect to dense paths; one evaluation of the loss at an architecture and two
    relaxed ones, and second derivatives where `tx` is given.

    Args:
      temperature: temperature of the relaxation, above zero; where it is learned, the one it starts from.
      scale: factor of the control variate; where it is learned, the one it starts from. 0 is REINFORCE.
      relaxation: `"concrete"` as above; `"mean_field"` adds `t^2 / (1 + t) logits` to `z` in `c`, `t` the temperature,
        so that `c` tends to `scale loss(softmax(logits))` as `t` grows and is a baseline there. Worth it with `tx`:
        where options differ little in loss beside its size, the variance falls a thousandfold.
      tx: optax transformation of `log(temperature)` and `scale`; None leaves them as they are.
      coupled: True gives `z'` the value of `z`, so that the two `c` differ in their gradients alone; False draws `z'`
        from independent noise. Both are unbiased.
      dense: whether the architecture runs as one-hot dense paths or as sparse ones.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`. `Estimate.value`, `weight_grads`, `paths` and
      `aux` are those of `b`.

    Raises:
      UserError: a temperature not above zero, another `relaxation`.

    Example:
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> loss, estimator = lambda paths, params: (space.apply(params, paths), {}), rebar(temperature=0.5)
      >>> estimate = jax.jit(lambda key: estimator.estimate(key, estimator.init(key, logits), logits, loss, {})[1])
      >>> round(float(estimate(jax.random.key(0)).policy_grads["edges"].sum()), 4)  # on average [[-0.75, 0.75]]
      0.0

    References:
      Tucker et al., 2017, "REBAR: low-variance, unbiased gradient estimates for discrete latent variable models",
      arXiv 1703.07370; the second relaxation is its connection to MuProp.
    """
    if relaxation not in ("concrete", "mean_field"):
        raise UserError(f"relaxation must be 'concrete' or 'mean_field', got {relaxation!r}")
    form = _Form(None, relaxation == "mean_field", ("log_temperature", "scale"), coupled, dense)
    return _control_variate(temperature, scale, form, tx)


def relax(
    *,
    temperature: float = 0.5,
    network: Op | None = None,
    tx: optax.GradientTransformation | None = None,
    coupled: bool = True,
    dense: bool = False,
) -> Estimator:
    """REBAR with a control variate that is learned: `c(z) = loss(softmax(z / temperature)) + r(z)`.

    Unbiased whatever `r` is. Cost, arguments, result and errors as in `rebar`.

    Args:
      temperature: temperature of the relaxation, above zero; where it is learned, the one it starts from.
      network: `r`, an `Op` on the vector of all perturbed logits `z`, which gives a scalar; None for
        `tanh_network(10)`.
      tx: optax transformation of `log(temperature)` and the parameters of `network`; None leaves them as they are.
      coupled: True gives `z'` the value of `z`, False draws it from independent noise.
      dense: whether the architecture runs as one-hot dense paths or as sparse ones.

    Example:
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> loss, estimator = lambda paths, params: (space.apply(params, paths), {}), relax(temperature=0.5)
      >>> estimate = jax.jit(lambda key: estimator.estimate(key, estimator.init(key, logits), logits, loss, {})[1])
      >>> round(float(estimate(jax.random.key(0)).policy_grads["edges"].sum()), 4)  # on average [[-0.75, 0.75]]
      0.0

    References:
      Grathwohl et al., 2018, "Backpropagation through the void", arXiv 1711.00123.
    """
    form = _Form(network or tanh_network(), False, ("log_temperature", "network"), coupled, dense)
    return _control_variate(temperature, 1.0, form, tx)


def tanh_network(width: int = 10) -> Op:
    """`r(z) = v . tanh(W z + b)`, with `v = 0` at the start, where it adds nothing.

    Example:
      >>> network = tanh_network(width=3)
      >>> float(network.apply(network.init(jax.random.key(0), jnp.ones(4)), jnp.ones(4)))
      0.0
    """

    def init(key, z):
        # v = 0: r adds nothing at the start.
        weight = jax.random.normal(key, (width, z.size), z.dtype) / math.sqrt(z.size)
        return {"weight": weight, "bias": jnp.zeros((width,), z.dtype), "out": jnp.zeros((width,), z.dtype)}

    def apply(params, z, *, key=None):
        del key
        return params["out"] @ jnp.tanh(params["weight"] @ z + params["bias"])

    return Op(init, apply)


def _control_variate(temperature, scale, form: _Form, tx) -> Estimator:
    check_temperature(temperature)

    def init(key, policy_params):
        network = None if form.network is None else form.network.init(key, _flat(wide(policy_params)))
        dtype = wide_dtype_of(policy_params)
        control = ControlParams(jnp.log(jnp.asarray(temperature, dtype)), jnp.asarray(scale, dtype), network)
        return ControlState(control, () if tx is None else tx.init(control))

    def estimate(key, state, policy_params, loss_fn, params):
        key_noise, key_again = jax.random.split(key)
        logits, policy = wide(policy_params), categorical(policy_params)
        # z = logits + G, the architecture b = argmax z, and the noise of z' given b.
        z = jax.tree.map(perturbed, optax.tree.split_key_like(key_noise, logits), logits)
        arch = jax.tree.map(lambda leaf: jnp.argmax(leaf, -1).astype(jnp.int32), z)
        if form.coupled:
            noise = jax.tree.map(conditional_noise, z, logits, arch)
        else:
            noise = jax.tree.map(exponential, optax.tree.split_key_like(key_again, logits), logits)
        gumbel = jax.tree.map(jnp.subtract, z, logits)
        found = evaluate(loss_fn, params, policy_params, stacked(arch), dense=form.dense)
        loss, score = found.losses[0], score_gradient(policy, logits, stacked(arch), jnp.ones_like(found.losses))

        def gradient(control):
            def variate(z, logits):
                z = _leaning(control, z, logits) if form.mean_field else z
                return _variate(control, form.network, z, policy_params, lambda paths: loss_fn(paths, params)[0])

            # c(z) - c(z') for the pathwise part, and c(z') for the factor of the score.
            def both(logits):
                free = variate(jax.tree.map(jnp.add, logits, gumbel), logits)
                tied = variate(jax.tree.map(conditional_perturbed, noise, logits, arch), logits)
                return free - tied, tied

            slope, tied = jax.grad(both, has_aux=True)(logits)
            # (loss(b) - c(z')) d log p(b) + d c(z) - d c(z').
            return jax.tree.map(lambda s, d: (loss - tied) * s + d, score, slope)

        # The gradient; with `tx` the control variate descends on its squared norm, the variance up to a constant.
        info = {"temperature": jnp.exp(state.control.log_temperature), "scale": state.control.scale}
        if tx is None:
            grads = gradient(state.control)
        else:
            (_, grads), to_control = jax.value_and_grad(_square(gradient), has_aux=True)(state.control)
            state = _descend(tx, state, to_control, form.learned)
        return state, estimate_of(found, grads, policy_params, info)

    return Estimator(init, estimate)


def _leaning(control: ControlParams, z: Tree, logits: Tree) -> Tree:
    """`z + t^2 / (1 + t) logits`, so that `z / t` tends to the logits as the temperature `t` grows."""
    temperature = jnp.exp(control.log_temperature)
    more = jnp.square(temperature) / (1 + temperature)
    return jax.tree.map(lambda z, leaf: z + more * leaf, z, logits)


def _flat(z: Tree) -> jax.Array:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(z)])


def _variate(control: ControlParams, network: Op | None, z: Tree, like: Tree, loss: Callable[..., Any]) -> jax.Array:
    """`c(z)`, in float32 or wider."""
    temperature = jnp.exp(control.log_temperature)
    # c(z) = scale loss(softmax(z / temperature)) + r(z).
    soft = jax.tree.map(lambda leaf, other: jax.nn.softmax(leaf / temperature, -1).astype(other.dtype), z, like)
    relaxed = loss(dense_paths(soft))
    value = control.scale * relaxed.astype(wide_dtype(relaxed.dtype))
    return value if network is None else value + network.apply(control.network, _flat(z))


def _square(gradient):
    """The squared norm of a gradient, and the gradient. The mean of the norm is the variance plus a constant."""

    def squared(control):
        grads = gradient(control)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(grads)), grads

    return squared


def _descend(tx, state: ControlState, grads: ControlParams, learned: tuple[str, ...]) -> ControlState:
    # Fields that are not learned get a gradient of zero.
    fixed = {name: optax.tree.zeros_like(leaf) for name, leaf in grads._asdict().items() if name not in learned}
    updates, opt = tx.update(grads._replace(**fixed), state.opt, state.control)
    new, _ = guarded(ControlState(optax.apply_updates(state.control, updates), opt), state)
    return new
