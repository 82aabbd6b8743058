"""The benchmark of convolutional children, run small."""

import pytest

from benchmarks import convolutional_children, recurrent_cells
from jaxnas.errors import UserError
from jaxnas.population import Record


@pytest.mark.parametrize("benchmark", [convolutional_children, recurrent_cells])
@pytest.mark.parametrize("option", [("--steps", "0"), ("--devices", "-1"), ("--devices", "two")])
def test_numbers_below_one_are_refused_in_one_line(benchmark, option, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(option)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"argument {option[0]}: expected a whole number of at least 1, got '{option[1]}'")


def test_what_a_case_refuses_is_one_line(monkeypatch, capsys):
    def refuse(*_):
        raise UserError("chunk must be a multiple of the devices")

    monkeypatch.setattr(recurrent_cells, "measure", refuse)
    monkeypatch.setattr(recurrent_cells, "split_cpu", lambda devices: None)
    with pytest.raises(SystemExit):
        recurrent_cells.main(["--devices", "2"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: chunk must be a multiple of the devices")


def test_a_child_that_failed_is_named_and_gives_no_figure():
    records = [Record({"id": 4}, {"seconds": 2.5}, None, 9.0, 1), Record({"id": 5}, {"seconds": 1.5}, None, 9.0, 1)]
    assert convolutional_children.farm_seconds(records) == 4
    with pytest.raises(UserError, match="child 6 failed: no memory"):
        convolutional_children.farm_seconds([*records, Record({"id": 6}, None, "no memory", 1.0, 2)])


@pytest.mark.slow
def test_a_row_for_each_route_with_one_accuracy(capsys):
    small = ["--children", "2", "--steps", "2", "--layers", "2", "--filters", "2", "3"]
    convolutional_children.main(["--routes", "map", "farm1", *small])
    rows = [[entry.strip() for entry in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:4]] == ["map", "farm1"]
    assert all(int(row[2]) > 0 for row in rows[2:4])
    assert rows[2][-1] == rows[3][-1], "children do not depend on their route"
