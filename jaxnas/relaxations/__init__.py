"""Relaxations: differentiable stand-ins `(key, logits, temperature) -> weights` for a categorical sample."""

from jaxnas.relaxations._softmax import softmax, softmax_jacobian, wide
from jaxnas.relaxations._straight_through import (
    gumbel_rao,
    reinmax,
    st_gumbel,
    st_softmax,
    straight_through,
)
from jaxnas.relaxations.gumbel import (
    concrete_log_prob,
    conditional_noise,
    conditional_perturbed,
    exponential,
    gumbel_softmax,
    perturbed,
)
from jaxnas.relaxations.temperature import Temperature, annealed, check_temperature, temperature_at

__all__ = [
    "Temperature",
    "annealed",
    "check_temperature",
    "concrete_log_prob",
    "conditional_noise",
    "conditional_perturbed",
    "exponential",
    "gumbel_rao",
    "gumbel_softmax",
    "perturbed",
    "reinmax",
    "softmax",
    "softmax_jacobian",
    "st_gumbel",
    "st_softmax",
    "straight_through",
    "temperature_at",
    "wide",
]
