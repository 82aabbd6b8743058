"""Training many architectures at once, each with its own weights."""

from jaxnas.population.chunks import Population, train_population
from jaxnas.population.member import Family, Member, PopulationData, Recipe, Trained, family_of, train_member
from jaxnas.strategies import Strategy, lift, member_mesh, resolve

__all__ = [
    "Family",
    "Member",
    "Population",
    "PopulationData",
    "Recipe",
    "Strategy",
    "Trained",
    "family_of",
    "lift",
    "member_mesh",
    "resolve",
    "train_member",
    "train_population",
]
