"""From a finished work directory to files that need no jaxnas.

The work directory holds `architecture.json`, written from `architecture_record`, and the trained weights that it names.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import derive
from jaxnas.architecture_files import Source, build_space, decode, read_source
from jaxnas.base import Arch, Network, SearchSpace
from jaxnas.describe import architecture_summary, network_costs
from jaxnas.errors import UserError
from jaxnas.export.stablehlo import PLATFORMS, to_stablehlo
from jaxnas.export.weights import load_variables, to_safetensors
from jaxnas.files import json_text, write_bytes

__all__ = ["architecture_record", "export_workdir"]

FIELDS = ("space", "settings", "network", "image_shape", "num_classes", "normalisation", "arch", "genotype", "weights")

LOAD = """\
import json, pathlib
import numpy as np
from jax import export
about = json.loads(pathlib.Path("network.json").read_text())
logits_fn = export.deserialize(pathlib.Path("network.stablehlo").read_bytes()).call
mean, std = (np.array(about["normalisation"][name], "float32") for name in ("mean", "std"))
logits = logits_fn((pixels.astype("float32") / 255 - mean) / std)  # uint8 pixels [batch, height, width, channels]
"""


def architecture_record(
    space: SearchSpace,
    arch: Arch,
    *,
    image_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    network: dict[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    expected_latency: float | None = None,
    weights: str = "network.safetensors",
) -> dict[str, Any]:
    """The content of `architecture.json`: the architecture, and all it takes to build its network again.

    Args:
      space: a space of `jaxnas.spaces.registry`, built in the size of the network that was trained.
      arch: the architecture, one integer per decision, leaves `[E]`.
      image_shape: the shape of one image, `(H, W, C)`.
      num_classes: the width of the network's output.
      mean: one number for each channel, `[C]`: the network was trained on `(pixel / 255 - mean) / std`.
      std: one number above 0 for each channel, `[C]`.
      network: the changes given to `space.about.network`; of a network with inherited weights
        `space.about.supernet`.
      classes: the names of the classes in the order of their numbers; None where they have none.
      expected_latency: the sum of the latencies of the network's blocks in milliseconds; None without a table.
      weights: the name of the file of trained variables that lies beside `architecture.json`.

    Returns:
      What `jaxnas.describe.architecture_summary` says of the network in this form, with these arguments and the
      space's settings. `parameters` is the number of entries of the weights file's `params`.

    Raises:
      UserError: an architecture of another space, or `mean`, `std` or `classes` of another length.
    """
    normalisation = {"mean": np.asarray(mean, float).tolist(), "std": np.asarray(std, float).tolist()}
    # One number for each channel, one name for each class.
    lengths = [(name, values, image_shape[-1]) for name, values in normalisation.items()]
    lengths += [("classes", list(classes), num_classes)] if classes is not None else []
    for name, values, length in lengths:
        if len(values) != length:
            raise UserError(f"{name} must have {length} entries, got {len(values)}")
    return {
        **architecture_summary(space, arch, image_shape, network=network or {}),
        "settings": space.about.config,
        "network": dict(network or {}),
        "image_shape": list(image_shape),
        "num_classes": num_classes,
        "classes": None if classes is None else list(classes),
        "normalisation": normalisation,
        "expected_latency": expected_latency,
        "weights": weights,
    }


def export_workdir(workdir: str | Path, out: str | Path) -> dict[str, Any]:
    """Writes `network.stablehlo`, `weights.safetensors` and `network.json` of a finished run.

    Args:
      workdir: the work directory, which holds `architecture.json` and the file of weights that it names.
      out: the folder to write to; it is made if need be.

    Returns:
      The content of `network.json`.

    Raises:
      UserError: a missing, incomplete or unfitting file.
      ImportError: without flatbuffers or safetensors.
    """
    # The network that the record describes, and the weights that fit it.
    workdir, out = Path(workdir), Path(out)
    source = _read_record(workdir)
    space, record = build_space(source), source.record
    arch = decode(space, source)
    network = _network(space, arch, record["network"])
    batch = jax.ShapeDtypeStruct((4, *record["image_shape"]), jnp.float32)
    like = jax.eval_shape(network.init, jax.random.key(0), batch)
    variables = load_variables(_existing(workdir, record["weights"]), like)
    width = jax.eval_shape(network.apply, variables, batch)[0].shape[-1]
    if width != record["num_classes"]:
        raise UserError(f"{workdir}: num_classes is {record['num_classes']}, the network has {width} outputs")
    # The files, then the description that seals them.
    files = {
        "network.stablehlo": to_stablehlo(network, variables, record["image_shape"]),
        "weights.safetensors": to_safetensors(variables),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    costs = network_costs(space, arch, record["image_shape"], **record["network"])
    about = _about({**record, **costs}, digests)
    for name, content in {**files, "network.json": json_text(about).encode()}.items():
        write_bytes(out / name, content)
    return about


def _network(space: SearchSpace, arch: Arch, changes: dict[str, Any]) -> Network:
    with derive.known_form(space, changes):
        if space.about.network is None:
            return derive.network(space, None, arch, **changes)[0]
        return space.about.network(arch, **changes)


def _about(record: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    return {
        **record,
        "weights": "weights.safetensors",
        "input": {"shape": ["batch", *record["image_shape"]], "dtype": "float32", "is": "(pixel / 255 - mean) / std"},
        "output": {"shape": ["batch", record["num_classes"]], "dtype": "float32", "is": "logits"},
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
        "sha256": digests,
        "load": LOAD.splitlines(),
    }


def _read_record(workdir: Path) -> Source:
    source = read_source(_existing(workdir, "architecture.json"))
    missing = [name for name in FIELDS if name not in source.record]
    if missing:
        raise UserError(f"{source.name} lacks {', '.join(missing)}")
    return source


def _existing(workdir: Path, name: str) -> Path:
    if not workdir.is_dir():
        raise UserError(f"workdir {workdir} does not exist or is not a directory")
    if not (workdir / name).is_file():
        raise UserError(f"workdir {workdir} has no {name}: the run is not finished, or of a kind without one")
    return workdir / name
