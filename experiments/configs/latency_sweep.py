"""Settings of the latency sweep."""

import dataclasses

from experiments.configs.kinds import Factors, Seed, Seeds
from experiments.configs.parts import FASHION_MNIST, DataConfig, TrainConfig
from experiments.configs.proxyless import PRESETS as PROXYLESS
from experiments.configs.proxyless import LatencyConfig, NetworkConfig, SearchConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Searches that weigh latency more and more."""

    data: DataConfig = dataclasses.replace(FASHION_MNIST, weights=4000, policy=4000)
    network: NetworkConfig = NetworkConfig()
    search: SearchConfig = SearchConfig(warmup_epochs=3, epochs=12, policy_every=2, policy_learning_rate=0.05)
    latency: LatencyConfig = LatencyConfig()
    retrain: TrainConfig = TrainConfig(epochs=6, random_children=0)
    weights: Factors = (0.0, 0.1, 0.4, 1.6)
    """Of the latency term, one search for each and every seed."""
    seeds: Seeds = (0, 1, 2)
    """Seeds, each a search of its own."""
    seed: Seed = 0
    """Of the measured table; the searches have the seeds above."""


PRESETS = {
    "fashion-mnist": Config(),
    "digits": Config(data=DataConfig(), network=PROXYLESS["digits"].network, search=PROXYLESS["digits"].search),
}
"""Named configurations.

fashion-mnist: the study of the README, three seeds and four weights: from 46 to 6 ms, from 87.1 to 85.7 per cent. About
  an hour on two CPU cores.
digits: the same, small, for a quick look.
"""
