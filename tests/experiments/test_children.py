"""Populations that a script trains: in a folder of the run, under its key, and saved as often as its phases are."""

from types import SimpleNamespace

import numpy as np

from experiments import common
from jaxnas.run import Run, Saving


def test_a_population_is_saved_as_often_as_the_run(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(common, "train_population", lambda *_, **settings: asked.update(settings))
    with Run(tmp_path, writers=(), saving=Saving(seconds=7.0)) as run:
        archs, recipe = {"cell": np.zeros((2, 6), int)}, SimpleNamespace(steps=3)
        common.train_networks(run, "search/0", None, archs, None, recipe, chunk=5)
    assert asked["save_seconds"] == 7.0
    assert asked["directory"] == tmp_path / "children" / "search" / "0"
    assert asked["chunk"] == 5
