"""A space of one's own, in fewer than sixty lines: inverted bottlenecks with squeeze-and-excitation."""

import dataclasses

import jax

from jaxnas.ops import Classifier, ConvNormAct, MBConv, Squeeze, Style, Zero
from jaxnas.spaces.parts import Fixed, Place, StandAlone, assemble, runs


@dataclasses.dataclass(frozen=True)
class MobileConfig:
    """Stages of `depth` blocks; the first block of each halves the grid, and widths double from stage to stage."""

    width: int
    stages: int
    depth: int
    expansions: tuple[int, ...]
    num_classes: int

    def pieces(self, style):
        """A convolution, searchable blocks, a classifier."""
        return {
            "stem": Fixed("stem", ConvNormAct(self.width, 1, style, activation=jax.nn.silu)),
            "runs": runs(self.places(style)),
            "head": Fixed("head", Classifier(self.num_classes)),
        }

    def places(self, style):
        """Every block chooses its expansion; one with a shortcut may be left out."""
        for stage in range(self.stages):
            for number in range(self.depth):
                width, halves = self.width * 2**stage, number == 0
                sizes = (width, 2 if halves else 1, style)
                settings = {"activation": jax.nn.silu, "squeeze": Squeeze()}
                blocks = {f"e{expand}": MBConv(*sizes, expand=expand, **settings) for expand in self.expansions}
                yield Place(
                    "halve" if halves else "same", blocks if halves else blocks | {"skip": Zero(width)}, not halves
                )

    def forward(self, net, x):
        """The way through the pieces."""
        x = net["stem"](x)
        for run in net["runs"]:
            x = run(x)
        return net["head"](x)


def mobile_space(
    width=8, stages=3, depth=3, expansions=(3, 6), *, num_classes=10, lowering="auto", dtype="float32", reference=0
):
    """The space; `derive` keeps the best expansion of every block."""
    settings = dict(locals())
    config = MobileConfig(width, stages, depth, tuple(expansions), num_classes)
    alone = StandAlone(config, Style(affine=True, running=True, lowering=lowering))
    style = Style(affine=True, lowering=lowering, reference=reference)
    return assemble("mobile", config, style, lambda: alone, settings)
