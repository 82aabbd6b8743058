"""The spaces of ProxylessNAS: inverted bottlenecks for ImageNet, and cells of trees for CIFAR-10."""

from jaxnas.spaces.proxyless.space import proxyless_space
from jaxnas.spaces.proxyless.tree import proxyless_tree_space

__all__ = ["proxyless_space", "proxyless_tree_space"]
