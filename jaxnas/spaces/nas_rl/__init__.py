"""The recurrent cells of NAS-RL (Zoph and Le, 2017): trees of combinations and activations, and language models."""

from jaxnas.spaces.nas_rl.cell import (
    CellState,
    RecurrentCellSpace,
    constants,
    recurrent_cell,
    recurrent_cell_space,
)
from jaxnas.spaces.nas_rl.language import LanguageModel, language_model
from jaxnas.spaces.nas_rl.published import PUBLISHED

__all__ = [
    "PUBLISHED",
    "CellState",
    "LanguageModel",
    "RecurrentCellSpace",
    "constants",
    "language_model",
    "recurrent_cell",
    "recurrent_cell_space",
]
