"""One network of a population, trained from its first weights to its last judgement in one pure function."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.base import Arch, Params, SearchSpace, Tree, sparse_paths
from jaxnas.dtypes import wide_dtype_of
from jaxnas.errors import UserError
from jaxnas.guard import guarded
from jaxnas.judge import mean_score
from jaxnas.train import cross_entropy, hits

__all__ = ["Family", "Member", "PopulationData", "Recipe", "Trained", "family_of", "train_member"]


class Family(NamedTuple):
    """Networks that share one program, the architecture an argument.

    Attributes:
      init: `(key, arch, x[B, ...]) -> params`, the first weights of one member.
      apply: `(params, arch, x[B, ...]) -> outputs[B, ...]`, while training.
      judge: the same while judging; None for `apply`. With `reference=R` the first `R` images of a batch come from the
        training data, the same for all members and batches, and their logits are dropped: a network that normalises
        with the statistics of those gives each image a judgement of its own.
      reference: `R`.
    """

    init: Callable[[jax.Array, Arch, jax.Array], Params]
    apply: Callable[[Params, Arch, jax.Array], jax.Array]
    judge: Callable[[Params, Arch, jax.Array], jax.Array] | None = None
    reference: int = 0


class Recipe(NamedTuple):
    """How every member is trained.

    Attributes:
      tx: an optax transformation, or `(rates) -> transformation` where members differ in their rates: `rates` is one
        member's part of the pytree that `train_population` is given, for example its learning rate.
      steps: of training.
      batch_size: examples per step; an epoch has `N // batch_size` steps, each example at most once.
      judge_at: numbers of steps after which the member is judged; the last step always is.
      prepare: `(key, images) -> images`, what is done to a batch of images before the network sees it, such as scaling
        and augmentation; the key is None where the member is judged.
      judge_batch: images judged at a time.
      loss: `(outputs, targets) -> scalar`, what training minimises; by default the mean cross-entropy in nats.
      score: `(outputs, targets) -> [B]` or a scalar mean over the batch, or a pytree of those, what members are judged
        by; by default 1 for an image that is classified rightly and 0 for another, whose mean is the accuracy.
    """

    tx: optax.GradientTransformation | Callable[[Tree], optax.GradientTransformation]
    steps: int
    batch_size: int
    judge_at: tuple[int, ...] = ()
    prepare: Callable[[jax.Array | None, jax.Array], jax.Array] | None = None
    judge_batch: int = 500
    loss: Callable[[Any, jax.Array], jax.Array] = cross_entropy
    score: Callable[[Any, jax.Array], Any] = hits

    @property
    def moments(self) -> tuple[int, ...]:
        """The steps after which members are judged, in order."""
        return tuple(sorted({*self.judge_at, self.steps}))


class PopulationData(NamedTuple):
    """What members learn from and are judged on.

    Attributes:
      train: `(images[N, ...], labels[N])`.
      parts: by name, for example `{"validation": (images, labels), "test": (images, labels)}`.
    """

    train: tuple[jax.Array, jax.Array]
    parts: dict[str, tuple[jax.Array, jax.Array]]


class Member(NamedTuple):
    """One network to be: its key, its architecture, and its rates, None where `Recipe.tx` takes none."""

    key: jax.Array
    arch: Arch
    rates: Tree


class Trained(NamedTuple):
    """What has become of a member; `J` judgements.

    Attributes:
      score: by part of the data the mean of `Recipe.score`, `[J]`. It is NaN at every judgement after a step that was
        not finite; the default score is NaN too wherever the member's logits are not finite.
      loss: `[J]`, mean training loss in nats since the judgement before; NaN from the first step that was not finite.
      good: whether every loss, every gradient and all weights and moments were finite. From the first step where one
        was not, a member stands still (`jaxnas.guard`).
      params: its weights.
    """

    score: dict[str, Any]
    loss: jax.Array
    good: jax.Array
    params: Params


class _State(NamedTuple):
    params: Params
    opt: optax.OptState
    order: jax.Array
    total: jax.Array
    good: jax.Array


def family_of(space: SearchSpace, judge: SearchSpace | None = None, *, reference: int = 0) -> Family:
    """The children of a space, as sparse paths through it.

    Args:
      space: the space.
      judge: the same space built with `reference`, if children are judged with statistics of training images.
      reference: as it was built with.
    """

    def child(space):
        return lambda params, arch, x: space.apply(params, sparse_paths(arch), x)

    return Family(
        lambda key, arch, x: space.init(key, x), child(space), None if judge is None else child(judge), reference
    )


def train_member(family: Family, recipe: Recipe) -> Callable[[Member, PopulationData], Trained]:
    """`(member, data) -> Trained`, to be lifted over members by `vmap`, `lax.map` or a mesh.

    Everything random comes from the member's key, so the result does not depend on who is trained beside it.

    Raises:
      UserError: no steps, a judgement outside of them, a batch size below one.
    """
    _check(recipe)

    def train(member: Member, data: PopulationData) -> Trained:
        key_init, key_order, key_noise = jax.random.split(member.key, 3)
        tx = recipe.tx if isinstance(recipe.tx, optax.GradientTransformation) else recipe.tx(member.rates)
        step = _step(family, recipe, tx, member.arch, data, key_order, key_noise)

        def until(carry: tuple[jax.Array, _State], end: jax.Array):
            begin, state = carry
            state = jax.lax.fori_loop(begin, end, step, state._replace(total=jnp.zeros_like(state.total)))
            judge = functools.partial(_judge, family, recipe, member.arch, state, data.train[0])
            judged = {name: judge(*part) for name, part in data.parts.items()}
            return (end, state), (judged, state.total / (end - begin).astype(state.total.dtype))

        images = _prepared(recipe, None, data.train[0][: recipe.batch_size])
        params = family.init(key_init, member.arch, images)
        order = jnp.zeros(len(data.train[1]), jnp.int32)
        total = jnp.zeros((), wide_dtype_of(params))
        state = _State(params, tx.init(params), order, total, jnp.array(True))
        ends = jnp.asarray(recipe.moments, jnp.int32)
        (_, state), (judged, loss) = jax.lax.scan(until, (jnp.zeros_like(ends[0]), state), ends)
        return Trained(judged, loss, state.good, state.params)

    return train


def _check(recipe: Recipe) -> None:
    if recipe.steps < 1 or recipe.batch_size < 1:
        raise UserError(f"steps and batch_size must be at least 1, got {recipe.steps} and {recipe.batch_size}")
    outside = [step for step in recipe.judge_at if not 1 <= step <= recipe.steps]
    if outside:
        raise UserError(f"judge_at must lie in 1..{recipe.steps}, got {outside[0]}")


def _prepared(recipe: Recipe, key: jax.Array | None, images: jax.Array) -> jax.Array:
    return images if recipe.prepare is None else recipe.prepare(key, images)


def _step(family, recipe, tx, arch, data, key_order, key_noise) -> Callable[[jax.Array, _State], _State]:
    images, labels = data.train
    if len(images) != len(labels):
        raise UserError(f"labels must be one for each of the {len(images)} training images, got {len(labels)}")
    per_epoch = len(labels) // recipe.batch_size
    if not per_epoch:
        raise UserError(f"batch_size is {recipe.batch_size}, more than the {len(labels)} training examples")

    def step(number: jax.Array, state: _State) -> _State:
        epoch, place = jnp.divmod(number, per_epoch)
        # `number` is the same for all members, so that under `vmap` this stays a condition.
        order = jax.lax.cond(
            place == 0,
            lambda: jax.random.permutation(jax.random.fold_in(key_order, epoch), len(labels)).astype(jnp.int32),
            lambda: state.order,
        )
        rows = jax.lax.dynamic_slice_in_dim(order, place * recipe.batch_size, recipe.batch_size)
        x = _prepared(recipe, jax.random.fold_in(key_noise, number) if recipe.prepare else None, images[rows])

        def loss_fn(params: Params) -> jax.Array:
            return recipe.loss(family.apply(params, arch, x), labels[rows])

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, opt = tx.update(grads, state.opt, state.params)
        moved = optax.apply_updates(state.params, updates), opt
        before = state.params, state.opt
        (params, opt), good = guarded(moved, before, loss, optax.tree.norm(grads), alive=state.good)
        seen = jnp.where(good, loss.astype(state.total.dtype), jnp.nan)
        return _State(params, opt, order, state.total + seen, good)

    return step


def _judge(family, recipe, arch, state: _State, training: jax.Array, images, labels) -> Tree:
    judge = family.judge or family.apply
    known = training[: family.reference]

    def predict(images: jax.Array) -> jax.Array:
        seen = _prepared(recipe, None, jnp.concatenate([known, images]) if family.reference else images)
        return judge(state.params, arch, seen)[family.reference :]

    mean = mean_score(predict, recipe.score, images, labels, batch_size=recipe.judge_batch)
    return jax.tree.map(lambda leaf: jnp.where(state.good, leaf, jnp.nan), mean)
