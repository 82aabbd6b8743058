"""The benchmark of convolutional children, run small."""

import pytest

from benchmarks import convolutional_children


@pytest.mark.slow
def test_a_row_for_each_route_with_one_accuracy(capsys):
    small = ["--children", "2", "--steps", "2", "--layers", "2", "--filters", "2", "3"]
    convolutional_children.main(["--routes", "map", "farm1", *small])
    rows = [[entry.strip() for entry in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:4]] == ["map", "farm1"]
    assert all(int(row[2]) > 0 for row in rows[2:4])
    assert rows[2][-1] == rows[3][-1], "children do not depend on their route"
