"""The logits of a network as StableHLO, through `jax.export`: one function of images, its weights inside."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnas.base import Network, Tree
from jaxnas.export.weights import require

__all__ = ["PLATFORMS", "to_stablehlo"]

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(
    network: Network, variables: Tree, image_shape: Sequence[int], *, platforms: Sequence[str] = PLATFORMS
) -> bytes:
    """Serialises the function from images to logits, with the weights as constants and any batch size.

    The operations are those that the network uses here. A network built on a CPU with `lowering="auto"` holds
    depthwise convolutions as shifted sums; they run everywhere, but for the fastest program on an accelerator build
    it with `lowering="lax"`, which gives the same numbers.

    Args:
      network: a stand-alone network with running averages. One that normalises with the batch (see
        `jaxnas.derive.network`) is exported too, and its answer for an image then depends on the rest of the batch.
      variables: the network's weights and running averages.
      image_shape: the shape of one image, `(H, W, C)`.
      platforms: the platforms that the function is to run on, as JAX names them.

    Returns:
      Bytes for `jax.export.deserialize`, whose `call` takes float32 images `[B, H, W, C]`, already normalised as in
      training, to logits `[B, num_classes]`.

    Raises:
      ImportError: without flatbuffers.

    Example:
      >>> from jax import export
      >>> network = jn.base.Network(None, lambda variables, x, **_: (x.mean((1, 2)) @ variables, variables))
      >>> content = to_stablehlo(network, jnp.ones([3, 10]), (8, 8, 3), platforms=["cpu"])
      >>> export.deserialize(bytearray(content)).call(jnp.zeros([5, 8, 8, 3])).shape
      (5, 10)
    """
    require("flatbuffers")
    from jax import export

    def logits(images):
        return network.apply(variables, images)[0]

    # The batch size stays a symbol, so that one function serves all.
    shape = (*export.symbolic_shape("batch"), *image_shape)
    exported = export.export(jax.jit(logits), platforms=tuple(platforms))(jax.ShapeDtypeStruct(shape, jnp.float32))
    return bytes(exported.serialize())
