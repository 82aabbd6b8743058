"""Search spaces: supernets with the rule that reads an architecture from them.

Each published space has a package, with its network, its costs and what its paper published. The toolkit for
a new space is `jaxnas.spaces.parts`.
"""

from jaxnas.spaces.chain import as_op, chain_space
from jaxnas.spaces.darts import darts_space, snas_space
from jaxnas.spaces.nas_rl import nas_rl_space
from jaxnas.spaces.nasbench201 import nasbench201_small_space, nasbench201_space
from jaxnas.spaces.proxyless import proxyless_space, proxyless_tree_space
from jaxnas.spaces.toy import function_space, gates, quadratic_space, table_space

__all__ = [
    "as_op",
    "chain_space",
    "darts_space",
    "function_space",
    "gates",
    "nas_rl_space",
    "nasbench201_small_space",
    "nasbench201_space",
    "proxyless_space",
    "proxyless_tree_space",
    "quadratic_space",
    "snas_space",
    "table_space",
]
