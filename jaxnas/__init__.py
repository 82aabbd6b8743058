"""Neural architecture search as pure JAX functions.

`import jaxnas as jn` gives the nouns of `jaxnas.base`, the spaces, policies, estimators and searchers that most
programs start from, and the modules that hold everything else. Commands, and what touches files, pictures or other
formats (`jaxnas.describe`, `jaxnas.data`, `jaxnas.plot`, `jaxnas.export`), are imported by name.
"""

from jaxnas import (
    architectures,
    costs,
    derive,
    estimators,
    ops,
    policies,
    population,
    relaxations,
    run,
    searchers,
    spaces,
    tabular,
    train,
)
from jaxnas.base import (
    Arch,
    Batch,
    BlackBox,
    Estimate,
    Estimator,
    Network,
    Op,
    Paths,
    Policy,
    Searcher,
    SearchSpace,
    dense_paths,
    one_hot_paths,
    sparse_paths,
)
from jaxnas.estimators import binary_gate, exact, pathwise, reinforce
from jaxnas.policies import categorical
from jaxnas.population import train_population
from jaxnas.relaxations import annealed, gumbel_softmax, softmax
from jaxnas.run import Run
from jaxnas.searchers import (
    darts,
    gradient_search,
    hypervolume,
    local_search,
    nsga2,
    policy_search,
    proxyless,
    random_search,
    regularized_evolution,
    snas,
)
from jaxnas.spaces import (
    chain_space,
    darts_space,
    nasbench201_space,
    proxyless_space,
    proxyless_tree_space,
    snas_space,
)

__version__ = "0.1.0"

__all__ = [
    "Arch",
    "Batch",
    "BlackBox",
    "Estimate",
    "Estimator",
    "Network",
    "Op",
    "Paths",
    "Policy",
    "Run",
    "SearchSpace",
    "Searcher",
    "__version__",
    "annealed",
    "architectures",
    "binary_gate",
    "categorical",
    "chain_space",
    "costs",
    "darts",
    "darts_space",
    "dense_paths",
    "derive",
    "estimators",
    "exact",
    "gradient_search",
    "gumbel_softmax",
    "hypervolume",
    "local_search",
    "nasbench201_space",
    "nsga2",
    "one_hot_paths",
    "ops",
    "pathwise",
    "policies",
    "policy_search",
    "population",
    "proxyless",
    "proxyless_space",
    "proxyless_tree_space",
    "random_search",
    "regularized_evolution",
    "reinforce",
    "relaxations",
    "run",
    "searchers",
    "snas",
    "snas_space",
    "softmax",
    "spaces",
    "sparse_paths",
    "tabular",
    "train",
    "train_population",
]
