"""Searches that train their children a generation at a time: what the training took, and which children are best."""

from typing import Any

import numpy as np

from experiments import common
from jaxnas.base import Arch
from jaxnas.population import Population
from jaxnas.run import History, Run


def keep_seconds(run: Run, name: str, trained: Population) -> None:
    """Writes down what the training of a generation took; a resumed search, which finds it trained, keeps that number.

    Args:
      run: the run in whose work directory it happens.
      name: the name of the search and the id of the generation's first child, as in `nas_rl/8`.
      trained: the generation.
    """
    run.once(f"seconds/{name}", lambda: float(trained.seconds.sum()))


def seconds_of(run: Run, method: str, history: History, size: int) -> np.ndarray:
    """The seconds that the training of each child took, `[T]`: those of its generation, divided by the children in it.

    NaN for a generation of which nothing was written down. The clock of a search that was resumed has seen only a part.
    """
    took = [float(run.once(f"seconds/{method}/{first}", lambda: np.nan)) for first in history.ids[::size]]
    return np.repeat(np.array(took) / size, size)


def first_objective(history: History) -> np.ndarray:
    """The first objective of every child, infinite for one that failed: `[T]`."""
    return np.where(history.good, history.fitness[:, 0], np.inf)


def best_number(history: History) -> int:
    """The place in the history of the child that is best in the first objective."""
    return int(np.argmin(first_objective(history)))


def best_arch(history: History) -> Arch:
    """The child that is best in the first objective."""
    return common.child(history.archs, best_number(history))


def counts(history: History, new: np.ndarray) -> dict[str, Any]:
    """The entries of `result.json` that all searches have.

    Args:
      history: the search.
      new: whether each child differs from all before it, bool `[T]`; see `experiments.repeats`.

    Returns:
      The numbers of children and of distinct ones, the seconds of training, and children an hour, which is None where
      it is not known what the training took.
    """
    children, seconds = len(history.ids), float(history.seconds.sum())
    return {
        "children": children,
        "distinct": int(new.sum()),
        "seconds": round(seconds, 1),
        "children_per_hour": round(3600 * children / seconds) if seconds > 0 else None,
    }
