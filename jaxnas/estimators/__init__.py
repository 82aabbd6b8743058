"""Gradient estimators of the expected loss over a policy; `ESTIMATORS` lists them with what they need and promise."""

from jaxnas.estimators.arsm import arsm
from jaxnas.estimators.binary import arm, disarm
from jaxnas.estimators.control_variates import ControlParams, ControlState, rebar, relax, tanh_network
from jaxnas.estimators.coupled import disarm_iw, disarm_sb
from jaxnas.estimators.evaluation import NoState
from jaxnas.estimators.exact import enumerate_architectures, exact
from jaxnas.estimators.gates import binary_gate, two_path_gate, two_path_rescale
from jaxnas.estimators.gdas import gdas
from jaxnas.estimators.pathwise import PathwiseState, pathwise
from jaxnas.estimators.registry import ESTIMATORS, Entry, build, table
from jaxnas.estimators.score import ReinforceState, reinforce
from jaxnas.estimators.without_replacement import without_replacement

__all__ = [
    "ESTIMATORS",
    "ControlParams",
    "ControlState",
    "Entry",
    "NoState",
    "PathwiseState",
    "ReinforceState",
    "arm",
    "arsm",
    "binary_gate",
    "build",
    "disarm",
    "disarm_iw",
    "disarm_sb",
    "enumerate_architectures",
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
    "without_replacement",
]
