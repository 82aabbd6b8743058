"""The stand-alone network of NAS-RL's convolutional space, with a program of its own, and its exact counts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.base import Arch
from jaxnas.ops import Classifier, ConvNorm, Cost, Style, conv, max_pool
from jaxnas.spaces.nas_rl.decoding import IMAGE, Decoded, Layer, decode, grids
from jaxnas.spaces.nas_rl.layer_plan import LayerPlan

__all__ = ["ConvLayer", "DenseBlock", "LayerNetwork", "depth_concatenation", "layer_counts"]


class ConvLayer(ConvNorm):
    """Convolution, then normalisation and ReLU in one of two orders.

    Attributes:
      order: `"conv_bn_relu"` or `"conv_relu_bn"`.
    """

    order: str = "conv_bn_relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer to `x[B, H, W, C]`."""
        kernel = self._kernel("kernel", self.kernel, x.shape[-1], self.features)
        y = conv(x, kernel, stride=self.stride, lowering=self.style.lowering)
        return jax.nn.relu(self._normalise(y)) if self.order == "conv_bn_relu" else self._normalise(jax.nn.relu(y))


class DenseBlock(nn.Module):
    """The convolutions of one layer, each of which reads the block's input and all convolutions before it.

    The output is the concatenation of all convolutions; with one of them, the block is that convolution. The first
    convolution has the strides of the layer; the others read the input at those of its pixels that the strides meet.

    Attributes:
      layer: kernel, filters and strides.
      plan: settings of the space.
      style: how the convolutions normalise and are lowered.
    """

    layer: Layer
    plan: LayerPlan
    style: Style

    def convolutions(self) -> list[ConvLayer]:
        """The convolutions in order, by the names under which their weights stand."""
        sides, filters = (self.layer.height, self.layer.width), self.layer.filters
        return [
            ConvLayer(
                filters,
                1 if number else self.layer.strides,
                self.style,
                kernel=sides,
                activation=None,
                order=self.plan.order,
                name=f"conv{number}",
                parent=None,
            )
            for number in range(self.plan.convolutions)
        ]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to `x[B, H, W, C]`."""
        down, across = self.layer.strides
        first, *others = (one.clone(parent=self) for one in self.convolutions())
        images = [x[:, ::down, ::across], first(x)]
        for one in others:
            images.append(one(jnp.concatenate(images, -1)))
        return jnp.concatenate(images[1:], -1)

    def cost(self, in_features: int, height: int, width: int) -> Cost:
        """Parameters and multiply-adds for one image of `in_features` channels."""
        first, *others = self.convolutions()
        total = first.cost(in_features, height, width)
        for number, one in enumerate(others, 1):
            total += one.cost(in_features + number * self.layer.filters, *first.grid(height, width))
        return total


class LayerNetwork(nn.Module):
    """The stand-alone network of one architecture.

    Attributes:
      plan: settings of the space.
      style: how the layers normalise and are lowered; the call sets `style.train`.
      network: the layers, from `decode`; None only for a form whose architecture is still to come.
    """

    plan: LayerPlan
    style: Style
    network: Decoded | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_rate: Any = None) -> jax.Array:
        """Logits `[B, num_classes]` of `x[B, H, W, C]`.

        Args:
          x: images.
          train: whether normalisation uses the statistics of the batch.
          drop_rate: taken for the sake of other networks; nothing here is random.
        """
        del drop_rate
        assert self.network is not None
        style = dataclasses.replace(self.style, train=train)
        outputs = {IMAGE: x}
        for i, layer in enumerate(self.network.layers):
            if i in self.plan.pooling:  # everything that is read from here on
                outputs = {j: max_pool(y, stride=2, lowering=style.lowering) for j, y in outputs.items()}
            images = [outputs[j] for j in layer.inputs]  # rule 1
            outputs[i] = DenseBlock(layer, self.plan, style, name=f"layer{i}")(depth_concatenation(images))
        last = depth_concatenation([outputs[j] for j in self.network.outputs])  # rule 2
        return Classifier(self.plan.num_classes, name="classifier")(last)


def depth_concatenation(images: Sequence[jax.Array]) -> jax.Array:
    """Rule 3: images `[B, H, W, C]` one behind the other along the channels, the smaller ones padded with zeros.

    Zeros stand below and at the right of an image that is smaller than the largest height or width. The paper (Zoph
    and Le, 2017, arXiv 1611.01578, section 3.3) does not say at which side they stand.

    Example:
      >>> depth_concatenation([jnp.ones((1, 1, 2, 1)), jnp.ones((1, 2, 1, 1))])[0, :, :, 0].tolist()
      [[1.0, 1.0], [0.0, 0.0]]
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pads = [((0, 0), (0, height - image.shape[1]), (0, width - image.shape[2]), (0, 0)) for image in images]
    return jnp.concatenate([jnp.pad(image, pad) for image, pad in zip(images, pads, strict=True)], -1)


def layer_counts(plan: LayerPlan, style: Style, arch: Arch, image_shape: Sequence[int]) -> dict[str, int]:
    """Exact parameters and multiply-adds of the stand-alone network of an architecture.

    Args:
      plan: settings of the space.
      style: how the network normalises; `style.affine` decides whether normalisation has parameters.
      arch: one integer per decision, leaves `[E]`.
      image_shape: `(H, W, C)` of one image.

    Returns:
      `parameters`, and `macs` of convolutions and classifier for one image.
    """
    height, width, channels = image_shape
    network = decode(plan, arch)
    read = grids(plan, network, height, width).read
    features, total = {IMAGE: channels}, Cost(0, 0)
    for i, layer in enumerate(network.layers):
        block = DenseBlock(layer, plan, style, parent=None)
        total += block.cost(sum(features[j] for j in layer.inputs), *read[i])
        features[i] = plan.convolutions * layer.filters
    total += Classifier(plan.num_classes, parent=None).cost(sum(features[j] for j in network.outputs))
    return total._asdict()
