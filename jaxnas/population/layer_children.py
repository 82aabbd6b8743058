"""Children of NAS-RL's convolutional space by two routes with one result: the canvas, and a program of their own.

On the canvas all children share one program, so `train_population` trains any number of them after one compilation. A
program of its own wastes nothing on masks, has to be compiled for each architecture, and suits a `Farm`. Both routes
draw the same first weights, see the same examples in the same order, and judge with reference examples instead of
running averages, so a reward depends on the route by rounding alone.

`benchmarks.convolutional_children` measured six layers, images of 8 by 8 pixels, 100 steps and one CPU core. With 4 to
12 filters the canvas is faster in total from three children on, with 24 to 64 from five on. Each of its steps is slower
with few filters, so children trained for more than about 700 steps are faster in programs of their own.
"""

import dataclasses

from jaxnas.architectures import arch_like
from jaxnas.base import Arch, SearchSpace, sparse_paths
from jaxnas.errors import UserError
from jaxnas.population.member import Family
from jaxnas.spaces.nas_rl import LayerPlan, layer_plan
from jaxnas.spaces.nas_rl.canvas import canvas_apply, canvas_cut, canvas_init

__all__ = ["layer_family", "own_family"]


def layer_family(space: SearchSpace, *, reference: int = 0, eps: float = 1e-5) -> Family:
    """The children of a space of layers on the canvas, the architecture an argument of their one program.

    A child's first weights are scaled by its own numbers of inputs, and everything outside of it is and stays zero.
    Children train with the statistics of the whole batch, whatever the `reference` of the space.

    Args:
      space: a space from `nas_rl_space`.
      reference: number of training examples that give the statistics of normalisation where a child is judged; 0 for
        the statistics of the judged batch.
      eps: number above zero that normalisation adds to the variance.

    Raises:
      UserError: another space, a negative `reference`, or an `eps` that is not above zero.

    Example:
      >>> from jaxnas.population import layer_family
      >>> from jaxnas.spaces.nas_rl import nas_rl_space
      >>> layer_family(nas_rl_space(6, 10), reference=256).reference
      256
    """
    plan, judge = _plans(space, reference, eps)
    return Family(
        init=lambda key, arch, x: canvas_init(plan, key, x, arch),
        apply=lambda params, arch, x: canvas_apply(plan, params, sparse_paths(arch), x, eps=eps),
        judge=lambda params, arch, x: canvas_apply(judge, params, sparse_paths(arch), x, eps=eps),
        reference=reference,
    )


def own_family(
    space: SearchSpace, arch: Arch, *, reference: int = 0, eps: float = 1e-5, more_filters: int | None = None
) -> Family:
    """One architecture in a program of its own; `train_population` and `train_member` train it like any other child.

    Call `train_population` with the same key, the architecture as its only row and the child's seed, and the child
    learns what it would have learnt on the canvas:

        one = {kind: leaf[None] for kind, leaf in arch.items()}
        train_population(key, own_family(space, arch), one, data, recipe, seeds=[seed])

    Args:
      space: a space from `nas_rl_space`.
      arch: the architecture, leaves `[E]`. The family's functions take an architecture, too, and ignore it.
      reference: number of training examples that give the statistics of normalisation where the child is judged; 0 for
        the statistics of the judged batch.
      eps: number above zero that normalisation adds to the variance.
      more_filters: number of filters that every convolution has beside those that it chose; None for the space's own.

    Raises:
      UserError: another space, an architecture outside of it, a negative `reference` or `more_filters`, or an `eps`
        that is not above zero.

    Example:
      >>> from jaxnas.population import own_family
      >>> from jaxnas.spaces.nas_rl import nas_rl_space
      >>> space = nas_rl_space(1, filters=(2, 4), kernels=(1, 3))
      >>> family = own_family(space, {"filters": [1], "height": [0], "width": [1]})
      >>> x = jax.numpy.zeros((4, 8, 8, 3))
      >>> family.init(jax.random.key(0), None, x)["layer0"]["conv0"]["kernel"].shape
      (1, 3, 3, 4)
    """
    plan, judged = _plans(space, reference, eps)
    if more_filters is not None:
        plan = dataclasses.replace(plan, more_filters=more_filters)
    form = {"running": False, "eps": eps, "more_filters": plan.more_filters}
    arch, build = arch_like(plan.choices, arch), space.about.network
    assert build is not None, "every space of layers has it"
    network, judge = (build(arch, reference=one.reference, **form) for one in (plan, judged))

    return Family(
        init=lambda key, _, x: canvas_cut(plan, canvas_init(plan, key, x, arch), arch),
        apply=lambda params, _, x: network.apply({"params": params}, x)[0],
        judge=lambda params, _, x: judge.apply({"params": params}, x)[0],
        reference=reference,
    )


def _plans(space: SearchSpace, reference: int, eps: float) -> tuple[LayerPlan, LayerPlan]:
    """The settings of the space for training and for judging; raises `UserError` as both families do."""
    if not eps > 0:
        raise UserError(f"eps must be above 0, got {eps}")
    plan = layer_plan(space)
    return dataclasses.replace(plan, reference=0), dataclasses.replace(plan, reference=reference)
