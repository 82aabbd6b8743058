"""DARTS: differentiable architecture search (Liu et al., 2019, arXiv 1806.09055), first or second order.

  python -m experiments.darts [digits | fashion-mnist | cifar10] [--search.order second] [--seed N] [--smoke]

Descends on the softmax mixture, architecture and weights in turn on two halves of the data; then trains the found
network and random ones from scratch through one program. The presets in `configs/darts.py` say what each should reach.
"""

import jax

from experiments import batches, common, outcome
from experiments.configs.darts import PRESETS, Config
from jaxnas import costs
from jaxnas.base import dense_paths, sparse_paths
from jaxnas.relaxations import annealed, softmax, temperature_at
from jaxnas.run import Run, script
from jaxnas.searchers import cosine_by_epoch, darts
from jaxnas.spaces import darts_space


def prepare(config: Config) -> outcome.Search:
    """The data, the space and the search."""
    # Data, space and schedules.
    search = config.search
    setting = common.prepare(config, darts_space)
    space, judge, images = setting.space, setting.judge, setting.images
    schedule = batches.schedule("search.", search, images.weights)
    # The paper keeps the temperature at 1; a lower last one is reached over the epochs.
    annealing = search.last_temperature < 1
    temperature = annealed(1.0, search.last_temperature, **schedule) if annealing else search.last_temperature
    searcher = darts(
        space,
        learning_rate=cosine_by_epoch(search.learning_rate, search.last_learning_rate, **schedule),
        weight_decay=search.weight_decay,
        policy_learning_rate=search.policy_learning_rate,
        policy_weight_decay=search.policy_weight_decay,
        order=search.order,
        temperature=temperature,
    )
    # What is recorded beside the losses: the supernet as the search runs it, and the network that it would give now.
    parameters = costs.space_tables(space, images.image_shape, affine=False, pool_norm=True)["parameters"]

    def evaluate(key, state):
        del key  # the mixture draws nothing
        tau = temperature_at(temperature, state.step - 1)
        mixture = jax.tree.map(lambda leaf: softmax(None, leaf, tau), state.policy_params)
        arch = searcher.decode(state)
        skips = sum(
            int((leaf == space.about.operations["normal"].index("skip_connect")).sum()) for leaf in arch.values()
        )
        return {
            "val_accuracy_sampled": judge(state.params, dense_paths(mixture), images.policy),
            "val_accuracy_argmax": judge(state.params, sparse_paths(arch), images.policy),
            "expected_parameters": float(
                costs.expected_cost(parameters, jax.tree.map(jax.nn.softmax, state.policy_params))
            ),
            "skip_connections": skips,
        }

    common.rehearse_search(setting, searcher, search)
    return outcome.Search(setting, searcher, evaluate)


def main(run: Run, search: outcome.Search) -> None:
    """Search, retrain, compare, write."""
    outcome.search_and_conclude(run, "darts", search)


if __name__ == "__main__":
    script(main, PRESETS, system="darts", prepare=prepare, smoke=common.smoke)
