"""A search with three asks out on a farm: `python -m tests.population.flight_script FOLDER PROCESSES DOOMED`.

The child numbered DOOMED kills the script in the midst of its training, unless the number is negative. PROCESSES is the
number of processes that train children, or 0 for two threads.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from jaxnas.population import Farm, Workers, local_processes
from jaxnas.run import History, Run, Saving, search
from jaxnas.searchers import regularized_evolution
from tests.population.farm_children import dooming_child

ASKS = 16
EVOLUTION = regularized_evolution(
    {"layer": jax.ShapeDtypeStruct((2, 3), np.float32)}, population_size=3, sample_size=2, batch_size=1
)


def searched(folder: Path, workers: Workers | None, *, child_fn=dooming_child, doomed: int = -1, **settings) -> History:
    """The history of a search whose children do as their architectures say."""
    (folder / "doom").unlink(missing_ok=True)
    with (
        Run(folder / "run", writers=(), saving=Saving(1e9, steps=2)) as run,
        Farm(
            child_fn,
            ("error",),
            config={"folder": str(folder)},
            workers=workers,
            directory=folder / "farm",
        ) as farm,
    ):
        if doomed >= 0:
            (folder / "doom").write_text(f"{farm.seed_of(doomed)} {os.getpid()}")
        return search(run, "search", EVOLUTION, farm.submit, ASKS, **{"in_flight": 3, **settings})[1]


def let_live(folder: Path, *numbers: int) -> None:
    """Has children with these numbers live that would kill their workers once."""
    for number in numbers:
        (folder / f"died_{number}").touch()


def main(folder: Path, num_processes: int, doomed: int) -> None:
    let_live(folder, 0, 1, 2)
    threads = Workers(lambda: ThreadPoolExecutor(2), 2)
    history = searched(folder, local_processes(num_processes) if num_processes else threads, doomed=doomed)
    np.save(folder / "history.npy", np.concatenate([history.fitness, history.archs["layer"]], 1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
