"""SNAS: stochastic neural architecture search (Xie et al., 2019, arXiv 1812.09926).

  python -m experiments.snas [digits | fashion-mnist | cifar10] [--seed N] [--search.epochs N ...] [--smoke]

Searches with Gumbel-softmax samples, one backward pass for weights and architecture; then trains the found network and
random ones from scratch through one program. The presets in `configs/snas.py` say what each should reach.
"""

import jax
import optax

from experiments import batches, common, outcome
from experiments.configs.snas import PRESETS, Config
from jaxnas import costs
from jaxnas.base import dense_paths, sparse_paths
from jaxnas.relaxations import annealed, gumbel_softmax, temperature_at
from jaxnas.run import Run, script
from jaxnas.searchers import cosine_by_epoch, snas
from jaxnas.spaces import snas_space
from jaxnas.spaces.darts import resource_penalty


def prepare(config: Config) -> outcome.Search:
    """The data, the space and the search."""
    # Data, space and schedules.
    search = config.search
    setting = common.prepare(config, snas_space, drop_path=search.drop_path)
    space, judge, images = setting.space, setting.judge, setting.images
    schedule = batches.schedule("search.", search, images.weights)
    temperature = annealed(search.first_temperature, search.last_temperature, **schedule)
    # Without a weight the resource term is left out.
    resource = None
    if search.resource_weight:
        resource = resource_penalty(space, images.image_shape[0], kind=search.resource)
    searcher = snas(
        space,
        learning_rate=cosine_by_epoch(search.learning_rate, search.last_learning_rate, **schedule),
        weight_decay=search.weight_decay,
        policy_learning_rate=search.policy_learning_rate,
        policy_weight_decay=search.policy_weight_decay,
        temperature=temperature,
        resource=resource,
        resource_weight=search.resource_weight,
        resource_mode=search.resource_mode,
    )
    # What is recorded beside the losses: a sampled network, and the network that the search would give now.
    parameters = costs.space_tables(space, images.image_shape, affine=False, pool_norm=True)["parameters"]

    def evaluate(key, state):
        logits = state.policy_params
        tau = temperature_at(temperature, state.step - 1)
        keys = optax.tree.split_key_like(jax.random.fold_in(key, state.step), logits)
        sampled = jax.tree.map(lambda k, leaf: gumbel_softmax(k, leaf, tau), keys, logits)
        probabilities = jax.tree.map(jax.nn.softmax, logits)
        return {
            "val_accuracy_sampled": judge(state.params, dense_paths(sampled), images.policy),
            "val_accuracy_argmax": judge(state.params, sparse_paths(searcher.decode(state)), images.policy),
            "expected_parameters": float(costs.expected_cost(parameters, probabilities)),
        }

    common.rehearse_search(setting, searcher, search)
    return outcome.Search(setting, searcher, evaluate)


def main(run: Run, search: outcome.Search) -> None:
    """Search, retrain, compare, write."""
    outcome.search_and_conclude(run, "snas", search)


if __name__ == "__main__":
    script(main, PRESETS, system="snas", prepare=prepare, smoke=common.smoke)
