"""Texts for the scripts that train recurrent cells: the tokens, windows for a population, and the recipe.

All numbers are mean nats per token. A window starts with a state of zeros, while it is trained on and while it judges.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.configs.text import TextRecipeConfig, TextSourceConfig, TextTrainingConfig
from jaxnas.data import text as texts
from jaxnas.errors import UserError
from jaxnas.population import PopulationData, Recipe

SYNTHETIC = "synthetic"
# Fields of a recipe that `--smoke` makes small.
FEW: dict[str, int] = {"steps": 4, "batch_size": 4, "length": 8}


def load_text_data(config: TextSourceConfig) -> texts.Text:
    """The text of a configuration, in three parts.

    Raises:
      UserError: a path with a variable that the environment does not have, or what `jaxnas.data.text` refuses.
    """
    settings: dict[str, Any] = {"unit": config.unit, "fractions": config.fractions, "min_count": config.min_count}
    if config.path == SYNTHETIC:
        return texts.text_of(made_up_text(), name=SYNTHETIC, **settings)
    path = os.path.expandvars(config.path)
    if "$" in path:
        raise UserError(f"data.path is {config.path}: the environment has no such variable; set it or name a file")
    return texts.load_text(path, **settings)


def made_up_text(num_words: int = 800) -> str:
    """A text of few words in random order, the same at every call, from which a network can learn to spell."""
    words = ["the", "cell", "of", "a", "tree", "reads", "its", "memory", "and", "writes", "it", "anew.\n"]
    return " ".join(np.random.default_rng(0).choice(words, num_words))


def text_population_data(
    text: texts.Text,
    length: int,
    *,
    validation_windows: int | None = None,
    test_windows: int | None = None,
    parts: tuple[str, ...] = ("validation",),
) -> PopulationData:
    """All windows of the training part, and windows of other parts to judge on.

    Args:
      text: the text.
      length: the number `T` of tokens of a window.
      validation_windows: how many windows of the validation part are used, evenly spread over it; all if not given.
      test_windows: how many windows of the test part are used; all if not given.
      parts: which parts judge a network, out of validation and test.

    Returns:
      Inputs and targets, each int32 `[windows, T]`.

    Raises:
      UserError: a part with fewer tokens than a window has.
    """
    wanted = {"validation": validation_windows, "test": test_windows}
    judged = {}
    for part in parts:
        inputs, targets = texts.windows(getattr(text, part), length)
        count = min(wanted[part] or len(inputs), len(inputs))
        rows = np.arange(count) * len(inputs) // count
        judged[part] = (inputs[rows], targets[rows])
    return PopulationData(tuple(texts.windows(text.train, length)), judged)


def token_nats(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean nats per token of each window: `-1/T sum_t log p(target_t)`.

    Args:
      logits: `[B, T, V]`.
      targets: the tokens that follow, int32 `[B, T]`.

    Returns:
      float32 `[B]`.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    # A sum over the vocabulary: its gradient is cheaper on a CPU than that of a gather.
    is_target = targets[..., None] == jnp.arange(logits.shape[-1], dtype=targets.dtype).reshape(1, 1, -1)
    return -jnp.sum(jnp.where(is_target, log_p, 0.0), axis=(1, 2)) / targets.shape[1]


def optimiser(form: TextTrainingConfig, learning_rate: Any, decay_from: Any) -> optax.GradientTransformation:
    """The clipped optimiser of a training.

    Args:
      form: the training.
      learning_rate: the rate until it falls; it may be traced.
      decay_from: the share of the steps after which the rate falls, from 0 to below 1; it may be traced.
    """

    # Constant, then along a line to zero after the last step.
    def schedule(count: jax.Array) -> jax.Array:
        left = (1 - count / form.steps) / (1 - decay_from)
        return learning_rate * jnp.clip(left, 0.0, 1.0)

    step = optax.scale_by_adam() if form.optimiser == "adam" else optax.identity()
    return optax.chain(optax.clip_by_global_norm(form.clip), step, optax.scale_by_learning_rate(schedule))


def text_recipe(form: TextRecipeConfig, *, name: str = "") -> Recipe:
    """The recipe of a population of language models: loss and score are mean nats per token.

    Args:
      form: the recipe.
      name: the part of the configuration that the recipe is, for errors.

    Raises:
      UserError: more judgements than fit into the steps.
    """
    first = form.steps - (form.judgements - 1) * form.judge_every
    if first < 1:
        field, least = f"{name}.steps" if name else "steps", form.steps - first + 1
        many, apart = form.judgements, form.judge_every
        raise UserError(f"{field} is {form.steps}, expected at least {least} for {many} judgements {apart} steps apart")
    moments = tuple(range(first, form.steps + 1, form.judge_every))
    return _recipe(form, optimiser(form, form.learning_rate, form.decay_from), moments)


def grid_recipe(form: TextTrainingConfig) -> Recipe:
    """The recipe of language models that differ in their settings, each judged once, after its last step.

    Every member has a dictionary of rates, `learning_rate` and `decay_from` among them.
    """
    return _recipe(form, lambda rates: optimiser(form, rates["learning_rate"], rates["decay_from"]), (form.steps,))


def _recipe(form: TextTrainingConfig, tx: Any, moments: tuple[int, ...]) -> Recipe:
    return Recipe(
        tx,
        form.steps,
        form.batch_size,
        moments,
        judge_batch=128,
        loss=lambda logits, targets: jnp.mean(token_nats(logits, targets)),
        score=token_nats,
    )
