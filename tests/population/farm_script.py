"""A script with a farm that may kill itself: `python -m tests.population.farm_script FOLDER PROCESSES DIES_AFTER`."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from jaxnas.population import Farm, local_processes
from tests.population.farm_children import FINE, RAISES, child

CONDUCTS = [FINE, FINE, RAISES, FINE, FINE, FINE, FINE, FINE]


def main(folder: Path, num_processes: int, dies_after: int) -> None:
    def on_progress(done, total):
        del total
        if 0 < dies_after <= done:
            os.kill(os.getpid(), signal.SIGKILL)

    archs = {"layer": np.stack([CONDUCTS, np.arange(8)], -1)}
    with Farm(
        child,
        ("error", "macs"),
        config={"folder": str(folder)},
        workers=local_processes(num_processes) if num_processes else None,
        directory=folder / "farm",
        on_progress=on_progress,
    ) as farm:
        halves = [farm.evaluate(ids, {"layer": archs["layer"][ids]}) for ids in np.split(np.arange(8), 2)]
    np.save(folder / "history.npy", np.concatenate(halves))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
