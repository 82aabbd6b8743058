"""Binary gates: one or two paths run, and the gates of operations that did not run give gradients, too."""

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Arch, Estimate, Estimator, Paths, Tree
from jaxnas.errors import UserError
from jaxnas.estimators.evaluation import no_state, wide
from jaxnas.policies import categorical
from jaxnas.relaxations import perturbed, softmax_jacobian

__all__ = ["binary_gate", "two_path_gate", "two_path_rescale"]


def binary_gate() -> Estimator:
    """One sampled path forward; backward `d/dlogits_i = sum_j <dL/dy, o_j(x)> p_j (1[i = j] - p_i)`.

    `y` is the output of the sampled path, the same for every operation `j`. It is the straight-through softmax
    gradient, which `pathwise(st_softmax)` computes with all operations in memory; here the memory is that of one path,
    and the others are evaluated one at a time in the backward pass. Biased, except where the loss is linear in every
    decision. Needs derivatives of the loss with respect to the gates; one evaluation.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`. `Estimate.paths` is sparse, its `probe` asks
      about all operations.

    Example:
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> key, loss = jax.random.key(0), lambda paths, params: (space.apply(params, paths), {})
      >>> _, found = jax.jit(binary_gate().estimate, static_argnums=3)(key, None, logits, loss, {})
      >>> found.policy_grads["edges"].tolist()
      [[-0.75, 0.75]]

    References:
      Cai, Zhu and Han, 2019, "ProxylessNAS", arXiv 1812.00332, equations 2 to 4.
    """

    def estimate(key, state, policy_params, loss_fn, params):
        logits = wide(policy_params)
        # One path runs; the gates of all operations are asked for in the backward pass.
        arch = categorical(policy_params).sample(key, logits)
        probe = Paths(None, jax.tree.map(jnp.zeros_like, policy_params))
        value, aux, paths, weight_grads, to_gates = _probed(loss_fn, params, policy_params, arch, probe)
        # Equation 4.
        grads = jax.tree.map(_to_logits, logits, to_gates)
        return state, Estimate(value, grads, weight_grads, paths, aux, {})

    return Estimator(no_state, estimate)


def two_path_gate() -> Estimator:
    """Two operations per decision are drawn without replacement, one of them runs; only their logits get a gradient.

    The pair `{a, b}` is drawn from `p = softmax(logits)`, which of them runs from `q = softmax(logits_a, logits_b)`;
    for `i` in the pair `d/dlogits_i = sum_{j in pair} <dL/dy, o_j(x)> q_j (1[i = j] - q_i)`. After the optimiser's step
    `two_path_rescale` keeps the probabilities of the others. Biased, and in expectation not the gradient of
    `binary_gate`: for a linear loss and equal logits it is `K / (2 (K - 1))` of it.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`. `Estimate.paths` is sparse; its
      `probe.index[E, 2]` is the pair.

    Example:
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> key, loss = jax.random.key(0), lambda paths, params: (space.apply(params, paths), {})
      >>> _, found = jax.jit(two_path_gate().estimate, static_argnums=3)(key, None, logits, loss, {})
      >>> found.policy_grads["edges"].tolist()
      [[-0.75, 0.75]]

    References:
      Cai, Zhu and Han, 2019, "ProxylessNAS", arXiv 1812.00332.
    """

    def estimate(key, state, policy_params, loss_fn, params):
        key_pair, key_active = jax.random.split(key)
        logits = wide(policy_params)
        # The pair by the Gumbel trick: the two greatest perturbed logits.
        pair = jax.tree.map(
            lambda k, leaf: jax.lax.top_k(perturbed(k, leaf), 2)[1].astype(jnp.int32),
            optax.tree.split_key_like(key_pair, logits),
            logits,
        )
        two = jax.tree.map(lambda leaf, i: jnp.take_along_axis(leaf, i, -1), logits, pair)
        # Which of the pair runs, and with it the numbers of the operations.
        active = categorical(two).sample(key_active, two)
        arch = jax.tree.map(lambda i, a: jnp.take_along_axis(i, a[..., None], -1)[..., 0], pair, active)
        zeros = jax.tree.map(lambda i, leaf: jnp.zeros(i.shape, leaf.dtype), pair, policy_params)
        value, aux, paths, weight_grads, to_gates = _probed(loss_fn, params, policy_params, arch, Paths(pair, zeros))

        # Only the logits of the pair get a gradient.
        def grad(two, g, i, leaf):
            return jnp.put_along_axis(jnp.zeros_like(leaf), i, _to_logits(two, g), -1, inplace=False)

        grads = jax.tree.map(grad, two, to_gates, pair, policy_params)
        return state, Estimate(value, grads, weight_grads, paths, aux, {})

    return Estimator(no_state, estimate)


def two_path_rescale() -> optax.GradientTransformationExtraArgs:
    """Last link of an optax chain: after the step the pair has the same total probability as before.

    `logits_i <- logits_i - log[(e^{new_a} + e^{new_b}) / (e^{old_a} + e^{old_b})]` for `i` in the pair, so that the
    probabilities of all other operations stay as they were. `update` takes the pair as `paths`, those of the
    estimate.

    Example:
      >>> tx, logits = optax.chain(optax.sgd(0.1), two_path_rescale()), jnp.zeros((1, 3))
      >>> pair = Paths(jnp.array([[0]]), jnp.ones((1, 1)), Paths(jnp.array([[0, 2]]), jnp.zeros((1, 2))))
      >>> step, _ = tx.update(jnp.array([[1.0, 0.0, 0.0]]), tx.init(logits), logits, paths=pair)
      >>> round(float(jax.nn.softmax(logits + step)[0, 1]), 4)  # the operation that was not drawn keeps its probability
      0.3333

    References:
      ProxylessNAS, arXiv 1812.00332, where it reads as a factor of `exp(logits)`.
    """

    def update(updates, state, params=None, *, paths: Paths | None = None, **extra):
        del extra
        if params is None or paths is None or paths.probe is None or paths.probe.index is None:
            raise UserError("two_path_rescale needs the logits as params and the paths of two_path_gate as paths")

        def rescale(step, leaf, i):
            # log[(e^{new_a} + e^{new_b}) / (e^{old_a} + e^{old_b})], taken off both logits of the pair.
            old = jnp.take_along_axis(leaf, i, -1)
            moved = jnp.take_along_axis(step, i, -1)
            shift = jax.nn.logsumexp(old + moved, -1, keepdims=True) - jax.nn.logsumexp(old, -1, keepdims=True)
            return jnp.put_along_axis(step, i, moved - shift, -1, inplace=False)

        return jax.tree.map(rescale, updates, params, paths.probe.index), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _probed(loss_fn, params, choices: Tree, arch: Arch, probe: Paths):
    """One run of `arch`: `(loss, aux, paths, gradient of the weights, gradient of the probed gates)`."""
    index = jax.tree.map(lambda leaf: leaf[..., None], arch)
    weight = jax.tree.map(lambda i, leaf: jnp.ones(i.shape, leaf.dtype), index, choices)

    # The weights of the probe are zero; their gradient is that of the gates it asks about.
    def run(asked, params):
        paths = Paths(index, weight, probe._replace(weight=asked))
        loss, aux = loss_fn(paths, params)
        return loss, (aux, paths)

    (value, (aux, paths)), grads = jax.value_and_grad(run, (0, 1), has_aux=True)(probe.weight, params)
    return value, aux, paths, grads[1], grads[0]


def _to_logits(logits: jax.Array, to_gates: jax.Array) -> jax.Array:
    """The gradient of the logits from that of the gates, in the dtype of the gates."""
    return softmax_jacobian(jax.nn.softmax(logits), to_gates.astype(logits.dtype)).astype(to_gates.dtype)
