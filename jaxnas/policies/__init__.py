"""Policies: distributions over architectures."""

from jaxnas.policies._categorical import categorical

__all__ = ["categorical"]
