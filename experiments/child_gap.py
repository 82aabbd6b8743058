"""Does the argmax child keep the accuracy of the search, without retraining? SNAS says yes, and that DARTS's does not.

  python -m experiments.child_gap [fashion-mnist | digits] [--methods snas darts] [--seeds 0 1 2] [--smoke]

The claim of SNAS (Xie et al., 2019, arXiv 1812.09926, table 1), sign and size, at a setting that fits two CPU cores.
Every search is followed by its children with the search's own weights: by the method's own rule, and the argmax of all
fourteen edges; normalised with the statistics of the judged batch, and with statistics re-estimated on training data.
A third method anneals the softmax of DARTS, to separate the effect of the temperature from that of sampling.
Prints a table and writes it as `table.md`.
"""

import dataclasses
import statistics

import jax

from experiments import batches, common, outcome
from experiments.configs.child_gap import PRESETS, Config
from jaxnas import data, derive, train
from jaxnas.architectures import greatest
from jaxnas.base import Searcher, dense_paths, sparse_paths
from jaxnas.errors import UserError
from jaxnas.policies import entropy, split_like
from jaxnas.relaxations import annealed, gumbel_softmax
from jaxnas.run import Run, Watch, script
from jaxnas.searchers import cosine_by_epoch, darts, snas
from jaxnas.spaces import darts_space, snas_space

COLUMNS = ("search", "own rule, batch", "own rule, re-estimated", "argmax, batch", "argmax, re-estimated", "entropy")


def make_searcher(method: str, config: Config, space, per_epoch: int):
    """The searcher of a method, with the published optimisers."""
    schedule = {"epochs": config.epochs, "steps_per_epoch": per_epoch}
    rate = cosine_by_epoch(0.025, 0.001, **schedule)
    falling = annealed(1.0, 0.03, **schedule)
    if method == "snas":
        return snas(
            space, learning_rate=rate, policy_learning_rate=config.snas_policy_learning_rate, temperature=falling
        )
    temperature = falling if method == "darts_annealed" else 1.0
    return darts(
        space, learning_rate=rate, policy_learning_rate=config.darts_policy_learning_rate, temperature=temperature
    )


def judged(method: str, config: Config, space, searcher, state, images: data.SearchData) -> dict[str, float]:
    """Accuracies on the policy's examples, per cent, and the entropy of the decisions in nats."""
    x = data.to_float(images.policy.images, images.mean, images.std)

    @jax.jit
    def with_batch_statistics(paths):
        return train.accuracy(lambda x: space.apply(state.params, paths, x), x, images.policy.labels, batch_size=250)

    def re_estimated(arch):
        network, variables = derive.network(space, state.params, arch)
        size = config.batch_size
        rows = images.weights.images[: size * (len(images.weights.labels) // size)]
        groups = data.to_float(rows, images.mean, images.std).reshape(-1, size, *x.shape[1:])

        @jax.jit
        def measure(variables):
            fixed = derive.recalibrate(network, variables, groups)
            return train.accuracy(lambda x: network.apply(fixed, x)[0], x, images.policy.labels, batch_size=250)

        return measure(variables)

    logits = state.policy_params
    if method == "snas":
        keys = jax.random.split(jax.random.key(0), config.samples)
        draws = [
            jax.tree.map(lambda k, leaf: gumbel_softmax(k, leaf, 0.03), split_like(k, logits), logits) for k in keys
        ]
    else:
        level = 0.03 if method == "darts_annealed" else 1.0
        draws = [jax.tree.map(lambda leaf: jax.nn.softmax(leaf / level), logits)]
    search = statistics.mean(float(with_batch_statistics(dense_paths(draw))) for draw in draws)
    own = jax.device_get(searcher.decode(state))
    argmax = jax.device_get(greatest(logits))
    values = [search]
    for arch in (own, argmax):
        values += [float(with_batch_statistics(sparse_paths(arch))), float(re_estimated(arch))]
    return {**{name: 100 * value for name, value in zip(COLUMNS, values)}, "entropy": float(entropy(logits))}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    return outcome.spread_table("method", results, COLUMNS, mean=".2f", spread=".2f")


def search(config: Config, loaded: data.Data, method: str, seed: int) -> tuple[common.Setting, Searcher]:
    """The setting and the searcher of one method and seed."""
    build = snas_space if method == "snas" else darts_space
    setting = common.prepare(dataclasses.replace(config, seed=seed), build, loaded=loaded)
    per_epoch = batches.num_steps("", config, setting.images.weights) // config.epochs
    return setting, make_searcher(method, config, setting.space, per_epoch)


def prepare(config: Config) -> common.Study:
    """The data, after a look at every method."""
    loaded = batches.load_data(config.data)
    for method in config.methods:
        if method not in ("snas", "darts", "darts_annealed"):
            raise UserError(f"methods: unknown {method!r}, accepted are snas, darts, darts_annealed")
        common.rehearse_search(*search(config, loaded, method, config.seeds[0]), config)
    return common.Study(config, loaded)


def main(run: Run, study: common.Study) -> None:
    """All methods and seeds, one after the other."""
    config, loaded = study
    results: dict[str, list[dict[str, float]]] = {method: [] for method in config.methods}
    for seed in config.seeds:
        for method in config.methods:
            setting, searcher = search(config, loaded, method, seed)
            name = f"{method}/{seed}"
            watch = Watch(show=("loss", "accuracy"))
            state = common.run_search(run, setting, name, searcher, config, watch)

            def judge_now(method=method, setting=setting, searcher=searcher, state=state):
                return judged(method, config, setting.space, searcher, state, setting.images)

            results[method].append(run.once(f"judged/{name}", judge_now))
            (run.path / "table.md").write_text(table({m: rows for m, rows in results.items() if rows}) + "\n")
    print(table(results))
    run.finish({"system": "child_gap", "data": config.data.name, "results": results})


def smoke(config: Config) -> Config:
    """The same study, small."""
    return dataclasses.replace(common.smoke(config), epochs=2, batch_size=16, seeds=(0,), methods=("snas", "darts"))


if __name__ == "__main__":
    script(main, PRESETS, system="child_gap", prepare=prepare, smoke=smoke, default="fashion-mnist")
