"""DARTS: differentiable architecture search (Liu et al., 2019, arXiv 1806.09055), first or second order.

  python -m experiments.darts [digits | fashion-mnist | cifar10] [--search.order second] [--seed N] [--smoke]

Descends on the softmax mixture, architecture and weights in turn on two halves of the data; then trains the found
network and random ones from scratch through one program. The presets in `configs/darts.py` say what each should reach.
"""

import dataclasses

import jax

from experiments import common
from experiments.configs.darts import PRESETS, Config
from jaxnas import costs
from jaxnas.base import dense_paths, sparse_paths
from jaxnas.policies import entropy
from jaxnas.relaxations import annealed, softmax, temperature_at
from jaxnas.run import Run, Watch, script
from jaxnas.searchers import cosine_by_epoch, darts
from jaxnas.spaces import darts_space


def main(run: Run, config: Config) -> None:
    """Search, retrain, compare, write."""
    loaded = common.load_data(config.data)
    images = common.split_data(loaded, config.data, config.seed)
    search = config.search
    per_epoch = common.steps_per_epoch(images.weights, search.batch_size)

    def build(**changes):
        return darts_space(num_classes=loaded.num_classes, **dataclasses.asdict(config.network), **changes)

    space = build()
    schedule = {"epochs": search.epochs, "steps_per_epoch": per_epoch}
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
    judge = common.make_judge(build, images)
    parameters = costs.space_tables(space, loaded.image_shape, affine=False, pool_norm=True)["parameters"]

    def init(key, loop_data):
        images, keys = loop_data
        return searcher.init(key, common.search_batch(keys, 0, search.batch_size, images, config.data))

    def step(key, state, loop_data):
        images, keys = loop_data
        batch = common.search_batch(keys, state.step, search.batch_size, images, config.data)
        state, info = searcher.step(key, state, batch)
        return state, info._asdict()

    def evaluate(state):
        level = temperature_at(temperature, state.step - 1)
        mixture = jax.tree.map(lambda leaf: softmax(None, leaf, level), state.policy_params)
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

    watch = Watch(show=("loss", "accuracy"), evaluate=evaluate, evaluate_every=search.evaluate_epochs * per_epoch)
    loop_data = (images, jax.random.split(run.key("search/data"), 2))
    steps = search.epochs * per_epoch
    state = run.phase("search", init, step, steps, data=loop_data, watch=watch, meta={"space": space.about.name})
    arch = searcher.decode(state)
    validation = run.once("validation", lambda: evaluate(state))
    child, baseline, params = common.compare(run, space, judge, arch, loaded, images, config)
    common.write_network(run, space, arch, params, images)
    common.draw_curves(run)
    run.finish(
        {
            "system": "darts",
            "data": config.data.name,
            "steps": steps,
            "search": {
                "val_accuracy": validation["val_accuracy_sampled"],
                "entropy": float(entropy(state.policy_params)),
            },
            "child": {"val_accuracy_inherited": validation["val_accuracy_argmax"], **child},
            "baseline": baseline,
        }
    )


if __name__ == "__main__":
    script(main, PRESETS, system="darts", smoke=common.smoke)
