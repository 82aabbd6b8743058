"""What every search script does after its search: the found network trained beside random ones, files, pictures."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches, common, pictures
from jaxnas import data, derive, export, plot
from jaxnas.architectures import random_archs
from jaxnas.base import Arch, Params, Searcher
from jaxnas.describe import network_costs
from jaxnas.errors import UserError
from jaxnas.run import Run, Watch
from jaxnas.searchers import sgd_l2


def refuse_nan(what: str, value: float) -> None:
    """Raises `UserError` for an accuracy of NaN or infinity: a result made of those is no result."""
    if not math.isfinite(value):
        raise UserError(f"{what} gives logits that are not finite, or learned from no step: accuracy {value}")


def compare(run: Run, setting: common.Setting, arch: Arch) -> tuple[dict[str, Any], dict[str, Any], Params]:
    """Trains the found network beside random ones and tests them all.

    Returns:
      The entries `child` and `baseline` of `result.json`, and the weights of the found network.

    Raises:
      UserError: the found network has no accuracy, because its logits or one of its steps are not finite.
    """
    space, recipe = setting.space, setting.config.retrain
    # The found network first, and random ones after it.
    others = random_archs(run.key("random"), space, recipe.random_children)
    archs = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), arch, others)

    def tx(steps):
        rate = optax.cosine_decay_schedule(recipe.learning_rate, steps)
        return sgd_l2(rate, weight_decay=recipe.weight_decay, clip=recipe.clip)

    # Training from scratch, on the examples of both parts, then the first look at the test examples.
    trained = common.train_children(run, setting, "retrain", archs, batches.all_training(setting.images), recipe, tx)
    test = data.Examples(*map(jnp.asarray, setting.loaded.test))
    tested = run.once("test", lambda: common.judge_children(setting, trained, archs, test))
    accuracy = [float(value) for value in tested]
    refuse_nan("the found network after retraining", accuracy[0])
    found = jax.device_get(arch)
    counts = network_costs(space, found, setting.loaded.image_shape, **space.about.supernet)

    # The comparator: architectures drawn at random and trained in the same way.
    random_accuracy = accuracy[1:] or [math.nan]
    baseline = {
        "random_test_accuracy_mean": float(np.mean(random_accuracy)),
        "random_test_accuracy_std": float(np.std(random_accuracy, ddof=1)) if len(accuracy) > 2 else None,
        "random_children": len(accuracy) - 1,
        "random_test_accuracies": accuracy[1:],
    }
    return {"test_accuracy_retrained": accuracy[0], **counts}, baseline, common.child(trained.params, 0)


def write_network(
    run: Run, setting: common.Setting, arch: Arch, params: Params, expected_latency: float | None = None
) -> None:
    """Writes the architecture, its picture and its weights with measured normalisation, ready to export.

    Args:
      run: the run in whose work directory the files lie.
      setting: what the parts of the script share.
      arch: the architecture.
      params: weights of the architecture, in the form of the supernet's.
      expected_latency: latency of the architecture by the table of the search, in milliseconds; None without a table.
    """
    space, images = setting.space, setting.images
    arch = jax.device_get(arch)
    # The weights, with running averages measured on training images.
    network, variables = derive.network(space, params, arch)
    x = data.to_float(images.weights.images[: common.REFERENCE], images.mean, images.std)
    variables = jax.jit(lambda v, x: derive.recalibrate(network, v, x))(variables, x[None])
    export.save_variables(run.path / "network.safetensors", variables)
    normal = {"mean": np.asarray(images.mean).tolist(), "std": np.asarray(images.std).tolist()}
    # The description that builds the network again, and its picture.
    record = export.architecture_record(
        space,
        arch,
        network=space.about.supernet,
        image_shape=images.image_shape,
        num_classes=images.num_classes,
        expected_latency=expected_latency,
        **normal,
    )
    run.save_json("architecture.json", record)
    pictures.draw(plot.architecture, run.path / "architecture.png", space.about, arch)


def draw_curves(run: Run) -> None:
    """Draws the course of the run from its metrics."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    pictures.draw(plot.curves, run.path / "curves.png", [json.loads(line) for line in lines])


def conclude(
    run: Run,
    setting: common.Setting,
    system: str,
    arch: Arch,
    *,
    steps: int,
    search: dict[str, Any],
    inherited: float | None,
    describe: Callable[[Arch], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Runs after every search: retrains what it found beside random networks, writes all files and ends the run.

    Args:
      run: the run in whose work directory the files lie.
      setting: what the parts of the script share.
      system: the name of the script.
      arch: the architecture that the search found.
      steps: the number of training steps that the search took.
      search: the entry `search` of `result.json`.
      inherited: the validation accuracy of `arch` with the weights of the search, or None without such weights.
      describe: `(arch) -> JSON data`, the entry `latency` of `result.json`; its `table_ms` goes into
        `architecture.json` too.
    """
    child, baseline, params = compare(run, setting, arch)
    latency = None if describe is None else run.once("latency", lambda: describe(jax.device_get(arch)))
    write_network(run, setting, arch, params, (latency or {}).get("table_ms"))
    draw_curves(run)
    found = {"val_accuracy_inherited": inherited, **child}
    whole = {"system": system, "data": setting.config.data.name, "steps": steps, "search": search}
    return run.finish({**whole, "child": found, "latency": latency, "baseline": baseline})


class Search(NamedTuple):
    """A gradient search that is ready to run.

    Attributes:
      setting: what the parts of the script share; its configuration has a `search` with `evaluate_epochs`.
      searcher: the searcher, with the `policy` whose parameters are in its state.
      evaluate: `(key, state) -> metrics`, among them `val_accuracy_sampled` and `val_accuracy_argmax`.
    """

    setting: common.Setting
    searcher: Searcher
    evaluate: Callable[[jax.Array, Any], dict[str, Any]]


def search_and_conclude(
    run: Run, system: str, search: Search, *, describe: Callable[[Arch], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A whole gradient search, from its first step to the end of the run.

    Args:
      run: the run in whose work directory the files lie.
      system: the name of the script.
      search: the search that is to run.
      describe: `(arch) -> JSON data`, passed on to `conclude`.
    """
    setting, searcher, evaluate = search
    recipe, key = setting.config.search, run.key("sampled")
    # The search, evaluated every few epochs and once more at its end.
    per_epoch = batches.steps_per_epoch(setting.images.weights, recipe.batch_size)
    watch = Watch(
        show=("loss", "accuracy"),
        evaluate=lambda state: evaluate(key, state),
        evaluate_every=recipe.evaluate_epochs * per_epoch,
    )
    state = common.run_search(run, setting, "search", searcher, recipe, watch)
    validation = run.once("validation", lambda: evaluate(key, state))
    entropy = float(searcher.policy.entropy(state.policy_params))
    found = {"val_accuracy": validation["val_accuracy_sampled"], "entropy": entropy}
    return conclude(
        run,
        setting,
        system,
        searcher.decode(state),
        steps=recipe.epochs * per_epoch,
        search=found,
        inherited=validation["val_accuracy_argmax"],
        describe=describe,
    )


def spread_table(
    head: str, results: dict[str, list[dict[str, Any]]], columns: Sequence[str], *, mean: str, spread: str
) -> str:
    """Mean and standard deviation over the rows of each result, as Markdown.

    Args:
      head: the title of the first column.
      results: for each name a list with one row of values per seed.
      columns: the entries of the rows that become columns.
      mean: the format of a mean, such as `.2f`.
      spread: the format of a standard deviation.
    """
    lines = [f"| {head} | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name, rows in results.items():
        cells = []
        for column in columns:
            values = [float(row[column]) for row in rows]  # JSON has NaN as text
            beside = f" ± {statistics.stdev(values):{spread}}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):{mean}}{beside}")
        lines.append(f"| {name} (n={len(rows)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)
