"""One network of a population, trained from its first weights to its last judgement by pure functions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.base import Arch, Params, SearchSpace, Tree, sparse_paths
from jaxnas.dtypes import wide_dtype_of
from jaxnas.errors import UserError
from jaxnas.guard import guarded
from jaxnas.judge import judge
from jaxnas.train import cross_entropy, hits

__all__ = [
    "Family",
    "Member",
    "MemberState",
    "MemberTraining",
    "PopulationData",
    "Recipe",
    "Trained",
    "family_of",
    "member_training",
    "train_member",
]


class Family(NamedTuple):
    """Networks that share one program, the architecture an argument.

    Attributes:
      init: `(key, arch, x[B, ...]) -> params`, the first weights of one member.
      apply: `(params, arch, x[B, ...]) -> outputs[B, ...]`, while training.
      judge: the function that takes the place of `apply` while judging; None where `apply` serves for both. With
        `reference=R` the first `R` inputs of a batch come from the training data, the same for all members and batches.
        Their outputs are dropped: a network that normalises with their statistics judges every further input by itself.
      reference: the number `R` of such inputs.
    """

    init: Callable[[jax.Array, Arch, jax.Array], Params]
    apply: Callable[[Params, Arch, jax.Array], Any]
    judge: Callable[[Params, Arch, jax.Array], Any] | None = None
    reference: int = 0


class Recipe(NamedTuple):
    """How every member is trained and judged.

    Attributes:
      tx: an optax transformation, or `(rates) -> transformation` where members differ in their rates: `rates` is one
        member's part of the pytree that `train_population` is given, for example its learning rate.
      steps: number of training steps.
      batch_size: examples per step; an epoch has `N // batch_size` steps, each example at most once.
      judge_at: numbers of steps after which the member is judged; it always is after the last step.
      prepare: `(key, inputs) -> inputs`, what is done to a batch of inputs before the network sees it, such as scaling
        and augmentation; the key is None where the member is judged.
      judge_batch: number of examples that are judged at a time.
      loss: `(outputs, targets) -> scalar`, what training minimises; by default the mean cross-entropy in nats.
      score: `(outputs, targets) -> [B]` or a scalar mean over the batch, or a pytree of those: what members are judged
        by. The default is 1 for an example classified rightly and 0 for another, so that its mean is the accuracy.
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
      train: the pair `(inputs[N, ...], targets[N, ...])`.
      parts: such pairs by name, for example `{"validation": (images, labels), "test": (images, labels)}`; may be empty.
    """

    train: tuple[jax.Array, jax.Array]
    parts: dict[str, tuple[jax.Array, jax.Array]]


class Member(NamedTuple):
    """One network to be: its key, its architecture, and its rates, None where `Recipe.tx` takes none."""

    key: jax.Array
    arch: Arch
    rates: Tree


class Trained(NamedTuple):
    """What has become of a member that was judged `J` times.

    Attributes:
      score: by part of the data the mean of `Recipe.score`, `[J]`. It is NaN at every judgement after a step that was
        not finite; the default score is NaN too wherever the member's logits are not finite.
      loss: mean training loss since the judgement before, `[J]`; NaN from the first step on that was not finite.
      good: whether every loss, every gradient and all weights and moments were finite. From the first step where one
        was not, a member stands still (`jaxnas.guard`).
      params: weights of the member.
    """

    score: dict[str, Any]
    loss: jax.Array
    good: jax.Array
    params: Params


class MemberState(NamedTuple):
    """A member in training.

    Attributes:
      trained: results so far; NaN in place of judgements that lie ahead.
      opt: state of the optimiser.
      order: int32 `[N]`, in which order this epoch takes the examples.
      total: sum of the losses since the last judgement.
    """

    trained: Trained
    opt: optax.OptState
    order: jax.Array
    total: jax.Array


class MemberTraining(NamedTuple):
    """The training of one member in two functions, so that it can be stopped anywhere and go on.

    Attributes:
      init: `(member, data) -> state`.
      advance: `(member, state, data, begin, end) -> state` after the steps `begin .. end - 1`.
    """

    init: Callable[[Member, PopulationData], MemberState]
    advance: Callable[[Member, MemberState, PopulationData, Any, Any], MemberState]


def family_of(space: SearchSpace, judge: SearchSpace | None = None, *, reference: int = 0) -> Family:
    """The children of a space, as sparse paths through it.

    Args:
      space: the space.
      judge: that space built with `reference`, if children are judged with statistics of training examples.
      reference: the number of reference examples that `judge` was built with.

    Raises:
      UserError: reference examples without a space that normalises with them.

    Example:
      >>> from jaxnas.population import family_of
      >>> from jaxnas.spaces import nasbench201_small_space
      >>> space, judge = (nasbench201_small_space(4, 10, reference=r) for r in (0, 256))
      >>> family_of(space, judge, reference=256).reference
      256
    """

    def child(space: SearchSpace) -> Callable[[Params, Arch, jax.Array], Any]:
        return lambda params, arch, x: space.apply(params, sparse_paths(arch), x)

    if reference and judge is None:
        raise UserError(f"reference is {reference}, which needs a judge: the space built with that reference")
    judged = None if judge is None else child(judge)
    return Family(lambda key, arch, x: space.init(key, x), child(space), judged, reference)


def train_member(family: Family, recipe: Recipe) -> Callable[[Member, PopulationData], Trained]:
    """`(member, data) -> Trained`, the whole training of one member, to be lifted over members by `vmap` or `lax.map`.

    Everything random comes from the member's key, so the result does not depend on who is trained beside it.

    Raises:
      UserError: no steps, a judgement outside of them, a batch size below one.
    """
    init, advance = member_training(family, recipe)
    return lambda member, data: advance(member, init(member, data), data, 0, recipe.steps).trained


def member_training(family: Family, recipe: Recipe) -> MemberTraining:
    """`train_member` as two functions, for trainings that are too long for one call of a program.

    Raises:
      UserError: no steps, a judgement outside of them, a batch size below one.
    """
    _check(recipe)
    stops = np.array(recipe.moments, np.int32)
    starts = np.array([0, *recipe.moments[:-1]], np.int32)

    # The mean score on every part of the data, with the statistics of reference examples if there are any.
    def verdicts(member: Member, params: Params, data: PopulationData) -> dict[str, Any]:
        verdict = judge(
            family.judge or family.apply,
            reference=data.train[0][: family.reference] if family.reference else None,
            prepare=functools.partial(_prepared, recipe, None),
            score=recipe.score,
            batch_size=recipe.judge_batch,
        )
        return {name: verdict(params, member.arch, *part) for name, part in data.parts.items()}

    def init(member: Member, data: PopulationData) -> MemberState:
        key_init, _, _ = jax.random.split(member.key, 3)
        x = _prepared(recipe, None, data.train[0][: recipe.batch_size])
        params = family.init(key_init, member.arch, x)
        total = jnp.zeros((), wide_dtype_of(params))
        # Scores and losses of all judgements, NaN until they are reached.
        like = jax.eval_shape(verdicts, member, params, data), total
        score, loss = jax.tree.map(lambda leaf: jnp.full((len(stops), *leaf.shape), jnp.nan, leaf.dtype), like)
        trained = Trained(score, loss, jnp.array(True), params)
        return MemberState(trained, _tx(recipe, member).init(params), jnp.zeros(len(data.train[1]), jnp.int32), total)

    def advance(member: Member, state: MemberState, data: PopulationData, begin: Any, end: Any) -> MemberState:
        step = _step(family, recipe, member, data)

        def judged(state: MemberState, number: jax.Array, steps: jax.Array) -> MemberState:
            score, loss, good, params = state.trained
            # This judgement, NaN after a step that was not finite; the sum of losses starts anew.
            now = verdicts(member, params, data), state.total / steps.astype(state.total.dtype)
            now = jax.tree.map(lambda leaf: jnp.where(good, leaf, jnp.nan), now)
            score, loss = jax.tree.map(lambda rows, row: rows.at[number].set(row), (score, loss), now)
            return state._replace(trained=Trained(score, loss, good, params), total=jnp.zeros_like(state.total))

        def stretch(state: MemberState, moment: tuple[jax.Array, jax.Array, jax.Array]):
            """The part between two judgements of the steps `begin .. end - 1`, and the judgement if it is reached."""
            number, start, stop = moment
            state = jax.lax.fori_loop(jnp.maximum(begin, start), jnp.minimum(end, stop), step, state)
            reached = (begin < stop) & (stop <= end)
            return jax.lax.cond(reached, judged, lambda state, *_: state, state, number, stop - start), None

        moments = np.arange(len(stops), dtype=np.int32), starts, stops
        return jax.lax.scan(stretch, state, jax.tree.map(jnp.asarray, moments))[0]

    return MemberTraining(init, advance)


def _check(recipe: Recipe) -> None:
    if recipe.steps < 1 or recipe.batch_size < 1:
        raise UserError(f"steps and batch_size must be at least 1, got {recipe.steps} and {recipe.batch_size}")
    if recipe.judge_batch < 1:
        raise UserError(f"judge_batch must be at least 1, got {recipe.judge_batch}")
    outside = [step for step in recipe.judge_at if not 1 <= step <= recipe.steps]
    if outside:
        raise UserError(f"judge_at must lie in 1..{recipe.steps}, got {outside[0]}")


def _prepared(recipe: Recipe, key: jax.Array | None, inputs: jax.Array) -> jax.Array:
    return inputs if recipe.prepare is None else recipe.prepare(key, inputs)


def _tx(recipe: Recipe, member: Member) -> optax.GradientTransformation:
    return recipe.tx if isinstance(recipe.tx, optax.GradientTransformation) else recipe.tx(member.rates)


def _step(family: Family, recipe: Recipe, member: Member, data: PopulationData) -> Callable[..., MemberState]:
    inputs, targets = data.train
    if len(inputs) != len(targets):
        raise UserError(f"targets must be one for each of the {len(inputs)} training inputs, got {len(targets)}")
    if len(inputs) < family.reference:
        raise UserError(f"reference is {family.reference}, more than the {len(inputs)} training examples")
    per_epoch = len(targets) // recipe.batch_size
    if not per_epoch:
        raise UserError(f"batch_size is {recipe.batch_size}, more than the {len(targets)} training examples")
    _, key_order, key_noise = jax.random.split(member.key, 3)
    tx = _tx(recipe, member)

    def step(number: jax.Array, state: MemberState) -> MemberState:
        # Batch: every epoch in a new order. `number` is the same for all members, so that under `vmap` this
        # stays a condition.
        epoch, place = jnp.divmod(number, per_epoch)
        order = jax.lax.cond(
            place == 0,
            lambda: jax.random.permutation(jax.random.fold_in(key_order, epoch), len(targets)).astype(jnp.int32),
            lambda: state.order,
        )
        rows = jax.lax.dynamic_slice_in_dim(order, place * recipe.batch_size, recipe.batch_size)
        x = _prepared(recipe, jax.random.fold_in(key_noise, number) if recipe.prepare else None, inputs[rows])

        def loss_fn(params: Params) -> jax.Array:
            return recipe.loss(family.apply(params, member.arch, x), targets[rows])

        # Step: rejected, with all that come after it, if anything about it is not finite.
        trained = state.trained
        loss, grads = jax.value_and_grad(loss_fn)(trained.params)
        updates, opt = tx.update(grads, state.opt, trained.params)
        moved = optax.apply_updates(trained.params, updates), opt
        before = trained.params, state.opt
        (params, opt), good = guarded(moved, before, loss, optax.tree.norm(grads), alive=trained.good)
        seen = jnp.where(good, loss.astype(state.total.dtype), jnp.nan)
        return MemberState(trained._replace(good=good, params=params), opt, order, state.total + seen)

    return step
