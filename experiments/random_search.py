"""Random search: train a few random architectures briefly and keep the best on validation.

  python -m experiments.random_search [digits | fashion-mnist | cifar10] [--search.candidates N] [--seed N] [--smoke]

The comparator of every other search (Li and Talwalkar, 2019, arXiv 1902.07638). All candidates train through one
compiled program; the best one is then trained from scratch beside other random ones.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from experiments import common
from experiments.configs.random_search import PRESETS, Config
from jaxnas import train
from jaxnas.base import sparse_paths
from jaxnas.run import Run, script
from jaxnas.searchers import coupled_sgd
from jaxnas.spaces import registry


def main(run: Run, config: Config) -> None:
    """Draw, train, choose, retrain, compare, write."""
    loaded = common.load_data(config.data)
    images = common.split_data(loaded, config.data, config.seed)
    search = config.search
    steps = search.epochs * common.steps_per_epoch(images.weights, search.batch_size)

    def build(**changes):
        size = dataclasses.asdict(config.network)
        return registry.build(search.space, num_classes=loaded.num_classes, **size, **changes)

    space = build()
    judge = common.make_judge(build, images)
    archs = common.random_archs(run.key("candidates"), space, search.candidates)
    trainer = train.children(space, coupled_sgd(optax.cosine_decay_schedule(search.learning_rate, steps)))

    def init(key, loop_data):
        images, archs, key_data = loop_data
        x, _ = common.training_batch(key_data, images.weights, 0, search.batch_size, images, config.data)
        return jnp.zeros((), jnp.int32), trainer.init(key, x, archs)

    def step(key, state, loop_data):
        images, _, key_data = loop_data
        count, candidates = state
        batch = common.training_batch(key_data, images.weights, count, search.batch_size, images, config.data)
        candidates, info = trainer.step(key, candidates, batch)
        return (count + 1, candidates), jax.tree.map(jnp.mean, info)

    _, candidates = run.phase("search", init, step, steps, data=(images, archs, run.key("search/data")))

    def validate():
        members = [common.child((candidates.params, archs), i) for i in range(search.candidates)]
        return [judge(params, sparse_paths(arch), images.policy) for params, arch in members]

    validation = run.once("validation", validate)
    best = max(range(search.candidates), key=validation.__getitem__)
    arch = common.child(archs, best)
    child, baseline, params = common.compare(run, space, judge, arch, loaded, images, config)
    common.write_network(run, space, arch, params, images)
    common.draw_curves(run)
    run.finish(
        {
            "system": "random_search",
            "data": config.data.name,
            "steps": steps * search.candidates,
            "search": {"val_accuracy": validation[best], "candidates": validation},
            "child": {"val_accuracy_inherited": None, **child},
            "baseline": baseline,
        }
    )


if __name__ == "__main__":
    script(main, PRESETS, system="random_search", smoke=common.smoke)
