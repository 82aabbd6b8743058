"""Searchers: gradient search, and what is built on it."""

from jaxnas.searchers.gradient import SearchInfo, SearchState, classification_loss, gradient_search
from jaxnas.searchers.recipes import cosine_by_epoch, coupled_adam, coupled_sgd, darts, snas
from jaxnas.searchers.second_order import InnerStep, momentum_of, unrolled, unrolled_gradient

__all__ = [
    "InnerStep",
    "SearchInfo",
    "SearchState",
    "classification_loss",
    "cosine_by_epoch",
    "coupled_adam",
    "coupled_sgd",
    "darts",
    "gradient_search",
    "momentum_of",
    "snas",
    "unrolled",
    "unrolled_gradient",
]
