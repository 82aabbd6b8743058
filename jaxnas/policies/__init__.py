"""Policies: distributions over architectures, whose parameters a gradient search learns."""

from jaxnas.policies._categorical import categorical
from jaxnas.policies._controller import controller
from jaxnas.policies.tokens import Token

__all__ = ["Token", "categorical", "controller"]
