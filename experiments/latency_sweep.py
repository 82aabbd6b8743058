"""What does latency in the loss buy? ProxylessNAS with a growing weight of the latency term.

  python -m experiments.latency_sweep [fashion-mnist | digits] [--weights 0 0.1 0.4 1.6] [--seeds 0 1 2] [--smoke]

One latency table, measured first; for every weight and seed a search, its network trained from scratch, tested, and
measured as one program. Prints a table, writes it as `table.md`, and draws `sweep.png`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from experiments import batches, common, proxyless
from experiments.configs.latency_sweep import PRESETS, Config
from jaxnas import costs, data, plot
from jaxnas.base import sparse_paths
from jaxnas.costs import latency
from jaxnas.run import Run, Watch, script
from jaxnas.searchers import coupled_sgd
from jaxnas.spaces import proxyless_space

COLUMNS = ("expected_ms", "table_ms", "measured_ms", "test_accuracy", "macs")


def one(run: Run, config: Config, loaded: data.Data, weight: float, seed: int) -> dict[str, float]:
    """One search and what it found."""
    form = dataclasses.replace(config.latency, weight=weight, form=config.latency.form if weight else "none")
    own = dataclasses.replace(config, latency=form, seed=seed)
    setting = common.prepare(run, own, proxyless_space, loaded=loaded)
    table = proxyless.latency_table(setting, own)
    searcher = proxyless.make_searcher(own, setting, table, proxyless.reference_of(own, setting, table))
    name = f"{weight:g}/{seed}"
    state = common.run_search(setting, f"search/{name}", searcher, own.search, Watch(show=("loss", "accuracy")))
    arch = jax.device_get(searcher.decode(state))

    def tx(steps):
        return coupled_sgd(optax.cosine_decay_schedule(own.retrain.learning_rate, steps))

    archs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], arch)
    everything = batches.all_training(setting.images)
    trained = common.train_children(setting, f"retrain/{name}", archs, everything, own.retrain, tx)
    test = data.Examples(*map(jnp.asarray, loaded.test))
    macs = costs.space_tables(setting.space, loaded.image_shape)["macs"]
    size = config.latency.batch_size
    return {
        "expected_ms": float(costs.expected_cost(table, jax.tree.map(jax.nn.softmax, state.policy_params))),
        "table_ms": float(costs.cost(table, arch)),
        "measured_ms": latency.measure_network(setting.space, arch, loaded.image_shape, batch_size=size),
        "test_accuracy": 100 * setting.judge(common.child(trained.params, 0), sparse_paths(arch), test),
        "macs": int(costs.cost(macs, arch)),
        "genotype": setting.space.about.genotype(arch),
    }


def markdown(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds."""
    return common.spread_table("weight", results, COLUMNS, mean=".4g", spread=".3g")


def main(run: Run, config: Config) -> None:
    """All weights and seeds, seeds outside, so that a part of the study is a study."""
    loaded = batches.load_data(config.data)
    results: dict[str, list[dict[str, float]]] = {f"{weight:g}": [] for weight in config.weights}
    for seed in config.seeds:
        for weight in config.weights:
            found = run.once(f"found/{weight:g}/{seed}", lambda w=weight, s=seed: one(run, config, loaded, w, s))
            results[f"{weight:g}"].append(found)
            done = {name: rows for name, rows in results.items() if rows}
            (run.path / "table.md").write_text(markdown(done) + "\n")
            points = {
                f"weight {name}": [(r["measured_ms"], r["test_accuracy"]) for r in rows] for name, rows in done.items()
            }
            plot.points(
                run.path / "sweep.png",
                points,
                xlabel="measured latency [ms]",
                ylabel="test accuracy [%]",
                title=f"{config.data.name}: one point a search",
            )
    print(markdown(results))
    run.finish({"system": "latency_sweep", "data": config.data.name, "results": results})


def smoke(config: Config) -> Config:
    """The same study, small."""
    small = proxyless.smoke(config)
    return dataclasses.replace(small, weights=(0.0, 1.0), seeds=(0,))


if __name__ == "__main__":
    script(main, PRESETS, system="latency_sweep", smoke=smoke, default="fashion-mnist")
