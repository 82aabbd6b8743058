"""Presets of the searches on benchmark tables."""

import dataclasses

from experiments.configs.kinds import Count, Fraction, Names, Positive, Rate, Seed, Text

NASBENCH201 = "nasbench201:$JAXNAS_DATA/nasbench201.npz,$JAXNAS_DATA/nasbench201_latency.npz"


@dataclasses.dataclass(frozen=True)
class Config:
    """Searches for one objective on a table, over many seeds."""

    table: Text = "digits"
    """Benchmark: digits, nasbench201:FILE[,LATENCIES], nas-bench-macro:FILE, exhaustive:FILE or table:FILE."""
    objective: Text = "-valid_4"
    """The metric that searches see and minimise; a minus in front of one to be maximised."""
    cost: Text | None = "seconds"
    """The metric that an evaluation costs on the simulated clock; if not given every one costs 1."""
    cost_share: Fraction = 1.0
    """The part of that cost which an evaluation takes, as 4 of 16 epochs are a quarter."""
    budget: Positive = 12.0
    """What a search may spend, in the unit of the cost."""
    single_runs: bool = False
    """Searches see one stored run, drawn anew at every evaluation, instead of the mean."""
    report: Names = ("valid_16", "test_16")
    """Metrics of the found architectures that are reported; the last one is drawn as a curve."""
    methods: Names = ("random_search", "local_search", "reinforce", "nas_rl", "regularized_evolution")
    """Which searches."""
    population_size: Count = 10
    """Of regularised evolution."""
    sample_size: Count = 3
    """Of regularised evolution."""
    learning_rate: Rate = 0.01
    """Of Adam on the logits, for REINFORCE."""
    controller_learning_rate: Rate = 5e-3
    """Of Adam on the parameters of the controller, for NAS-RL, whose reward is the distance from the worst."""
    batch_size: Count = 8
    """Architectures of each step of NAS-RL."""
    seeds: Count = 500
    """Searches of each method, all in one compiled call."""
    seed: Seed = 0
    """Seed of all of them."""


def published(dataset: str, budget: float, report: tuple[str, ...]) -> Config:
    """The protocol of NAS-Bench-201 and NATS-Bench: 12 epochs are seen and paid for, 200 epochs are reported."""
    seen = {"objective": f"-{dataset}_valid_12", "cost": f"{dataset}_seconds_12"}
    return Config(table=NASBENCH201, budget=budget, report=report, **seen)


# What is reported of a found cell: accuracies after 200 epochs.
CIFAR10, CIFAR100, IMAGENET16 = (
    (f"{name}_valid_200", f"{name}_test_200") for name in ("cifar10", "cifar100", "imagenet16-120")
)
PRESETS = {
    "digits": Config(cost_share=4 / 16),
    "nasbench201": published("cifar10", 12_000, CIFAR100 + IMAGENET16 + CIFAR10),
    "nats-cifar10": published("cifar10", 20_000, CIFAR10),
    "nats-cifar100": published("cifar100", 40_000, CIFAR100),
    "nats-imagenet16": published("imagenet16-120", 120_000, IMAGENET16),
}
"""Named configurations.

digits: the bundled table; searches see the accuracy after 4 of 16 epochs and pay a quarter of the time.
nasbench201: 12,000 simulated seconds on CIFAR-10, the found cell reported on three data sets.
nats-*: NATS-Bench's budgets, each data set by itself.
"""
