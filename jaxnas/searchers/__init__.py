"""Searchers: gradient search and what is built on it, and black-box searches that are told a fitness."""

from jaxnas.searchers._darts import darts
from jaxnas.searchers._local_search import LocalSearchState, local_search
from jaxnas.searchers._nas_rl import PPO, NasRLState, depth_schedule, nas_rl
from jaxnas.searchers._nsga2 import nsga2
from jaxnas.searchers._policy_search import PolicySearchState, policy_search
from jaxnas.searchers._proxyless import proxyless, reward_loss
from jaxnas.searchers._random_search import FrontState, front_search, random_search
from jaxnas.searchers._skip_unused import skip_unused
from jaxnas.searchers._snas import snas
from jaxnas.searchers.evolution import EvolutionState, regularized_evolution
from jaxnas.searchers.gradient import (
    SearchParts,
    SearchStep,
    alternating,
    estimate_on,
    gradient_search,
    joint,
    move_policy,
    move_weights,
    policy_step,
    weight_step,
)
from jaxnas.searchers.incumbent import BlackBoxInfo, Incumbent
from jaxnas.searchers.optimisers import adam_l2, cosine_by_epoch, sgd_l2
from jaxnas.searchers.pareto import crowding_distance, dominates, hypervolume, pareto_front, pareto_ranks, survivors
from jaxnas.searchers.rewards import accuracy_cubed, best_of_last, inverse_square_perplexity
from jaxnas.searchers.second_order import InnerStep, momentum_of, unrolled, unrolled_gradient
from jaxnas.searchers.state import SearchInfo, SearchState, classification_loss
from jaxnas.searchers.variation import Mutation, point_mutation, reset_mutation, two_point_crossover

__all__ = [
    "PPO",
    "BlackBoxInfo",
    "EvolutionState",
    "FrontState",
    "Incumbent",
    "InnerStep",
    "LocalSearchState",
    "Mutation",
    "NasRLState",
    "PolicySearchState",
    "SearchInfo",
    "SearchParts",
    "SearchState",
    "SearchStep",
    "accuracy_cubed",
    "adam_l2",
    "alternating",
    "best_of_last",
    "classification_loss",
    "cosine_by_epoch",
    "crowding_distance",
    "darts",
    "depth_schedule",
    "dominates",
    "estimate_on",
    "front_search",
    "gradient_search",
    "hypervolume",
    "inverse_square_perplexity",
    "joint",
    "local_search",
    "momentum_of",
    "move_policy",
    "move_weights",
    "nas_rl",
    "nsga2",
    "pareto_front",
    "pareto_ranks",
    "point_mutation",
    "policy_search",
    "policy_step",
    "proxyless",
    "random_search",
    "regularized_evolution",
    "reset_mutation",
    "reward_loss",
    "sgd_l2",
    "skip_unused",
    "snas",
    "survivors",
    "two_point_crossover",
    "unrolled",
    "unrolled_gradient",
    "weight_step",
]
