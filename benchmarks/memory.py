"""How much memory a training step takes: with all paths, with one, with two, and for the child alone.

    python -m benchmarks.memory                           # a chain of 8 inverted bottlenecks, 3 to 7 candidates
    python -m benchmarks.memory --counts 7 --time
    python -m benchmarks.memory --imagenet 64 --batch 16  # the ImageNet space on images of 64x64

Prints the temporary memory in MiB that XLA's `memory_analysis` reports; nothing is timed unless `--time` asks for it.
Each column is the gradient with respect to

* `mixture`: all weights and gates, through all candidates (DARTS), whose activations autodiff saves;
* `child`: the weights of the largest architecture as a network of its own; `child, recomputed` saves only the input of
  every block;
* `one path`: the weights, through one sampled path of the supernet (ProxylessNAS's weight step);
* `full_v2`, `two`: the logits, through one path and the gates of all others, or of one other.
"""

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas.base import SearchSpace, dense_paths, sparse_paths
from jaxnas.costs.latency import median_milliseconds
from jaxnas.estimators import binary_gate, two_path_gate
from jaxnas.ops import Style
from jaxnas.run._environment import compiler_options, environment
from jaxnas.searchers import classification_loss
from jaxnas.spaces import proxyless_space
from jaxnas.spaces.parts import Run
from jaxnas.spaces.proxyless.network import ProxylessConfig
from jaxnas.train import cross_entropy

# Kernels and expansions that make so many candidates, `zero` included.
SETTINGS = {
    3: ((3, 5), (6,)),
    4: ((3, 5, 7), (6,)),
    5: ((3, 5), (3, 6)),
    6: ((3, 5, 7, 9, 11), (6,)),
    7: ((3, 5, 7), (3, 6)),
}
STYLE = Style(affine=True, eps=1e-3)
FORMS = ("mixture", "child", "child, recomputed", "one path", "full_v2", "two")


def chain(count: int, width: int, blocks: int) -> ProxylessConfig:
    """A chain of equal blocks, each with a shortcut and `count` candidates."""
    kernels, expansions = SETTINGS[count]
    return ProxylessConfig((width,), (blocks,), (1,), width, 1, width, width, 10, kernels, expansions)


def space_of(config: ProxylessConfig) -> SearchSpace:
    """The supernet of a configuration."""
    return proxyless_space(
        config.widths,
        config.blocks,
        config.strides,
        stem_channels=config.stem,
        stem_stride=config.stem_stride,
        first_channels=config.first,
        last_channels=config.last,
        num_classes=config.num_classes,
        kernels=config.kernels,
        expansions=config.expansions,
    )


def child_of(config: ProxylessConfig, *, recompute: bool) -> Callable[[Any, jax.Array], jax.Array]:
    """`(params, x) -> logits` of the architecture of all last candidates, written as a user would write it.

    Args:
      config: the size of the network.
      recompute: whether the backward pass computes every block again, from its input.
    """
    name, pieces = config.operations[-1], config.pieces(STYLE)

    def run_alone(run: Run, weights, x):
        op = run.group.ops[name]

        def body(x, weights):
            y = op.apply(weights, x)
            return (x + y if run.shortcut else y), None

        body = jax.checkpoint(body) if recompute else body
        if len(run.group.edges) > 1:
            return jax.lax.scan(body, x, weights[name])[0]
        return body(x, jax.tree.map(lambda leaf: leaf[0], weights[name]))[0]

    def apply(params, x):
        def running(piece, weights):
            alone = run_alone if isinstance(piece, Run) else lambda piece, weights, x: piece.apply(weights, None, x)
            return functools.partial(alone, piece, weights)

        return config.forward(jax.tree.map(running, pieces, params), x)

    return apply


def programs(config: ProxylessConfig, data: tuple[jax.Array, jax.Array]) -> dict[str, tuple[Callable[..., Any], tuple]]:
    """`{form: (function, arguments)}`; architectures are arguments, since the compiler would fold a constant one."""
    space, key = space_of(config), jax.random.key(0)
    params = jax.eval_shape(space.init, key, data[0])
    # Memory does not depend on the numbers, so any will do.
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), params)
    logits = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), space.choices)
    arch = {kind: jnp.full(leaf.shape[0], len(config.operations) - 1) for kind, leaf in space.choices.items()}
    loss_fn = classification_loss(space)

    def loss(params, paths):
        return loss_fn(paths, params, data)[0]

    def mixture(params, logits):
        return jax.grad(lambda p, z: loss(p, dense_paths(jax.tree.map(jax.nn.softmax, z))), (0, 1))(params, logits)

    def gates(estimator):
        def run(params, logits, key):
            def loss_of_batch(paths, params):
                return loss_fn(paths, params, data)

            return estimator.estimate(key, (), logits, loss_of_batch, params)[1].policy_grads

        return run

    def child(recompute):
        apply = child_of(config, recompute=recompute)
        return jax.grad(lambda p: cross_entropy(apply(p, data[0]), data[1]))

    runs = [{config.operations[-1]: run[config.operations[-1]]} for run in params["runs"]]
    child_params = {**params, "runs": runs}
    return {
        "mixture": (mixture, (params, logits)),
        "child": (child(False), (child_params,)),
        "child, recomputed": (child(True), (child_params,)),
        "one path": (lambda p, a: jax.grad(loss)(p, sparse_paths(a)), (params, arch)),
        "full_v2": (gates(binary_gate()), (params, logits, key)),
        "two": (gates(two_path_gate()), (params, logits, key)),
    }


def measure(config: ProxylessConfig, size: int, batch: int, *, timed: bool) -> dict[str, tuple[float, float | None]]:
    """The temporary MiB of every form, and its milliseconds where they are asked for."""
    key = jax.random.key(0)
    data = jax.random.normal(key, (batch, size, size, 3)), jax.random.randint(key, (batch,), 0, config.num_classes)
    found = {}
    for form, (function, arguments) in programs(config, data).items():
        compiled = jax.jit(function, compiler_options=compiler_options()).lower(*arguments).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20
        found[form] = temporary, median_milliseconds(compiled, *arguments, repeats=7, warm=2) if timed else None
    return found


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--imagenet", type=int, metavar="SIZE", help="the ImageNet space on images of this side")
    parser.add_argument("--time", action="store_true", help="milliseconds too")
    args = parser.parse_args(argv)
    print(f"| candidates | {' | '.join(FORMS)} |\n|---|{'---:|' * len(FORMS)}")
    cases = [(count, chain(count, args.width, args.blocks), args.size) for count in args.counts]
    if args.imagenet:
        cases = [(7, ProxylessConfig(), args.imagenet)]
    for count, config, size in cases:
        found = measure(config, size, args.batch, timed=args.time)
        cells = [f"{mib:.1f}" + ("" if ms is None else f" ({ms:.0f} ms)") for mib, ms in map(found.get, FORMS)]
        print(f"| {count} | {' | '.join(cells)} |", flush=True)
    print(json.dumps({name: environment()[name] for name in ("device", "devices", "jax", "commit")}))


if __name__ == "__main__":
    main()
