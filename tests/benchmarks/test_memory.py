"""The memory benchmark compiles every form, and one path is as small as it should be."""

import json

import pytest

from benchmarks import memory


@pytest.mark.slow
def test_a_row_of_every_form_and_one_path_beside_the_others(capsys):
    memory.main(["--counts", "3", "--blocks", "3", "--width", "8", "--size", "8", "--batch", "16"])
    names, _, row, where = capsys.readouterr().out.strip().splitlines()
    assert [name.strip() for name in names.strip("|").split("|")][1:] == list(memory.FORMS)
    found = dict(zip(memory.FORMS, map(float, row.strip("| ").split("|")[1:]), strict=True))
    assert found["one path"] <= 1.15 * found["child, recomputed"]
    assert found["one path"] <= 0.5 * found["child"]
    assert found["mixture"] >= 3 * found["one path"]
    assert max(found["full_v2"], found["two"]) <= 0.5 * found["child"]
    assert "jax" in json.loads(where)
