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
from jaxnas.policies import categorical
from jaxnas.run import Run, script
from jaxnas.searchers import proxyless, reward_loss
from jaxnas.spaces import proxyless_space, proxyless_tree_space


def build(config: Config) -> Callable[..., SearchSpace]:
    """The factory of the configured space."""
    return proxyless_tree_space if isinstance(config.network, TreeNetworkConfig) else proxyless_space


def latency_table(setting: common.Setting, config: Config) -> CostTable | None:
    """The latency of the space's blocks in milliseconds, read or measured once and kept in the work directory.

    None for the space of trees, which does not name its blocks.

    Raises:
      ValueError: latency in the loss of such a space.
    """
    if setting.space.about.parts is None:
        if config.latency.form != "none":
            raise ValueError(
                f"latency.form must be none for the space {setting.space.about.name}, got {config.latency.form}"
            )
        return None
    shape = setting.images.image_shape
    if config.latency.table is not None:
        return latency.latency_cost(latency.read_latency(config.latency.table), setting.space, shape)
    path = setting.run.path / "latency.json"
    if not path.exists():
        size = config.latency.batch_size
        latency.write_latency(path, latency.measure_space(setting.space, shape, batch_size=size, repeats=10))
    return latency.latency_cost(latency.read_latency(path), setting.space, shape)


def reference_of(config: Config, setting: common.Setting, table: CostTable | None) -> float:
    """The reference latency: as configured, else the expectation over uniform choices; 0 without a table."""
    if table is None:
        return 0.0
    uniform = jax.tree.map(lambda c: jnp.full(c.shape, 1 / c.shape[-1]), setting.space.choices)
    return config.latency.reference or float(costs.expected_cost(table, uniform))


def make_searcher(config: Config, setting: common.Setting, table: CostTable | None, reference: float):
    """The searcher with its schedule and its objective."""
    search = config.search
    per_epoch = batches.steps_per_epoch(setting.images.weights, search.batch_size)
    settings: dict[str, Any] = {}
    if table is None or config.latency.form == "none":
        pass
    elif search.mode == "reinforce":
        settings["reward"] = reward_loss(setting.space, table, reference)
    else:
        form, weight = config.latency.form, config.latency.weight
        settings["objective"] = latency.latency_objective(table, reference, form, weight=weight)
    return proxyless(
        setting.space,
        mode=search.mode,
        learning_rate=optax.cosine_decay_schedule(search.learning_rate, search.epochs * per_epoch),
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


def main(run: Run, config: Config) -> None:
    """Measure, search, retrain, compare, write."""
    setting = common.prepare(run, config, build(config))
    table = latency_table(setting, config)
    reference = reference_of(config, setting, table)
    searcher = make_searcher(config, setting, table, reference)
    judge, images = setting.judge, setting.images

    def evaluate(state):
        found = searcher.decode(state)
        key = jax.random.fold_in(run.key("sampled"), state.step)
        sampled = categorical(setting.space.choices).sample(key, state.policy_params)
        accuracies = {
            "val_accuracy_sampled": judge(state.params, sparse_paths(sampled), images.policy),
            "val_accuracy_argmax": judge(state.params, sparse_paths(found), images.policy),
        }
        if table is None:
            return accuracies
        expected = costs.expected_cost(table, jax.tree.map(jax.nn.softmax, state.policy_params))
        return {
            **accuracies,
            "expected_latency": float(expected),
            "argmax_latency": float(costs.cost(table, jax.device_get(found))),
        }

    def describe(arch):
        if table is None:
            return None
        shape, size = images.image_shape, config.latency.batch_size
        return {
            "reference_ms": reference,
            "table_ms": float(costs.cost(table, arch)),
            "measured_ms": float(np.median(latency.measure_networks(setting.space, [arch], shape, batch_size=size))),
        }

    outcome.search_and_conclude(setting, "proxyless", searcher, evaluate, describe=describe)


def smoke(config: Config) -> Config:
    """The same search, small."""
    network: NetworkConfig | TreeNetworkConfig = NetworkConfig((4, 8), (2, 1), (1, 2), 4, 1, 4, 8, (3, 5), (2,))
    if isinstance(config.network, TreeNetworkConfig):
        network = TreeNetworkConfig(1, 2, 4, 4.0, 2)
    small = common.smoke(config)
    search = dataclasses.replace(small.search, warmup_epochs=0, rest_epochs=0, policy_every=1)
    return dataclasses.replace(small, network=network, search=search)


if __name__ == "__main__":
    script(main, PRESETS, system="proxyless", smoke=smoke)
