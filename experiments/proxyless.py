"""ProxylessNAS: binary gates, one path in memory, latency in the loss (Cai, Zhu and Han, 2019, arXiv 1812.00332).

  python -m experiments.proxyless [digits | fashion-mnist | cifar10 | imagenet2012] [--latency.table FILE] [--smoke]

Measures the latency of every block on the device at hand, or reads a table; trains the weights on single paths, then
weights and architecture in turn; then trains the found network and random ones from scratch, and measures the latency
of what it found.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import batches, common
from experiments.configs.proxyless import PRESETS, Config, NetworkConfig
from jaxnas import costs
from jaxnas.base import CostTable, sparse_paths
from jaxnas.costs import latency
from jaxnas.policies import categorical
from jaxnas.run import Run, script
from jaxnas.searchers import proxyless, reward_loss
from jaxnas.spaces import proxyless_space


def latency_table(setting: common.Setting, config: Config) -> CostTable:
    """The latency of the space's blocks in milliseconds, read or measured once and kept in the work directory."""
    shape = setting.images.image_shape
    if config.latency.table is not None:
        return latency.latency_cost(latency.read_latency(config.latency.table), setting.space, shape)
    path = setting.run.path / "latency.json"
    if not path.exists():
        latency.write_latency(
            path, latency.measure_space(setting.space, shape, batch_size=config.latency.batch_size, repeats=15)
        )
    return latency.latency_cost(latency.read_latency(path), setting.space, shape)


def reference_of(config: Config, setting: common.Setting, table: CostTable) -> float:
    """The reference latency: as configured, else the expectation over uniform choices."""
    uniform = jax.tree.map(lambda c: jnp.full(c.shape, 1 / c.shape[-1]), setting.space.choices)
    return config.latency.reference or float(costs.expected_cost(table, uniform))


def make_searcher(config: Config, setting: common.Setting, table: CostTable, reference: float):
    """The searcher with its schedule and its objective."""
    search = config.search
    per_epoch = batches.steps_per_epoch(setting.images.weights, search.batch_size)
    settings: dict[str, Any] = {}
    if search.mode == "reinforce":
        if config.latency.form != "none":
            settings["reward"] = reward_loss(setting.space, table, reference)
    elif config.latency.form != "none":
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
        skip_zero_sampled=search.skip_zero_sampled,
        **settings,
    )


def main(run: Run, config: Config) -> None:
    """Measure, search, retrain, compare, write."""
    setting = common.prepare(run, config, proxyless_space)
    table = latency_table(setting, config)
    reference = reference_of(config, setting, table)
    searcher = make_searcher(config, setting, table, reference)
    judge, images = setting.judge, setting.images

    def evaluate(state):
        found = searcher.decode(state)
        key = jax.random.fold_in(run.key("sampled"), state.step)
        sampled = categorical(setting.space.choices).sample(key, state.policy_params)
        expected = costs.expected_cost(table, jax.tree.map(jax.nn.softmax, state.policy_params))
        return {
            "val_accuracy_sampled": judge(state.params, sparse_paths(sampled), images.policy),
            "val_accuracy_argmax": judge(state.params, sparse_paths(found), images.policy),
            "expected_latency": float(expected),
            "argmax_latency": float(costs.cost(table, jax.device_get(found))),
        }

    def describe(arch):
        shape, size = images.image_shape, config.latency.batch_size
        return {
            "reference_ms": reference,
            "table_ms": float(costs.cost(table, arch)),
            "measured_ms": latency.measure_network(setting.space, arch, shape, batch_size=size),
        }

    common.search_and_conclude(setting, "proxyless", searcher, evaluate, describe=describe)


def smoke(config: Config) -> Config:
    """The same search, small."""
    small, network = common.smoke(config), NetworkConfig((4, 8), (2, 1), (1, 2), 4, 1, 4, 8, (3, 5), (2,))
    search = dataclasses.replace(small.search, warmup_epochs=0, policy_every=1)
    return dataclasses.replace(small, network=network, search=search)


if __name__ == "__main__":
    script(main, PRESETS, system="proxyless", smoke=smoke)
