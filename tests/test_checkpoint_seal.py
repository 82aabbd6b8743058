"""Arrays that Orbax reads without complaint and that are not those of the checkpoint."""

import shutil

import jax.numpy as jnp
import numpy as np

from jaxnas.checkpoint import Checkpoints


def test_arrays_of_another_save_are_noticed_by_their_checksums(tmp_path, capfd):
    """Two checkpoints of one form, the arrays of the newer one replaced by those of the older one."""
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"weight": jnp.arange(40.0) * step, "count": step})
    shutil.rmtree(tmp_path / "step_2" / "state")
    shutil.copytree(tmp_path / "step_1" / "state", tmp_path / "step_2" / "state")
    with Checkpoints(tmp_path) as checkpoints:
        step, state, _ = checkpoints.restore({"weight": jnp.zeros(40), "count": 0})
    assert (step, state["count"]) == (1, 1)
    np.testing.assert_array_equal(state["weight"], np.arange(40.0))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("leaf state['weight'] fails its checksum")
