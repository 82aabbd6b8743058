"""A search never sees test data: with the test part poisoned, everything up to the test itself stays the same."""

import dataclasses

import numpy as np
import pytest

from experiments import batches, common, darts
from experiments.configs.darts import PRESETS
from jaxnas import data
from jaxnas.run import Run
from tests.experiments.test_scripts import check_files, finish


class Reached(Exception):
    """Raised by test data that is looked at."""


class Trap:
    """Stands for the test examples and may not be touched."""

    def __getattribute__(self, name):
        raise Reached(name)

    def __iter__(self):
        raise Reached("iter")


@pytest.mark.slow
def test_search_ends_before_test_data_is_touched_and_the_script_does_the_rest(tmp_path, monkeypatch):
    config = common.smoke(PRESETS["digits"])
    loaded = data.load(config.data.name)
    trapped = dataclasses.replace(loaded)
    object.__setattr__(trapped, "test", Trap())
    monkeypatch.setattr(batches, "load_data", lambda _: trapped)
    with Run(tmp_path, config, writers=()) as run, pytest.raises(Reached):
        darts.main(run, darts.prepare(config))
    # The search was over and its children trained: only the test itself met the trap.
    assert (tmp_path / "results" / "validation.json").exists()
    assert (tmp_path / "checkpoints" / "retrain").exists()
    assert not (tmp_path / "results" / "test.json").exists()
    code, out, err = finish("darts", tmp_path, "--smoke")
    assert code == 0, err
    assert "compiling search" not in err
    check_files(tmp_path, out)


def test_the_two_parts_and_the_test_part_are_disjoint():
    loaded = data.load("digits")
    parts = batches.split_data(loaded, PRESETS["digits"].data, 0)
    seen = [np.asarray(part.images) for part in (parts.weights, parts.policy)] + [np.asarray(loaded.test.images)]
    assert sum(map(len, seen)) == 1797
    whole = {image.tobytes() for image in np.concatenate(seen)}
    assert len(whole) == sum(len({image.tobytes() for image in part}) for part in seen)
