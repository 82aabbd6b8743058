"""The spaces of NAS-RL (Zoph and Le, 2017): convolutional networks, and recurrent cells with their language models."""

from jaxnas.spaces.nas_rl.cell import (
    CellState,
    RecurrentCellSpace,
    constants,
    recurrent_cell,
    recurrent_cell_space,
)
from jaxnas.spaces.nas_rl.decoding import decode
from jaxnas.spaces.nas_rl.language import LanguageModel, language_model
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan
from jaxnas.spaces.nas_rl.layer_tokens import nas_rl_prefix, nas_rl_tokens
from jaxnas.spaces.nas_rl.layers import layer_plan, nas_rl_space
from jaxnas.spaces.nas_rl.module import RecurrentCell, space_of_genotype
from jaxnas.spaces.nas_rl.published import PUBLISHED, PUBLISHED_NETWORKS
from jaxnas.spaces.nas_rl.symmetry import canonical_cell, cell_representatives

__all__ = [
    "PUBLISHED",
    "PUBLISHED_NETWORKS",
    "CellState",
    "LanguageModel",
    "LayerPlan",
    "RecurrentCell",
    "RecurrentCellSpace",
    "canonical_cell",
    "cell_representatives",
    "constants",
    "decode",
    "language_model",
    "layer_plan",
    "nas_rl_prefix",
    "nas_rl_space",
    "nas_rl_tokens",
    "recurrent_cell",
    "recurrent_cell_space",
    "space_of_genotype",
]
