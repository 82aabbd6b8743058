"""The ablation of NAS-RL's skip connections: a network with those that were found, with all of them and with none.

Zoph and Le (2017, arXiv 1611.01578, section 4.1) connect the layers of their best network densely, and remove all of
its skip connections, and report that both make it worse. Without skips each layer reads the one before it: the paper
does not say what else would hold the layers together, and without any connection they would stand side by side.
"""

from typing import Any

import numpy as np
import optax

from experiments import batches, common, nas_rl_children
from jaxnas import data
from jaxnas.base import Arch
from jaxnas.describe import network_costs
from jaxnas.population import PopulationData, Recipe
from jaxnas.run import Run
from jaxnas.searchers import sgd_l2

VARIANTS = ("found", "all", "none")


def with_skips(arch: Arch, variant: str) -> Arch:
    """The architecture with other connections between its layers, kernels and filters as they were.

    Example:
      >>> with_skips({"filters": np.array([1, 2, 0]), "skip": np.array([0, 0, 0])}, "none")["skip"]
      array([1, 0, 1])
    """
    if variant == "found" or "skip" not in arch:
        return arch
    later, earlier = np.tril_indices(len(arch["filters"]), -1)  # in the order of the decisions
    skip = np.ones_like(later) if variant == "all" else later == earlier + 1
    return {**arch, "skip": skip.astype(arch["skip"].dtype)}


def ablation(run: Run, setting: common.Setting, arch: Arch) -> dict[str, Any]:
    """Trains the three networks with several seeds on all training examples and tests them.

    Args:
      run: the run in whose work directory it happens.
      setting: what the parts of the script share, with the space of the architecture; `config.skips` has the recipe.
      arch: the architecture that was found.

    Returns:
      By variant the number of connections, the test errors in per cent of all seeds, their mean and standard deviation,
      and the costs of the network.
    """
    form, images = setting.config.skips, setting.images
    learned = batches.all_training(images)
    steps = batches.num_steps("skips.", form, learned)
    rate = optax.cosine_decay_schedule(form.learning_rate, steps)
    tx = sgd_l2(rate, weight_decay=form.weight_decay, clip=None, nesterov=True)
    recipe = Recipe(tx, steps, form.batch_size, prepare=common.prepare_images(images, setting.config.data))
    examples = PopulationData(tuple(learned), {"test": tuple(data.Examples(*setting.loaded.test))})
    rows = {}
    for variant in VARIANTS:
        network = with_skips(arch, variant)
        tested = nas_rl_children.train_alone(
            run, setting, f"skips/{variant}", network, np.arange(form.seeds), examples, recipe
        )
        errors = 100 * (1 - np.array(tested["test"]))
        rows[variant] = {
            "connections": int(np.sum(network.get("skip", 0))),
            "test_errors": errors.tolist(),
            "test_error_mean": float(errors.mean()),
            "test_error_std": float(errors.std(ddof=1)) if len(errors) > 1 else None,
            **network_costs(setting.space, network, images.image_shape),
        }
    return rows
