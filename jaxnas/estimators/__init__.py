"""Gradient estimators of the expected loss over a policy."""

from jaxnas.estimators.exact import ExactState, enumerate_architectures, exact
from jaxnas.estimators.pathwise import PathwiseState, pathwise

__all__ = ["ExactState", "PathwiseState", "enumerate_architectures", "exact", "pathwise"]
