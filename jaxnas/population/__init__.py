"""The training of many architectures, each from first weights: side by side in one program, or on a farm."""

from jaxnas.population.chunks import Population, train_population
from jaxnas.population.farm import Farm
from jaxnas.population.layer_children import layer_family, own_family
from jaxnas.population.member import Family, Member, PopulationData, Recipe, Trained, family_of, train_member
from jaxnas.population.records import Child, Record
from jaxnas.population.workers import Workers, in_process, local_processes
from jaxnas.strategies import Strategy, lift, member_mesh, resolve

__all__ = [
    "Child",
    "Family",
    "Farm",
    "Member",
    "Population",
    "PopulationData",
    "Recipe",
    "Record",
    "Strategy",
    "Trained",
    "Workers",
    "family_of",
    "in_process",
    "layer_family",
    "lift",
    "local_processes",
    "member_mesh",
    "own_family",
    "resolve",
    "train_member",
    "train_population",
]
