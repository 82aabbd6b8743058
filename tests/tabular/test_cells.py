"""A table of recurrent cells from a file written down here: units, classes, runs that are missing or diverged."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.errors import UserError
from jaxnas.spaces.nas_rl import recurrent_cell_space
from jaxnas.spaces.nas_rl.symmetry import all_recurrent_cells
from jaxnas.tabular import load, lookup
from jaxnas.tabular.cell_table import DIVERGED, MISSING, exhaustive_cells

SPACE = recurrent_cell_space(2)
NATS = [  # by class, run and judgement, in units of 1e-4 nats
    [[30000, 25000], [31000, 26000], [32000, DIVERGED]],
    [[40000, 35001], [MISSING, MISSING], [MISSING, MISSING]],
    [[DIVERGED, DIVERGED], [MISSING, MISSING], [MISSING, MISSING]],
]


@pytest.fixture
def arrays():
    """Cells in the opposite order of counting; the first two are of class 0 and 2, all others of class 1."""
    cells = {name: leaf[::-1].astype(np.uint8) for name, leaf in all_recurrent_cells(SPACE).items()}
    class_of = np.ones(36864, np.uint16)
    class_of[:2] = 0, 2
    nats = np.array(NATS, np.int32)
    return {
        **cells,
        "class_of": class_of,
        "steps": np.array([50, 100]),
        "validation_nats": nats,
        "test_nats": np.where(nats < 0, nats, nats + 1),
        "seconds": np.array(0.25, np.float32),
    }


def _of(table, metric, first):
    """A metric of the last cell of the space, of the one before, or of the first."""
    number = {0: 36863, 2: 36862, 1: 0}[first]
    return np.asarray(table.metrics[metric])[number]


def test_metrics_are_nats_by_part_and_step(arrays, tmp_path):
    np.savez(tmp_path / "cells.npz", **arrays)
    table = exhaustive_cells(tmp_path / "cells.npz")
    assert table.choices == SPACE.choices
    assert table.present is None
    assert set(table.metrics) == {"diverged", "seconds"} | {
        f"{part}_nats_{step}{runs}" for part in ("valid", "test") for step in (50, 100) for runs in ("", "_runs")
    }
    # The mean over runs that ended; the last judgement of the third run of class 0 is missing from it.
    assert _of(table, "valid_nats_50", 0) == pytest.approx(3.1)
    assert _of(table, "valid_nats_100", 0) == pytest.approx(2.55)
    assert _of(table, "test_nats_100", 0) == pytest.approx(2.5501)
    np.testing.assert_allclose(_of(table, "valid_nats_100_runs", 0), [2.5, 2.6, np.nan])
    assert _of(table, "valid_nats_100", 1) == pytest.approx(3.5001)
    # A cell all of whose runs diverged is there, with NaN.
    assert np.isnan(_of(table, "valid_nats_100", 2))
    assert [float(_of(table, "diverged", number)) for number in (0, 1, 2)] == pytest.approx([1 / 3, 0, 1])
    assert _of(table, "seconds", 0) == 0.25


def test_a_cell_is_found_by_its_architecture(arrays, tmp_path):
    np.savez(tmp_path / "cells.npz", **arrays)
    table = load(f"exhaustive-cells:{tmp_path / 'cells.npz'}")
    last = SPACE.about.parse(
        "elem_mult relu, elem_mult relu | elem_mult relu | inject elem_mult relu | index 2 2"
    )  # class 0
    assert float(lookup(table, "valid_nats_50", last)) == pytest.approx(3.1)
    assert np.isnan(lookup(table, "valid_nats_50", last | {"index": jnp.array([2, 1])}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class_of": np.full(36864, 3)},
            "class_of names the classes 3 to 3, and there are 3 rows",
        ),
        ({"class_of": np.zeros(0, int)}, r"class_of is int64 of shape \(0,\), expected whole numbers"),
        ({"class_of": np.zeros(10, int)}, r"class_of is int64 of shape \(10,\), .* of shape \(36864,\)"),
        ({"index": np.zeros((10, 2), int)}, r"index is int64 of shape \(10, 2\), .* of shape \(36864, 2\)"),
        ({"steps": np.array([50])}, r"validation_nats is int32 of shape \(3, 3, 2\), .* of shape \(3, 3, 1\)"),
        ({"steps": np.array([25, 50, 100])}, r"validation_nats .* of shape \(3, 3, 3\)"),
        ({"steps": np.array(["a", "b"])}, "steps is <U1 .* expected whole numbers"),
        ({"seconds": np.array(["a"])}, "seconds is <U1 .* expected a number"),
        ({"validation_nats": np.zeros((3, 3), int)}, r"validation_nats is int64 of shape \(3, 3\)"),
        ({"test_nats": np.zeros((2, 3, 2), np.int32)}, r"test_nats is int32 of shape \(2, 3, 2\)"),
        ({"test_nats": np.zeros((3, 2, 2), np.int32)}, r"test_nats is int32 of shape \(3, 2, 2\)"),
        (
            {"test_nats": np.where(np.arange(3)[:, None, None] == 1, MISSING, np.array(NATS))},
            "other runs in test_nats than in validation_nats, first for class 1",
        ),
        ({"class_of": np.full(36864, -1)}, "class_of names the classes -1 to -1"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(change, message, arrays, tmp_path):
    np.savez(tmp_path / "cells.npz", **(arrays | change))
    with pytest.raises(UserError, match=message):
        exhaustive_cells(tmp_path / "cells.npz")
