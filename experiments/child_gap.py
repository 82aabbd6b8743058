"""Does the argmax child keep the accuracy of the search, without retraining? SNAS says yes, and that DARTS's does not.

  python -m experiments.child_gap [fashion-mnist | digits] [--methods snas darts] [--seeds 0 1 2] [--smoke]

Tests the claim of SNAS (Xie et al., 2019, arXiv 1812.09926, table 1), sign and size, in a setting for two CPU cores.
Every search is followed by two children with the weights of the search, one by the rule of the method and one by the
argmax of all fourteen edges. Both are judged with the statistics of the judged batch, and with statistics re-estimated
on training data.
A third method anneals the softmax of DARTS, to separate the effect of the temperature from that of sampling.
Prints a table and writes it as `table.md`.
"""

import dataclasses
import statistics

import jax
import optax

from experiments import batches, common, outcome
from experiments.configs.child_gap import PRESETS, Config
from jaxnas import data, derive
from jaxnas.architectures import greatest
from jaxnas.base import Searcher, dense_paths, sparse_paths
from jaxnas.errors import UserError
from jaxnas.judge import judge
from jaxnas.relaxations import annealed, gumbel_softmax
from jaxnas.run import Run, Watch, script
from jaxnas.searchers import cosine_by_epoch, darts, snas
from jaxnas.spaces import darts_space, snas_space
from jaxnas.train import hits

COLUMNS = ("search", "own rule, batch", "own rule, re-estimated", "argmax, batch", "argmax, re-estimated", "entropy")


def make_searcher(method: str, config: Config, space, per_epoch: int):
    """The searcher of a method, with the published optimisers."""
    # Both schedules of the papers, over the epochs of this study.
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
    prepare = lambda x: data.to_float(x, images.mean, images.std)  # noqa: E731
    settings = {"prepare": prepare, "score": hits, "batch_size": 250}
    with_batch_statistics = jax.jit(judge(space.apply, **settings))
    size = config.batch_size
    # Training images in batches of the search, on which running averages are measured.
    rows = images.weights.images[: size * (len(images.weights.labels) // size)]
    groups = prepare(rows).reshape(-1, size, *rows.shape[1:])

    # The supernet on some paths, normalised with the judged batch.
    def by_batch(paths):
        return float(with_batch_statistics(state.params, paths, *images.policy))

    # A derived network, normalised with running averages.
    def re_estimated(arch):
        network, variables = derive.network(space, state.params, arch)

        @jax.jit
        def measure(variables):
            fixed = derive.recalibrate(network, variables, groups)
            return judge(lambda v, _, x: network.apply(v, x)[0], **settings)(fixed, None, *images.policy)

        return float(measure(variables))

    # The supernet as the search used it: samples of SNAS at its last temperature, or the mixture of DARTS.
    logits = state.policy_params
    if method == "snas":
        keys = jax.random.split(jax.random.key(0), config.samples)
        draws = [
            jax.tree.map(lambda k, leaf: gumbel_softmax(k, leaf, 0.03), optax.tree.split_key_like(k, logits), logits)
            for k in keys
        ]
    else:
        temperature = 0.03 if method == "darts_annealed" else 1.0
        draws = [jax.tree.map(lambda leaf: jax.nn.softmax(leaf / temperature), logits)]
    search = statistics.mean(by_batch(dense_paths(draw)) for draw in draws)
    derived = jax.device_get(searcher.decode(state))
    # The children, with the weights of the search: by the method's rule, and the argmax of every edge.
    argmax = jax.device_get(greatest(logits))
    values = [search]
    for arch in (derived, argmax):
        values += [by_batch(sparse_paths(arch)), re_estimated(arch)]
    entropy = float(searcher.policy.entropy(logits))
    return {**{name: 100 * value for name, value in zip(COLUMNS, values)}, "entropy": entropy}


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

            # The table grows by a row for each search that is judged.
            results[method].append(run.once(f"judged/{name}", judge_now))
            (run.path / "table.md").write_text(table({m: rows for m, rows in results.items() if rows}) + "\n")
    print(table(results))
    run.finish({"system": "child_gap", "data": config.data.name, "results": results})


def smoke(config: Config) -> Config:
    """The same study, small."""
    return dataclasses.replace(common.smoke(config), epochs=2, batch_size=16, seeds=(0,), methods=("snas", "darts"))


if __name__ == "__main__":
    script(main, PRESETS, system="child_gap", prepare=prepare, smoke=smoke, default="fashion-mnist")
