"""Every network of NAS-RL's convolutional space in one program: a canvas of the largest sizes, and masks.

The weights of the canvas are those of a network in which every convolution has the largest kernel and the most filters
and reads the image and all convolutions before it. An architecture is a set of masks: a centred rectangle of each
kernel, the first of the filters, 0 or 1 for each connection. What is masked is exactly zero and so is its gradient,
hence a child that is trained on the canvas does what it would do in a program of its own.

Letters for shapes: `L` layers, `N` convolutions in all of them, `K` side of the largest kernel, `S` most filters, `C`
channels of the image. A layer's convolutions are `layer0/conv0`, ... in the order in which they run.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.base import Arch, Key, Params, Paths, Tree, sparse_paths
from jaxnas.dtypes import compute_dtype
from jaxnas.ops import Norm, by_hand, conv, max_pool
from jaxnas.spaces.nas_rl.decoding import IMAGE, decode
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan
from jaxnas.spaces.nas_rl.masks import Masks, Sizes, all_masks, gates, masked_kernel, masks_of, most_filters, sizes_of
from jaxnas.spaces.nas_rl.strided import strided_apply
from jaxnas.spaces.nas_rl.taps import conv_in_use

__all__ = ["canvas_apply", "canvas_cut", "canvas_init", "canvas_used"]

BRANCHING = 32  # from this many filters on a branch for each number of them is worth its compilation


def canvas_init(plan: LayerPlan, key: Key, x: jax.Array, arch: Arch | None = None) -> Params:
    """First weights: uniform in `+-1 / sqrt(fan_in)` as in the stand-alone network, norms one and zero.

    Args:
      plan: settings of the space.
      key: the key of the draw; the same noise is drawn for every architecture.
      x: images `[B, H, W, C]`, of which only the number of channels counts.
      arch: the child that is going to be trained on the canvas, leaves `[E]`, traced or not: its own number of inputs
        scales its weights, and all others are zero. None for a supernet, where all weights count.

    Returns:
      `{"layer0": {"conv0": {"kernel": [K, K, C + n S, S], "norm": {"scale": [S], "bias": [S]}}}, ..., "classifier":
      {"kernel": [N S, num_classes], "bias": [num_classes]}}`, where `n` counts the convolutions before this one.

    Example:
      >>> params = canvas_init(LayerPlan(num_layers=2, filters=(2, 4)), jax.random.key(0), jnp.zeros((8, 8, 8, 3)))
      >>> params["layer1"]["conv0"]["kernel"].shape
      (7, 7, 7, 4)
    """
    shapes = _shapes(plan, x.shape[-1])
    inside = _inside(plan, all_masks(plan) if arch is None else masks_of(plan, sparse_paths(arch)), shapes)
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
    ends = np.cumsum(sizes)
    noise = jax.random.uniform(key, (int(ends[-1]),), jnp.float32, -1.0, 1.0)

    def drawn(path: Any, shape: Any, mask: jax.Array, fan_in: jax.Array, end: int) -> jax.Array:
        if "norm" in [entry.key for entry in path]:
            first = jnp.full(shape.shape, float(path[-1].key == "scale"))
        else:
            first = noise[end - math.prod(shape.shape) : end].reshape(shape.shape) * lax.rsqrt(fan_in)
        return jnp.where(mask > 0, first, 0.0).astype(plan.wide)

    # Inputs of an output: the weights that lead to the first filter or class, which every architecture has.
    fan_in = jax.tree.map(lambda leaf: jnp.sum(leaf[..., 0] > 0).astype(jnp.float32), inside)
    fan_in["classifier"]["bias"] = fan_in["classifier"]["kernel"]
    ends_of = jax.tree.unflatten(jax.tree.structure(shapes), ends.tolist())
    return jax.tree_util.tree_map_with_path(drawn, shapes, inside, fan_in, ends_of)


def canvas_used(plan: LayerPlan, params: Params, paths: Paths) -> Tree:
    """Which weights of the canvas take part on some paths: a tree like `params` of bools of the same shapes."""
    if paths.index is None:
        masks = all_masks(plan)
    else:
        masks = masks_of(plan, Paths(paths.index, jax.tree.map(jnp.ones_like, paths.weight)))
    return jax.tree.map(lambda mask: mask > 0, _inside(plan, masks, params))


def canvas_apply(plan: LayerPlan, params: Params, paths: Paths, x: jax.Array, *, eps: float = 1e-5) -> jax.Array:
    """Logits `[B, num_classes]` of any paths through the canvas; all architectures share one program.

    Weights of options mix the masks: with weights `w` of the filter heights, say, a kernel is multiplied by the sum of
    `w[k]` times the rectangle of height `k`. The factor with which the image enters a layer, 0 or 1 for one
    architecture, is the product of the weights of the layer's options not to connect (rule 1). The factor, 0 or 1 for
    one architecture, with which each layer's output enters the classifier is the product of the weights of the options
    of later layers not to connect to it (rule 2).

    Where `plan.lowering` is written by hand, as it is on a CPU, the convolutions of sparse paths leave out what is
    masked: `jaxnas.spaces.nas_rl.taps`. Otherwise each is one convolution with masked weights, which on a CPU is much
    slower, under `vmap` too.

    Args:
      plan: settings of the space.
      params: weights of the canvas, from `canvas_init`.
      paths: paths as `SearchSpace.apply` takes them.
      x: images `[B, H, W, C]`.
      eps: number above zero that normalisation adds to the variance.

    Raises:
      UserError: a batch that leaves fewer than four values per channel to normalise over, in any architecture of the
        space where strides are predicted; mixed paths with weights for more options than run.
    """
    if plan.strides is not None:
        return strided_apply(plan, params, paths, x, eps=eps)
    masks, sizes = masks_of(plan, paths), sizes_of(plan, paths)
    batch_norm = Norm(affine=True, reference=plan.reference, eps=eps)
    # Images that may be read, in the order of the input channels of every kernel.
    images: list[jax.Array] = [x.astype(compute_dtype(plan.dtype))]
    for i in range(plan.num_layers):
        if i in plan.pooling:
            images = [max_pool(image, stride=2, lowering=plan.lowering) for image in images]
        for c in range(plan.convolutions):
            weights = params[f"layer{i}"][f"conv{c}"]
            kernel = masked_kernel(plan, weights["kernel"], masks, i, c).astype(images[0].dtype)
            y: Any = _convolution(plan, images, kernel, sizes, i)
            y = jax.nn.relu(y) if plan.order == "conv_relu_bn" else y
            y = batch_norm.apply({"params": weights["norm"]}, y)
            y = jax.nn.relu(y) if plan.order == "conv_bn_relu" else y
            # Masked after normalisation, whose offset would fill filters that the layer does not have.
            images.append(y * masks.filters[i].astype(y.dtype).reshape(1, 1, 1, -1))
    # Rule 2: the classifier reads what no layer reads.
    means = [jnp.mean(image.astype(plan.wide), (1, 2)) for image in images[1:]]
    pooled = jnp.stack(means, 1) * jnp.repeat(masks.outputs, plan.convolutions).reshape(1, -1, 1)
    return pooled.reshape(len(x), -1) @ params["classifier"]["kernel"] + params["classifier"]["bias"][None]


def canvas_cut(plan: LayerPlan, params: Params, arch: Arch) -> Params:
    """The weights of one architecture, in the form of its stand-alone network's.

    Args:
      plan: settings of the space.
      params: weights of the canvas.
      arch: one integer per decision, leaves `[E]`, known when the program is traced.

    Returns:
      `{"layer0": {"conv0": {"kernel": [h, w, C_in, F], "norm": {"scale": [F], "bias": [F]}}}, ..., "classifier":
      {"kernel", "bias"}}`, the entry `params` of `about.network(arch).init`.

    Raises:
      UserError: an architecture outside of the space.
    """
    network, most, blocks = decode(plan, arch), most_filters(plan), plan.convolutions
    channels = params["layer0"]["conv0"]["kernel"].shape[2]

    def places(layers: Sequence[int], start: int, upto: int = blocks) -> list[int]:
        """Channels of these layers where the convolutions of layer 0 begin at `start`; the image lies before them."""
        if tuple(layers) == (IMAGE,):
            return list(range(channels))
        rows = [(start + (j * blocks + c) * most, network.layers[j].filters) for j in layers for c in range(upto)]
        return [first + filter for first, filters in rows for filter in range(filters)]

    found: dict[str, Any] = {}
    for i, layer in enumerate(network.layers):
        rows, columns = (_centred(plan, side) for side in (layer.height, layer.width))
        found[f"layer{i}"] = {}
        for c in range(blocks):
            weights = params[f"layer{i}"][f"conv{c}"]
            inputs = places(layer.inputs, channels) + places([i], channels, c)
            kernel = weights["kernel"][rows, columns][:, :, np.array(inputs), : layer.filters]
            norm = {name: leaf[: layer.filters] for name, leaf in weights["norm"].items()}
            found[f"layer{i}"][f"conv{c}"] = {"kernel": kernel, "norm": norm}
    classifier = params["classifier"]
    kept = np.array(places(network.outputs, 0))
    return {**found, "classifier": {"kernel": classifier["kernel"][kept], "bias": classifier["bias"]}}


def _convolution(plan: LayerPlan, images: Sequence[jax.Array], kernel: jax.Array, sizes: Sizes, layer: int):
    """A convolution of the image and all convolutions before it, one behind the other along the channels."""
    if not by_hand(plan.lowering):
        return conv(jnp.concatenate(images, -1), kernel, lowering=plan.lowering)
    # The sum of a convolution for each image, which leaves out what is not in use.
    chosen = tuple(count + plan.more_filters for count in plan.filters)
    narrow = most_filters(plan) < BRANCHING
    filters = (max(chosen),) if narrow else chosen
    parts = lax.split(kernel, [image.shape[-1] for image in images], axis=2)
    terms = []
    for place, (image, part) in enumerate(zip(images, parts, strict=True)):
        writer = (place - 1) // plan.convolutions
        use = sizes.of_layer(writer, layer) if place else sizes.of_image(layer)
        if narrow:
            use = use._replace(inputs=0, outputs=0)
        widths = (filters if place else (image.shape[-1],), filters)
        terms.append(conv_in_use(widths, image, part, use))
    return functools.reduce(jnp.add, terms)


def _inside(plan: LayerPlan, masks: Masks, like: Tree) -> Tree:
    """The mask of every weight, in a tree of the shapes of `like`."""
    channels = like["layer0"]["conv0"]["kernel"].shape[2]
    filters = jnp.repeat(masks.filters, plan.convolutions, 0)  # of every convolution, [N, S]
    found: dict[str, Any] = {f"layer{i}": {} for i in range(plan.num_layers)}
    for i, c, n in _nodes(plan):
        image, *others = gates(plan, masks, i, c)
        read = [jnp.full(channels, image), *(gate * row for gate, row in zip(others, filters[:n], strict=True))]
        inputs = masks.area[i][:, :, None] * jnp.concatenate(read).reshape(1, 1, -1)
        kernel = inputs[..., None] * masks.filters[i].reshape(1, 1, 1, -1)
        found[f"layer{i}"][f"conv{c}"] = {"kernel": kernel, "norm": dict.fromkeys(("bias", "scale"), masks.filters[i])}
    outputs = (jnp.repeat(masks.outputs, plan.convolutions)[:, None] * filters).reshape(-1, 1)
    classifier = {"kernel": jnp.tile(outputs, (1, plan.num_classes)), "bias": jnp.ones(plan.num_classes, plan.wide)}
    return {**found, "classifier": classifier}


def _shapes(plan: LayerPlan, channels: int) -> dict[str, Any]:
    """Shapes of all weights."""
    side, most = max(plan.kernels), most_filters(plan)
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=plan.wide)
    found: dict[str, Any] = {f"layer{i}": {} for i in range(plan.num_layers)}
    for i, c, n in _nodes(plan):
        norm = {"scale": shape((most,)), "bias": shape((most,))}
        found[f"layer{i}"][f"conv{c}"] = {"kernel": shape((side, side, channels + n * most, most)), "norm": norm}
    features = plan.num_layers * plan.convolutions * most
    return {**found, "classifier": {"kernel": shape((features, plan.num_classes)), "bias": shape((plan.num_classes,))}}


def _nodes(plan: LayerPlan) -> Iterator[tuple[int, int, int]]:
    """The layer of every convolution, its number in the layer and its number in the network, in order."""
    for n in range(plan.num_layers * plan.convolutions):
        yield *divmod(n, plan.convolutions), n


def _centred(plan: LayerPlan, side: int) -> slice:
    first = (max(plan.kernels) - side) // 2
    return slice(first, first + side)
