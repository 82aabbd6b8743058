"""A chain of choices among anyone's operations: the shortest way from a few blocks to a search space.

Operations come from any library, as a pure pair `Op(init, apply)`; see `as_op` for what else is taken.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.architectures import arch_like, greatest
from jaxnas.base import About, Arch, CostTable, Network, Op, SearchSpace
from jaxnas.dtypes import compute_dtype, in_weight_dtype, wide_dtype
from jaxnas.errors import UserError
from jaxnas.ops import from_linen
from jaxnas.spaces.parts.graph import EdgeGroup
from jaxnas.spaces.parts.pieces import Run

__all__ = ["as_op", "chain_space"]


def chain_space(
    ops: Mapping[str, Any] | Sequence[Any],
    length: int,
    *,
    stem: Any = None,
    head: Any = None,
    name: str = "chain",
    scanned: bool = True,
    dtype: str = "float32",
) -> SearchSpace:
    """`length` choices in a row among the same operations, between a stem and a head.

    `y = head(o_L(...o_2(o_1(stem(x)))))`; `derive` keeps the best operation of every place. The weights of the places
    lie stacked on a leading axis and `apply` scans over them, so that the program holds each operation once.

    Args:
      ops: two or more candidates by name, or in a sequence, which names them `op0`, `op1` and so on. Each is whatever
        `as_op` takes, and keeps the shape and dtype of its input.
      length: number of choices.
      stem: operation before the chain, anything that `as_op` takes; none when `None`.
      head: operation after the chain, for example a classifier; none when `None`.
      name: name of the space.
      scanned: `False` writes the places out one by one, the plain form of the same function.
      dtype: type of the computation. With `"bfloat16"` inputs and weights are cast on their way into the stem and the
        chain; the weights themselves stay float32, and so does the head. `"float64"`, for checking, is everywhere in
        float64 and needs 64-bit JAX.

    Returns:
      The space, with `choices = {"chain": [length, K]}`. Its stand-alone network keeps no running averages, and its
      costs know parameters only.

    Raises:
      UserError: a length below one, fewer than two operations, another `dtype`, or a candidate that `as_op` does not
        take; in `init`, an operation that changes the shape or dtype of its input.

    Example:
      >>> space = chain_space({"dense": nn.Dense(3), "tanh": jnp.tanh, "skip": lambda x: x}, 4, head=nn.Dense(2))
      >>> x = jnp.ones((5, 3))
      >>> params = space.init(jax.random.key(0), x)
      >>> space.apply(params, sparse_paths({"chain": jnp.array([0, 1, 2, 0])}), x).shape
      (5, 2)
    """
    named = dict(ops) if isinstance(ops, Mapping) else {f"op{k}": op for k, op in enumerate(ops)}
    if length < 1:
        raise UserError(f"length must be at least 1, got {length}")
    if len(named) < 2:
        raise UserError(f"ops: need two or more, got {list(named)}")
    # Everything as pure pairs: stem and head, and one run of choices.
    compute = compute_dtype(dtype)
    first, last = (as_op(op if op is not None else _identity) for op in (stem, head))
    run = Run(
        "chain", EdgeGroup({op_name: as_op(op) for op_name, op in named.items()}, tuple(range(length))), scanned=scanned
    )
    return _space(name, run, first, last, compute)


def as_op(candidate: Any) -> Op:
    """Turns a candidate into a pure pair.

    Args:
      candidate: an `Op` or any pair `(init, apply)` like it; a Linen module with parameters only; or a function
        without parameters, such as `jnp.tanh`.

    Raises:
      UserError: anything else. A module that is itself a tree of arrays, as those of NNX and Equinox are, has to be
        split into a pair first: called as a function, its weights would be constants.
    """
    if isinstance(candidate, nn.Module):
        return from_linen(candidate)
    if isinstance(candidate, tuple) and len(candidate) == 2 and all(map(callable, candidate)):
        return Op(*candidate)
    if callable(candidate) and not isinstance(candidate, type) and jax.tree_util.all_leaves([candidate]):
        return Op(lambda key, x: {}, lambda params, x, *, key=None: candidate(x))
    raise UserError(
        "an operation must be Op(init, apply), a Linen module or a function without parameters, "
        f"got {type(candidate).__name__}"
    )


def _identity(x: jax.Array) -> jax.Array:
    return x


def _cast(tree: Any, dtype: Any) -> Any:
    """`tree` with its floating leaves in `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _space(name: str, run: Run, first: Op, last: Op, compute: np.dtype) -> SearchSpace:
    def init(key, x):
        key_stem, key_blocks, key_head = jax.random.split(key, 3)
        stem = first.init(key_stem, x)
        x = _output_like(first, stem, x)
        # Blocks, drawn as the first and only group of a cell would be.
        blocks = run.init(jax.random.fold_in(key_blocks, 0), x)
        # An operation must keep the shape and dtype of its input, which the next place takes.
        for op_name, op in run.group.ops.items():
            y = jax.eval_shape(op.apply, jax.tree.map(lambda leaf: leaf[0], blocks[op_name]), x)
            if (y.shape, y.dtype) != (x.shape, x.dtype):
                raise UserError(f"ops: {op_name} turns {x.dtype}{list(x.shape)} into {y.dtype}{list(y.shape)}")
        return {"stem": stem, "blocks": blocks, "head": last.init(key_head, x)}

    def apply(params, paths, x, *, key=None):
        key_stem, key_head, key_blocks = _split(key)
        stem, blocks, narrow = params["stem"], params["blocks"], compute != jnp.float32
        if narrow:  # weights stay as they are outside
            stem, blocks, x = _cast((stem, blocks, x), compute)
        # The head computes in the wide type, as losses do.
        x = run.apply(blocks, paths, first.apply(stem, x, key=key_stem), key=key_blocks)
        return last.apply(params["head"], _cast(x, wide_dtype(compute)) if narrow else x, key=key_head)

    def used(params, paths):
        return {**jax.tree.map(lambda leaf: True, params), "blocks": run.used(params["blocks"], paths)}

    choices = {"chain": jax.ShapeDtypeStruct((len(run.group.edges), len(run.group.ops)), wide_dtype(compute))}
    about = _about(name, run, init, choices, first, last)
    return SearchSpace(in_weight_dtype(init, compute), apply, used, greatest, choices, about)


def _output_like(op: Op, params: Any, x: jax.Array) -> jax.Array:
    """Zeros of the shape and dtype that an operation gives for `x`, as an example for what comes after it."""
    shape = jax.eval_shape(op.apply, params, x)
    return jnp.zeros(shape.shape, shape.dtype)


def _split(key: jax.Array | None) -> tuple[Any, Any, Any]:
    """Keys of the stem, of the head, and of the places together; all `None` without a key."""
    return (None, None, None) if key is None else tuple(jax.random.split(key, 3))


def _about(name, run, init, choices, first, last) -> About:
    operations, length = tuple(run.group.ops), len(run.group.edges)

    def costs(example_shape, *, batch=4):
        shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((batch, *example_shape)))
        # Weights are stacked over the places, which all count the same.
        row = [_count(shapes["blocks"][op_name]) // length for op_name in operations]
        fixed = _count((shapes["stem"], shapes["head"]))
        return {"parameters": CostTable(fixed, {"chain": np.tile(np.array(row, np.int64), (length, 1))})}

    def parse(genotype):
        unknown = sorted(set(genotype) - set(operations))
        if unknown:
            raise UserError(f"genotype: unknown operations {unknown}, accepted are {', '.join(operations)}")
        return arch_like(choices, {"chain": [operations.index(op_name) for op_name in genotype]})

    return About(
        name=name,
        operations={"chain": operations},
        size=len(operations) ** length,
        costs=costs,
        genotype=lambda arch: [operations[k] for k in arch_like(choices, arch)["chain"]],
        parse=parse,
        network=lambda arch: _network(run, arch_like(choices, arch), first, last),
        edges={"chain": tuple((i, i + 1) for i in range(length))},
    )


def _count(shapes: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _network(run: Run, arch: Arch, first: Op, last: Op) -> Network:
    """The operations of `arch` in a row, with parameters by name: `stem`, `block0_dense`, ..., `head`."""
    places = run.chosen(arch)
    parts = {"stem": first, **{place: run.group.ops[op_name] for op_name, place in places}, "head": last}

    def init(key, x):
        params = {}
        # Part after part, each with an example of what the parts before it give.
        for (part, op), key_part in zip(parts.items(), jax.random.split(key, len(parts)), strict=True):
            params[part] = op.init(key_part, x)
            x = _output_like(op, params[part], x)
        return {"params": params}

    def apply(variables, x, *, key=None, train=False, drop_path=None):
        del train, drop_path  # the operations know neither
        key_stem, key_head, key_blocks = _split(key)
        keys = [None] * len(places) if key is None else jax.random.split(key_blocks, len(places))
        for (part, op), key_part in zip(parts.items(), [key_stem, *keys, key_head], strict=True):
            x = op.apply(variables["params"][part], x, key=key_part)
        return x, variables

    def inherit(params):
        blocks = run.inherit(params["blocks"], arch)
        return {"params": {"stem": params["stem"], **blocks, "head": params["head"]}}

    return Network(init, apply, inherit)
