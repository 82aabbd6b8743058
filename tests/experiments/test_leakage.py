"""A search never sees test data: with the test part poisoned, everything up to the test itself stays the same."""

import dataclasses

import numpy as np
import pytest

from experiments import batches, common, snas
from experiments.configs.snas import PRESETS
from jaxnas import data
from jaxnas.run import Run


class Reached(Exception):
    """Raised by test data that is looked at."""


class Trap:
    """Stands for the test examples and may not be touched."""

    def __getattribute__(self, name):
        raise Reached(name)

    def __iter__(self):
        raise Reached("iter")


def test_search_ends_before_test_data_is_touched(tmp_path, monkeypatch):
    config = common.smoke(PRESETS["digits"])
    # The epochs of `test_scripts.test_killed_...`, so that both have the same compiled programs.
    longer = {name: dataclasses.replace(getattr(config, name), epochs=4) for name in ("search", "retrain")}
    config = dataclasses.replace(config, **longer)
    loaded = data.load(config.data.name)
    trapped = dataclasses.replace(loaded)
    object.__setattr__(trapped, "test", Trap())
    monkeypatch.setattr(batches, "load_data", lambda _: trapped)
    with Run(tmp_path, config, writers=()) as run, pytest.raises(Reached):
        snas.main(run, config)
    # The search was over and its children trained: only the test itself met the trap.
    assert (tmp_path / "results" / "validation.json").exists()
    assert (tmp_path / "checkpoints" / "retrain").exists()
    assert not (tmp_path / "results" / "test.json").exists()


def test_the_two_parts_and_the_test_part_are_disjoint():
    loaded = data.load("digits")
    parts = batches.split_data(loaded, PRESETS["digits"].data, 0)
    seen = [np.asarray(part.images) for part in (parts.weights, parts.policy)] + [np.asarray(loaded.test.images)]
    assert sum(map(len, seen)) == 1797
    whole = {image.tobytes() for image in np.concatenate(seen)}
    assert len(whole) == sum(len({image.tobytes() for image in part}) for part in seen)
