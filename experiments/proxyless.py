"""ProxylessNAS: binary gates, one path in memory, latency in the loss (Cai, Zhu and Han, 2019, arXiv 1812.00332).

  python -m experiments.proxyless [PRESET] [--latency.table FILE] [--smoke]

Presets: digits, fashion-mnist, cifar10, cifar10-tree, imagenet2012.

Measures the latency of every block on the device at hand, or reads a table; trains the weights on single paths, then
weights and architecture in turn; then trains the found network and random ones from scratch, and measures the latency
of what it found.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches, common, outcome
from experiments.configs.proxyless import PRESETS, Config, NetworkConfig, TreeNetworkConfig
from jaxnas import costs
from jaxnas.base import CostTable, SearchSpace, sparse_paths
from jaxnas.costs import latency
from jaxnas.errors import UserError
from jaxnas.policies import categorical
from jaxnas.run import Run, script
from jaxnas.searchers import proxyless, reward_loss
from jaxnas.spaces import proxyless_space, proxyless_tree_space


def build(config: Config) -> Callable[..., SearchSpace]:
    """The factory of the configured space."""
    return proxyless_tree_space if isinstance(config.network, TreeNetworkConfig) else proxyless_space


def check(setting: common.Setting) -> None:
    """Refuses settings that the search or its latency could not use.

    Raises:
      UserError: latency in the loss of the space of trees, which does not name its blocks; a table that does not fit;
        an architecture that would never move.
    """
    search, form, about = setting.config.search, setting.config.latency.form, setting.space.about
    table = setting.config.latency.table
    if about.parts is None and (form != "none" or table is not None):
        expected = f"latency.form must be none and latency.table not given for the space {about.name}"
        raise UserError(f"{expected}, got {form} and {table}")
    # A table that cannot be read, or that lacks a block, is refused here.
    given_table(setting)
    if search.warmup_epochs + search.rest_epochs >= search.epochs:
        still = f"search.warmup_epochs and search.rest_epochs are {search.warmup_epochs} and {search.rest_epochs}"
        raise UserError(f"{still}, expected less than the {search.epochs} of search.epochs together")
    common.rehearse_search(setting, make_searcher(setting, None, 0.0), search)


def given_table(setting: common.Setting) -> CostTable | None:
    """The latency table that the configuration names, if it does."""
    name = setting.config.latency.table
    if name is None or setting.space.about.parts is None:
        return None
    return latency.latency_cost(latency.read_latency(name), setting.space, setting.images.image_shape)


def latency_table(run: Run, setting: common.Setting) -> CostTable | None:
    """The latency of the space's blocks in milliseconds, read or measured once and kept in the work directory.

    None for the space of trees, which does not name its blocks.
    """
    given = given_table(setting)
    if given is not None or setting.space.about.parts is None:
        return given
    # Measured once: a run that goes on reads its file.
    shape, path = setting.images.image_shape, run.path / "latency.json"
    if not path.exists():
        size = setting.config.latency.batch_size
        latency.write_latency(path, latency.measure_space(setting.space, shape, batch_size=size, repeats=10))
    return latency.latency_cost(latency.read_latency(path), setting.space, shape)


def target_of(setting: common.Setting, table: CostTable | None) -> float:
    """The target latency: as configured, else the expectation over uniform choices; 0 without a table."""
    if table is None:
        return 0.0
    uniform = jax.tree.map(lambda c: jnp.full(c.shape, 1 / c.shape[-1]), setting.space.choices)
    return setting.config.latency.target or float(costs.expected_cost(table, uniform))


def make_searcher(setting: common.Setting, table: CostTable | None, target: float):
    """The searcher with its schedule and its objective."""
    config = setting.config
    search = config.search
    steps = batches.num_steps("search.", search, setting.images.weights)
    per_epoch = steps // search.epochs
    # Latency: left out, part of the reward, or an objective beside the loss.
    settings: dict[str, Any] = {}
    if table is None or config.latency.form == "none":
        pass
    elif search.mode == "reinforce":
        settings["reward"] = reward_loss(setting.space, table, target)
    else:
        form, weight = config.latency.form, config.latency.weight
        settings["objective"] = latency.latency_objective(table, target, form, weight=weight)
    return proxyless(
        setting.space,
        mode=search.mode,
        learning_rate=optax.cosine_decay_schedule(search.learning_rate, steps),
        weight_decay=search.weight_decay,
        label_smoothing=search.label_smoothing,
        policy_learning_rate=search.policy_learning_rate,
        policy_every=search.policy_every,
        warmup_steps=search.warmup_epochs * per_epoch,
        rest_steps=search.rest_epochs * per_epoch,
        skip_zero_sampled=search.skip_zero_sampled,
        num_samples=search.num_samples,
        baseline=search.baseline,
        **settings,
    )


def prepare(config: Config) -> common.Setting:
    """The data and the space."""
    setting = common.prepare(config, build(config))
    check(setting)
    return setting


def main(run: Run, setting: common.Setting) -> None:
    """Measure, search, retrain, compare, write."""
    table = latency_table(run, setting)
    target = target_of(setting, table)
    searcher = make_searcher(setting, table, target)
    judge, images = setting.judge, setting.images

    def evaluate(key, state):
        found = searcher.decode(state)
        key = jax.random.fold_in(key, state.step)
        sampled = categorical(setting.space.choices).sample(key, state.policy_params)
        # A sampled network and the network that the search would give now, with the same weights.
        accuracies = {
            "val_accuracy_sampled": judge(state.params, sparse_paths(sampled), images.policy),
            "val_accuracy_argmax": judge(state.params, sparse_paths(found), images.policy),
        }
        if table is None:
            return accuracies
        # Latency by the table: its expectation, and that of the network found so far.
        expected = costs.expected_cost(table, jax.tree.map(jax.nn.softmax, state.policy_params))
        return {
            **accuracies,
            "expected_latency": float(expected),
            "argmax_latency": float(costs.cost(table, jax.device_get(found))),
        }

    def describe(arch):
        if table is None:
            return None
        # The found network by the table, and measured as one program.
        shape, size = images.image_shape, setting.config.latency.batch_size
        return {
            "target_ms": target,
            "table_ms": float(costs.cost(table, arch)),
            "measured_ms": float(np.median(latency.measure_networks(setting.space, [arch], shape, batch_size=size))),
        }

    search = outcome.Search(setting, searcher, evaluate)
    outcome.search_and_conclude(run, "proxyless", search, describe=describe)


def smoke(config: Config) -> Config:
    """The same search, small."""
    network: NetworkConfig | TreeNetworkConfig = NetworkConfig((4, 8), (2, 1), (1, 2), 4, 1, 4, 8, (3, 5), (2,))
    if isinstance(config.network, TreeNetworkConfig):
        network = TreeNetworkConfig(1, 2, 4, 4.0, 2)
    small = common.smoke(config)
    search = dataclasses.replace(small.search, warmup_epochs=0, rest_epochs=0, policy_every=1)
    return dataclasses.replace(small, network=network, search=search)


if __name__ == "__main__":
    script(main, PRESETS, system="proxyless", prepare=prepare, smoke=smoke)
