"""Random search: train a few random architectures briefly and keep the best on validation.

  python -m experiments.random_search [digits | fashion-mnist | cifar10] [--search.candidates N] [--seed N] [--smoke]

The comparator of every other search (Li and Talwalkar, 2019, arXiv 1902.07638). All candidates train through one
compiled program; the best one is then trained from scratch beside other random ones.
"""

import functools

import numpy as np
import optax

from experiments import batches, common, outcome
from experiments.configs.random_search import PRESETS, Config
from jaxnas.architectures import random_archs
from jaxnas.run import Run, script
from jaxnas.searchers import sgd_l2
from jaxnas.spaces import registry


def prepare(config: Config) -> common.Setting:
    """The data and the space."""
    setting = common.prepare(config, functools.partial(registry.build, config.search.space))
    batches.num_steps("search.", config.search, setting.images.weights)
    common.rehearse_children(setting, config.search, config.search.candidates)
    return setting


def main(run: Run, setting: common.Setting) -> None:
    """Draw, train, choose, retrain, compare, write."""
    search = setting.config.search
    archs = random_archs(run.key("candidates"), setting.space, search.candidates)

    def tx(steps):
        return sgd_l2(optax.cosine_decay_schedule(search.learning_rate, steps))

    # All candidates, trained briefly and judged on validation.
    candidates = common.train_children(run, setting, "search", archs, setting.images.weights, search, tx)

    judged = run.once("validation", lambda: common.judge_children(setting, candidates, archs, setting.images.policy))
    validation = [float(value) for value in judged]
    # The best of them goes where the result of every search goes.
    best = max(range(search.candidates), key=lambda number: np.nan_to_num(validation[number], nan=-np.inf))
    outcome.refuse_nan("every candidate", validation[best])
    per_epoch = batches.steps_per_epoch(setting.images.weights, search.batch_size)
    outcome.conclude(
        run,
        setting,
        "random_search",
        common.child(archs, best),
        steps=search.candidates * search.epochs * per_epoch,
        search={"val_accuracy": validation[best], "candidates": validation},
        inherited=None,
    )


if __name__ == "__main__":
    script(main, PRESETS, system="random_search", prepare=prepare, smoke=common.smoke)
