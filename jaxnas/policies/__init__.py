"""Policies: distributions over architectures."""

from jaxnas.policies._categorical import categorical, entropy, split_like

__all__ = ["categorical", "entropy", "split_like"]
