"""The smallest spaces of every kind, on which the types of numbers are checked."""

import functools

from jaxnas.spaces import (
    darts_space,
    nasbench201_small_space,
    nasbench201_space,
    proxyless_space,
    proxyless_tree_space,
)
from jaxnas.spaces.nas_rl import nas_rl_space

LAYERS = functools.partial(nas_rl_space, 2, 3, filters=(2, 3), kernels=(1, 3))

SPACES = {
    "darts": functools.partial(darts_space, 4, 3, 3),
    "nasbench201": functools.partial(nasbench201_space, 4, 1, 3),
    "nasbench201-small": functools.partial(nasbench201_small_space, 4, 3),
    "nas-rl": LAYERS,
    "nas-rl-strided": functools.partial(LAYERS, strides=(1, 2), pooling=(1,), convolutions=2, reference=4),
    "tree": functools.partial(proxyless_tree_space, 1, 1, stem_channels=4, alpha=4, num_classes=3),
    "proxyless": functools.partial(
        proxyless_space, (4, 8), (1, 2), (1, 2), stem_channels=4, first_channels=4, last_channels=8, num_classes=3
    ),
}
