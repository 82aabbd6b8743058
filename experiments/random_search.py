"""Random search: train a few random architectures briefly and keep the best on validation.

  python -m experiments.random_search [digits | fashion-mnist | cifar10] [--search.candidates N] [--seed N] [--smoke]

The comparator of every other search (Li and Talwalkar, 2019, arXiv 1902.07638). All candidates train through one
compiled program; the best one is then trained from scratch beside other random ones.
"""

import functools

import optax

from experiments import batches, common, outcome
from experiments.configs.random_search import PRESETS, Config
from jaxnas.base import sparse_paths
from jaxnas.run import Run, script
from jaxnas.searchers import coupled_sgd
from jaxnas.spaces import registry


def main(run: Run, config: Config) -> None:
    """Draw, train, choose, retrain, compare, write."""
    search = config.search
    setting = common.prepare(run, config, functools.partial(registry.build, search.space))
    archs = common.random_archs(run.key("candidates"), setting.space, search.candidates)

    def tx(steps):
        return coupled_sgd(optax.cosine_decay_schedule(search.learning_rate, steps))

    candidates = common.train_children(setting, "search", archs, setting.images.weights, search, tx)

    def validate():
        members = [common.child((candidates.params, archs), i) for i in range(search.candidates)]
        return [setting.judge(params, sparse_paths(arch), setting.images.policy) for params, arch in members]

    validation = run.once("validation", validate)
    best = max(range(search.candidates), key=validation.__getitem__)
    per_epoch = batches.steps_per_epoch(setting.images.weights, search.batch_size)
    outcome.conclude(
        setting,
        "random_search",
        common.child(archs, best),
        steps=search.candidates * search.epochs * per_epoch,
        search={"val_accuracy": validation[best], "candidates": validation},
        inherited=None,
    )


if __name__ == "__main__":
    script(main, PRESETS, system="random_search", smoke=common.smoke)
