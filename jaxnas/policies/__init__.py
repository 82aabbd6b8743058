"""Policies: distributions over architectures, whose parameters a gradient search learns."""

from jaxnas.policies._categorical import categorical

__all__ = ["categorical"]
