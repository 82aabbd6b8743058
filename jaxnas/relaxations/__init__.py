"""Relaxations: differentiable stand-ins `(key, logits, temperature) -> weights` for a categorical sample."""

from jaxnas.relaxations.gumbel import concrete_log_prob, gumbel_softmax
from jaxnas.relaxations.softmax import softmax
from jaxnas.relaxations.straight_through import straight_through
from jaxnas.relaxations.temperature import Temperature, annealed, check_temperature, temperature_at

__all__ = [
    "Temperature",
    "annealed",
    "check_temperature",
    "concrete_log_prob",
    "gumbel_softmax",
    "softmax",
    "straight_through",
    "temperature_at",
]
