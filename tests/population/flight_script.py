"""A search with three asks out on a farm: `python -m tests.population.flight_script FOLDER SEARCH PROCESSES DOOMED`.

SEARCH is one of `SEARCHES`. The child numbered DOOMED kills the script in the midst of its training, unless the number
is negative. PROCESSES is the number of processes that train children, or 0 for two threads.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxnas.policies import controller
from jaxnas.population import Farm, Workers, local_processes
from jaxnas.run import History, Run, Saving, search
from jaxnas.searchers import accuracy_cubed, nas_rl, regularized_evolution
from tests.population.farm_children import dooming_child

ASKS = 16
CHOICES = {"layer": jax.ShapeDtypeStruct((2, 3), np.float32)}
SEARCHES = {
    "evolution": regularized_evolution(CHOICES, population_size=3, sample_size=2),
    "nas_rl": nas_rl(
        controller(CHOICES, num_units=4), optax.adam(0.1), batch_size=1, reward=accuracy_cubed, replicas=3
    ),
}


def searched(
    folder: Path,
    workers: Workers | None,
    name: str = "evolution",
    *,
    child_fn=dooming_child,
    doomed: int = -1,
    **settings,
) -> tuple[Any, History]:
    """The last state and the history of a search whose children do as their architectures say."""
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
        return search(run, "search", SEARCHES[name], farm.submit, ASKS, **{"in_flight": 3, **settings})


def let_live(folder: Path, *numbers: int) -> None:
    """Has children with these numbers live that would kill their workers once."""
    for number in numbers:
        (folder / f"died_{number}").touch()


def numbers_of(found: tuple[Any, History]) -> np.ndarray:
    """All numbers of a search but the seconds, in one row."""
    state, history = found
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves((state, history._replace(seconds=None)))])


def main(folder: Path, name: str, num_processes: int, doomed: int) -> None:
    let_live(folder, 0, 1, 2)
    threads = Workers(lambda: ThreadPoolExecutor(2), 2)
    workers = local_processes(num_processes) if num_processes else threads
    np.save(folder / "found.npy", numbers_of(searched(folder, workers, name, doomed=doomed)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
