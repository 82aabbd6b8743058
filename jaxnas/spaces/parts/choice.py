"""The one primitive that all spaces share: run a weighted choice among operations.

A sparse choice saves only `(index, weight, params, x)` and recomputes inside its branch: the residuals of a plain
`lax.switch` are the union over the branches, many times the memory of the one that ran.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.base import Op, Params, Paths
from jaxnas.dtypes import wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops.calls import barrier

__all__ = ["mixed_op"]


def mixed_op(
    ops: Sequence[Op], params: Sequence[Params], paths: Paths, x: jax.Array, *, key: jax.Array | None = None
) -> jax.Array:
    """`sum_k weight[k] * ops[k](x)` over all operations, or over those that `paths.index` names.

    Dense and sparse paths of the same architecture agree to float tolerance in value and gradient. (Where an
    operation that does not run overflows they differ: `0 * inf` is NaN in the dense form.)

    Args:
      ops: `K` operations with equal output shapes.
      params: parameters of the operations, one entry each.
      paths: paths of one decision: `index` is `None` or `[k]`, `weight` is `[K]` or `[k]`, and `probe` is alike. With
        `index[1]` and `weight[K]` the gates of the operations that do not run are added as they are (GDAS as released).
      x: input of the operations.
      key: key for drop path and dropout inside the operations, shared by all of them.

    Returns:
      The weighted sum.

    Raises:
      UserError: fewer than two operations, or weights that do not fit them.
    """
    ops, params = tuple(ops), tuple(params)
    if len(ops) < 2 or len(params) != len(ops):
        raise UserError(f"a choice needs at least two operations with one params each, got {len(ops)}, {len(params)}")
    if paths.index is None:  # dense: all operations, eq. 2 of DARTS with any weights
        if paths.weight.shape != (len(ops),):
            raise UserError(f"paths.weight must have shape ({len(ops)},), got {paths.weight.shape}")
        outputs = [op.apply(p, x, key=key) for op, p in zip(ops, params, strict=True)]
        y = functools.reduce(jnp.add, [_scale(w, y) for w, y in zip(paths.weight, outputs, strict=True)])
    elif paths.weight.shape == paths.index.shape:  # sparse: those of the index alone
        terms = [_gated(ops, i, w, params, x, key) for i, w in zip(paths.index, paths.weight, strict=True)]
        y = functools.reduce(jnp.add, terms)
    else:  # one operation runs, and of the others the gates alone are added: `jaxnas.estimators.gdas`
        index = paths.index[0]
        others = jnp.sum(jnp.where(jnp.arange(len(ops)) == index, 0.0, paths.weight))
        y = _gated(ops, index, paths.weight[index], params, x, key)
        y = y + others.astype(y.dtype)
    if paths.probe is not None:  # nothing forward, and gate gradients backward
        index = paths.probe.index
        index = jnp.arange(len(ops)) if index is None else index
        y = _probed(ops, y, index, paths.probe.weight, params, x, key)
    return y


def _scale(weight: jax.Array, y: jax.Array) -> jax.Array:
    return weight.astype(y.dtype) * y


def _gate(ops, index, weight, params, x, key):
    branches = [functools.partial(_run, op, k) for k, op in enumerate(ops)]
    return _scale(weight, lax.switch(index, branches, params, x, key))


def _run(op, k, params, x, key):
    return op.apply(params[k], x, key=key)


_gated = functools.partial(jax.custom_vjp, nondiff_argnums=(0,))(_gate)


def _gated_forward(ops, index, weight, params, x, key):
    # The plain function: with the custom one here, a second reverse pass through `scan` loses the residuals.
    return _gate(ops, index, weight, params, x, key), (index, *barrier((weight, params, x)), key)


def _gated_backward(ops, residuals, g):
    index, weight, params, x, key = residuals

    # A branch runs its operation again; the weights of the others get zeros.
    def branch(k):
        def pull(weight, params, x, g):
            y, vjp = jax.vjp(lambda p, x: ops[k].apply(p, x, key=key), params[k], x)
            grads = jax.tree.map(jnp.zeros_like, params)
            to_params, dx = vjp(_scale(weight, g))
            return _inner(g, y, weight.dtype), (*grads[:k], to_params, *grads[k + 1 :]), dx

        return pull

    dweight, dparams, dx = lax.switch(index, [branch(k) for k in range(len(ops))], weight, params, x, g)
    return None, dweight, dparams, dx, None


_gated.defvjp(_gated_forward, _gated_backward)


def _inner(g, y, dtype):
    wide = wide_dtype(y.dtype)
    return jnp.sum(g.astype(wide) * y.astype(wide)).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _probed(ops, y, index, weight, params, x, key):
    """`y`, whose cotangent `g` also gives `weight[j]` the cotangent `<g, ops[index[j]](x)>`."""
    del ops, index, weight, params, x, key
    return y


def _probed_forward(ops, y, index, weight, params, x, key):
    return y, (index, weight, params, x, key)


def _probed_backward(ops, residuals, g):
    index, weight, params, x, key = residuals
    branches = [functools.partial(_run, op, k) for k, op in enumerate(ops)]

    def gate(i):  # one operation at a time: the memory of one
        return _inner(g, lax.switch(i, branches, params, x, key), weight.dtype)

    zeros = jax.tree.map(jnp.zeros_like, (params, x))
    return g, None, lax.map(gate, index), *zeros, None


_probed.defvjp(_probed_forward, _probed_backward)
