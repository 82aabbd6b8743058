"""What does latency in the loss buy? ProxylessNAS with a growing weight of the latency term.

  python -m experiments.latency_sweep [fashion-mnist | digits] [--weights 0 0.1 0.4 1.6] [--seeds 0 1 2] [--smoke]

One latency table, measured first; for every weight and seed a search, and its network trained from scratch and tested.
At the end all networks are measured, each as one program, in turn. Prints a table, writes it as `table.md`, and draws
`sweep.png`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import batches, common, outcome, pictures, proxyless
from experiments.configs.latency_sweep import PRESETS, Config
from jaxnas import costs, data, plot
from jaxnas.costs import latency
from jaxnas.run import Run, Watch, script
from jaxnas.searchers import sgd_l2
from jaxnas.spaces import proxyless_space

COLUMNS = ("expected_ms", "table_ms", "test_accuracy", "macs")
Results = dict[str, list[dict[str, Any]]]


def setting_of(config: Config, loaded: data.Data, weight: float, seed: int) -> common.Setting:
    """The setting of one weight of the latency and one seed; a weight of zero leaves latency out."""
    form = dataclasses.replace(config.latency, weight=weight, form=config.latency.form if weight else "none")
    return common.prepare(dataclasses.replace(config, latency=form, seed=seed), proxyless_space, loaded=loaded)


def prepare(config: Config) -> common.Study:
    """The data, after a look at the heaviest weight."""
    loaded = batches.load_data(config.data)
    proxyless.check(setting_of(config, loaded, max(config.weights), config.seeds[0]))
    return common.Study(config, loaded)


def one(run: Run, config: Config, loaded: data.Data, weight: float, seed: int) -> dict[str, Any]:
    """Searches with one weight and seed, trains and tests what was found, and returns the row of the table."""
    setting = setting_of(config, loaded, weight, seed)
    search, retrain = setting.config.search, setting.config.retrain
    table = proxyless.latency_table(run, setting)
    searcher = proxyless.make_searcher(setting, table, proxyless.target_of(setting, table))
    # The search, and the network that it found.
    name = f"{weight:g}/{seed}"
    watch = Watch(show=("loss", "accuracy"))
    state = common.run_search(run, setting, f"search/{name}", searcher, search, watch)
    arch = jax.device_get(searcher.decode(state))

    def tx(steps):
        return sgd_l2(optax.cosine_decay_schedule(retrain.learning_rate, steps))

    # The network trained from scratch and tested.
    archs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], arch)
    everything = batches.all_training(setting.images)
    trained = common.train_children(run, setting, f"retrain/{name}", archs, everything, retrain, tx)
    test = data.Examples(*map(jnp.asarray, loaded.test))
    macs = costs.space_tables(setting.space, loaded.image_shape)["macs"]
    return {
        "expected_ms": float(costs.expected_cost(table, jax.tree.map(jax.nn.softmax, state.policy_params))),
        "table_ms": float(costs.cost(table, arch)),
        "test_accuracy": 100 * common.judge_children(setting, trained, archs, test)[0],
        "macs": int(costs.cost(macs, arch)),
        "genotype": setting.space.about.genotype(arch),
    }


def measured(config: Config, loaded: data.Data, results: Results) -> Results:
    """The results with the latency of their networks, `measured_ms`."""
    space = proxyless_space(num_classes=loaded.num_classes, **dataclasses.asdict(config.network))
    archs = [space.about.parse(row["genotype"]) for rows in results.values() for row in rows]
    times = latency.measure_networks(space, archs, loaded.image_shape, batch_size=config.latency.batch_size)
    medians = iter(np.median(times, axis=0).tolist())
    return {name: [{**row, "measured_ms": next(medians)} for row in rows] for name, rows in results.items()}


def write(run: Run, results: Results, columns: tuple[str, ...]) -> str:
    """Mean and standard deviation over seeds, as `table.md`."""
    text = outcome.spread_table("weight", results, columns, mean=".4g", spread=".3g")
    (run.path / "table.md").write_text(text + "\n")
    return text


def main(run: Run, study: common.Study) -> None:
    """Runs all weights for one seed after the other, so that a part of the study is a study; then measures."""
    config, loaded = study
    results: Results = {}
    # Search and training, each result kept as soon as it is there.
    for seed in config.seeds:
        for weight in config.weights:
            found = run.once(f"found/{weight:g}/{seed}", lambda w=weight, s=seed: one(run, config, loaded, w, s))
            results.setdefault(f"{weight:g}", []).append(found)
            write(run, results, COLUMNS)
    # All networks measured in turn, once the last one is found.
    results = run.once("measured", lambda: measured(config, loaded, results))
    points = {
        f"weight {name}": [(row["measured_ms"], float(row["test_accuracy"])) for row in rows]
        for name, rows in results.items()
    }
    pictures.draw(
        plot.points,
        run.path / "sweep.png",
        points,
        xlabel="measured latency [ms]",
        ylabel="test accuracy [%]",
        title=f"{config.data.name}: one point a search",
    )
    print(write(run, results, ("measured_ms", *COLUMNS)))
    run.finish({"system": "latency_sweep", "data": config.data.name, "results": results})


def smoke(config: Config) -> Config:
    """The same study, small."""
    small = proxyless.smoke(config)
    return dataclasses.replace(small, weights=(0.0, 1.0), seeds=(0,))


if __name__ == "__main__":
    script(main, PRESETS, system="latency_sweep", prepare=prepare, smoke=smoke, default="fashion-mnist")
