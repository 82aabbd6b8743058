"""Published networks written out in numpy: the supernet on one path computes the same.

The supernet and the stand-alone network share one forward pass, so that only these tests notice a mistake in it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.base import sparse_paths
from jaxnas.spaces import darts_space, nasbench201_space, proxyless_space

X = np.random.default_rng(0).standard_normal((4, 8, 8, 3))


def norm(x, eps=1e-5):
    """Every channel with mean zero and variance one."""
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + eps)


def conv(x, kernel, stride=1):
    """A convolution, padded with zeros; a kernel of three axes is that of a depthwise one."""
    side = kernel.shape[0]
    padded = np.pad(x, ((0, 0), *((side // 2,) * 2,) * 2, (0, 0)))
    taps = [(i, j) for i in range(side) for j in range(side)]
    seen = [padded[:, i : i + x.shape[1] : stride, j : j + x.shape[2] : stride] for i, j in taps]
    return sum(
        part * kernel[tap] if kernel.ndim == 3 else part @ kernel[tap] for part, tap in zip(seen, taps, strict=True)
    )


def relu(x):
    return np.maximum(x, 0)


def classify(x, params):
    return x.mean((1, 2)) @ params["kernel"] + params["bias"]


def compare(space, arch, network):
    """Asserts that `network(params, X)` gives the logits of the supernet on the paths of `arch`."""
    params = jax.jit(space.init)(jax.random.key(0), jnp.asarray(X, jnp.float32))
    found = jax.jit(space.apply)(params, sparse_paths(jax.tree.map(jnp.asarray, arch)), jnp.asarray(X, jnp.float32))
    wanted = network(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), X)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_darts():
    """One node per cell, skips everywhere: a normal cell, and two that halve the grid."""

    def halve(x, params):
        x = relu(x)
        return norm(np.concatenate([conv(x[:, ::2, ::2], params["even"]), conv(x[:, 1::2, 1::2], params["odd"])], -1))

    def network(params, x):
        first, second, third = params["cells"]
        before = norm(conv(x, params["stem"]["kernel"]))

        def project(x, name, cell):
            return norm(conv(relu(x), cell[name]["kernel"]))

        def reduced(inputs, cell):
            skips = cell["edges"]["stride2"]["skip_connect"]
            return sum(halve(x, {name: leaf[row] for name, leaf in skips.items()}) for row, x in enumerate(inputs))

        normal = project(before, "pre0", first) + project(before, "pre1", first)
        half = reduced([project(before, "pre0", second), project(normal, "pre1", second)], second)
        quarter = reduced([halve(normal, third["pre0"]), project(half, "pre1", third)], third)
        return classify(quarter, params["classifier"])

    space = darts_space(4, 3, 3, nodes=1, stem_multiplier=2, operations=("none", "skip_connect"))
    compare(space, {"normal": np.array([1, 1]), "reduce": np.array([1, 1])}, network)


def test_nasbench201():
    """One cell per stage: `y1 = conv3(x)`, `y2 = x + conv1(y1)`, and the output is `pool(x) + y2`."""

    def pool(x):
        ones = np.ones((3, 3, x.shape[-1]))
        return conv(x, ones) / conv(np.ones_like(x), ones)

    def cell(params, x):
        weights = {name: params["edges"][name]["kernel"][0] for name in ("nor_conv_3x3", "nor_conv_1x1")}
        first = norm(conv(relu(x), weights["nor_conv_3x3"][0]))
        second = x + norm(conv(relu(first), weights["nor_conv_1x1"][2]))
        return pool(x) + second

    def halve(params, x):
        batch, height, width, channels = x.shape
        pooled = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        y = norm(conv(relu(x), params["first"]["kernel"], 2))
        return conv(pooled, params["shortcut"]) + norm(conv(relu(y), params["second"]["kernel"]))

    def network(params, x):
        x = cell(params["stages"][0], norm(conv(x, params["stem"]["kernel"])))
        for reduction, stage in zip(params["reductions"], params["stages"][1:], strict=True):
            x = cell(stage, halve(reduction, x))
        return classify(relu(norm(x)), params["head"]["classifier"])

    compare(nasbench201_space(2, 1, 3), {"cell": np.array([3, 1, 2, 4, 0, 1])}, network)


def test_proxyless():
    """A fixed block, a searched one with a shortcut, and one that is left out."""

    def relu6(x):
        return np.clip(x, 0, 6)

    def bottleneck(params, x):
        if "expand" in params:
            x = relu6(norm(conv(x, params["expand"]), 1e-3))
        return norm(conv(relu6(norm(conv(x, params["depthwise"]), 1e-3)), params["project"]), 1e-3)

    def network(params, x):
        x = relu6(norm(conv(x, params["stem"]["kernel"]), 1e-3))
        x = bottleneck(params["first"], x)
        (run,) = params["runs"]
        x = x + bottleneck(jax.tree.map(lambda leaf: leaf[0], run["3x3_e2"]), x)
        return classify(relu6(norm(conv(x, params["last"]["kernel"]), 1e-3)), params["classifier"])

    space = proxyless_space(
        (4,),
        (2,),
        (1,),
        stem_channels=6,
        stem_stride=1,
        first_channels=4,
        last_channels=8,
        num_classes=3,
        kernels=(3,),
        expansions=(1, 2),
    )
    compare(space, {"inner": np.array([1, 2])}, network)
