"""A found network as files that need no jaxnas: `python -m jaxnas.export WORKDIR --out DIR`.

It writes `network.stablehlo`, the logits as a function of images with the weights inside, `weights.safetensors`, and
`network.json`, which says what goes in, what comes out and how to load it. StableHLO needs flatbuffers, which the extra
`export` brings and which is imported when it is needed.
"""

from jaxnas.export.stablehlo import to_stablehlo
from jaxnas.export.weights import load_variables, save_variables, to_safetensors
from jaxnas.export.workdir import architecture_record, export_workdir

__all__ = [
    "architecture_record",
    "export_workdir",
    "load_variables",
    "save_variables",
    "to_safetensors",
    "to_stablehlo",
]
