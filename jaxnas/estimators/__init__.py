"""Gradient estimators of the expected loss over a policy; `ESTIMATORS` lists them with what they need and promise."""

from jaxnas.estimators._arsm import arsm
from jaxnas.estimators._exact import exact
from jaxnas.estimators._gdas import gdas
from jaxnas.estimators._pathwise import PathwiseState, pathwise
from jaxnas.estimators._with_objective import Objective, with_objective
from jaxnas.estimators._without_replacement import without_replacement
from jaxnas.estimators.binary import arm, disarm
from jaxnas.estimators.control_variates import ControlParams, ControlState, rebar, relax, tanh_network
from jaxnas.estimators.coupled import disarm_iw, disarm_sb
from jaxnas.estimators.evaluation import NoState
from jaxnas.estimators.gates import binary_gate, two_path_gate, two_path_rescale
from jaxnas.estimators.registry import ESTIMATORS, Entry, build, table
from jaxnas.estimators.score import ReinforceState, reinforce

__all__ = [
    "ESTIMATORS",
    "ControlParams",
    "ControlState",
    "Entry",
    "NoState",
    "Objective",
    "PathwiseState",
    "ReinforceState",
    "arm",
    "arsm",
    "binary_gate",
    "build",
    "disarm",
    "disarm_iw",
    "disarm_sb",
    "exact",
    "gdas",
    "pathwise",
    "rebar",
    "reinforce",
    "relax",
    "table",
    "tanh_network",
    "two_path_gate",
    "two_path_rescale",
    "with_objective",
    "without_replacement",
]
