"""The pathwise estimator: differentiate the loss through a relaxed sample."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Estimate, Estimator, Paths, Relaxation, Tree, dense_paths
from jaxnas.errors import UserError
from jaxnas.relaxations import Temperature, check_temperature, gumbel_softmax, temperature_at

__all__ = ["PathwiseState", "path_gradient", "pathwise"]


class PathwiseState(NamedTuple):
    """What the pathwise estimator remembers.

    Attributes:
      step: number of estimates so far, which a schedule of the temperature counts.
    """

    step: jax.Array


def pathwise(
    relaxation: Relaxation = gumbel_softmax, temperature: Temperature = 1.0, *, num_samples: int = 1
) -> Estimator:
    """`grad = (1/S) sum_s d/dlogits loss(relaxation(noise_s, logits, temperature))`.

    Unbiased for the expected loss over the relaxed samples; for discrete architectures biased, less so and with more
    variance as the temperature falls. With `softmax` it is the deterministic gradient of DARTS, with `gumbel_softmax`
    that of SNAS. One forward and backward pass of the loss per sample.

    Args:
      relaxation: `(key, logits, temperature) -> weight`, one of `jaxnas.relaxations`.
      temperature: temperature of the relaxation, above zero: a float, a traced array, or a schedule of the number of
        estimates.
      num_samples: number `S` of samples, accumulated by `scan`, so that memory does not grow with it.

    Returns:
      An estimator whose policy parameters are logits, leaves `[E, K]`. `Estimate.paths` and `aux` are those of the
      last sample.

    Raises:
      UserError: a temperature not above zero, or `num_samples` below one.

    Example:
      >>> from jaxnas.relaxations import softmax
      >>> from jaxnas.spaces import table_space
      >>> space, logits = table_space([0.0, 3.0]), {"edges": jnp.zeros((1, 2))}
      >>> loss, estimator = lambda paths, params: (space.apply(params, paths), {}), pathwise(softmax)
      >>> key = jax.random.key(0)
      >>> _, found = jax.jit(estimator.estimate, static_argnums=3)(key, estimator.init(key, logits), logits, loss, {})
      >>> found.policy_grads["edges"].tolist()
      [[-0.75, 0.75]]

    References:
      SNAS, arXiv 1812.09926, equation 6; DARTS, arXiv 1806.09055, equation 2.
    """
    return path_gradient(relaxation, temperature, num_samples, dense_paths)


def path_gradient(
    relaxation: Relaxation, temperature: Temperature, num_samples: int, to_paths: Callable[[Tree], Paths]
) -> Estimator:
    """`pathwise` with one more choice: `to_paths(weight)` makes paths of relaxed samples."""
    check_temperature(temperature)
    if num_samples < 1:
        raise UserError(f"num_samples must be at least 1, got {num_samples}")

    def init(key, policy_params):
        del key, policy_params
        return PathwiseState(jnp.zeros((), jnp.int32))

    def estimate(key, state, policy_params, loss_fn, params):
        tau = temperature_at(temperature, state.step, policy_params)

        def draw(key):
            # The loss through one relaxed sample, differentiated in logits and weights.
            def relaxed_loss(logits, params):
                keys = optax.tree.split_key_like(key, logits)
                paths = to_paths(jax.tree.map(lambda k, leaf: relaxation(k, leaf, tau), keys, logits))
                loss, aux = loss_fn(paths, params)
                return loss, (paths, aux)

            return jax.value_and_grad(relaxed_loss, (0, 1), has_aux=True)(policy_params, params)

        # One sample, or the mean over S of them, one after the other.
        if num_samples == 1:
            (value, (paths, aux)), grads = draw(key)
        else:
            keys = jax.random.split(key, num_samples)
            (value, _), grads = optax.tree.zeros_like(jax.eval_shape(draw, keys[0]))

            def body(total, key):
                (value, out), grads = draw(key)
                return jax.tree.map(lambda t, new: t + new / num_samples, total, (value, grads)), out

            (value, grads), outs = jax.lax.scan(body, (value, grads), keys)
            paths, aux = jax.tree.map(lambda leaf: leaf[-1], outs)
        info = {"temperature": tau}
        return PathwiseState(state.step + 1), Estimate(value, grads[0], grads[1], paths, aux, info)

    return Estimator(init, estimate)
