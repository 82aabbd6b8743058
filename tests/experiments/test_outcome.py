"""What a search script writes of the network it found: one count, that of the weights on disk."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import batches, common, outcome, pictures
from experiments.configs.parts import DataConfig, TrainConfig
from jaxnas import export
from jaxnas.costs import count_parameters
from jaxnas.spaces import registry

SPACES = {
    "darts": {"channels": 2, "cells": 2, "nodes": 1, "operations": ("none", "max_pool_3x3", "dil_conv_3x3")},
    "snas": {"channels": 2, "cells": 1, "nodes": 1, "operations": ("avg_pool_3x3", "dil_conv_3x3")},
    "nasbench201": {"channels": 2, "cells": 1},
}


@pytest.mark.parametrize("name", SPACES)
def test_result_and_architecture_count_the_weights_on_disk(name, tmp_path, monkeypatch):
    config = SimpleNamespace(
        data=DataConfig("synthetic:n=96,size=8,classes=3,channels=1"), retrain=TrainConfig(random_children=1)
    )
    loaded = batches.load_data(config.data)
    images = batches.split_data(loaded, config.data, 0)
    space = registry.build(name, **SPACES[name], num_classes=3)
    arch = jax.tree.map(lambda c: np.full(c.shape[:-1], c.shape[-1] - 2, np.int32), space.choices)
    shapes = jax.eval_shape(space.init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    params = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape), leaf.dtype), shapes)
    monkeypatch.setattr(common, "train_children", lambda *arguments: SimpleNamespace(params=params))
    monkeypatch.setattr(pictures, "draw", lambda *arguments: None)
    written = {}
    run = SimpleNamespace(
        path=tmp_path,
        key=lambda name: jax.random.key(0),
        once=lambda name, fn: [0.5, 0.5],
        save_json=lambda name, content: written.update({name: json.loads(json.dumps(content))}),
    )
    setting = common.Setting(config, loaded, images, space, judge=None)
    child, _, own = outcome.compare(run, setting, arch)
    outcome.write_network(run, setting, arch, own)
    record = written["architecture.json"]
    saved = count_parameters(export.load_variables(tmp_path / "network.safetensors")["params"])
    assert record["parameters"] == child["parameters"] == saved < record["parameters_retrained"]
    assert record["macs"] == child["macs"] == record["macs_retrained"]
    assert type(record["macs"]) is int
