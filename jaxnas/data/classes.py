"""Which classes a part of the data has examples of, and the rule by which `split` keeps every class in both parts."""

from typing import Any

import numpy as np

from jaxnas.data.notes import listed

__all__ = ["lacking", "share_out"]


def lacking(what: str, labels: Any, expected: np.ndarray) -> str | None:
    """Returns a phrase that names the classes of which a part has no example, or None if it has all.

    Args:
      what: how a message calls the examples of the part, for example `"test examples"`.
      labels: integers `[N]` of the part, not negative.
      expected: the classes that should occur.

    Returns:
      The phrase, or None.

    Example:
      >>> lacking("test examples", [0, 2, 2], np.arange(3))
      'none of the 3 test examples is of class 1'
    """
    absent = np.setdiff1d(expected, np.asarray(labels))
    return f"none of the {len(labels)} {what} is of class {listed(absent.tolist())}" if len(absent) else None


def share_out(labels: np.ndarray, order: np.ndarray, sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cuts two parts from an order of all examples, then exchanges examples until no part lacks a class.

    Parts that have every class already, as those of balanced data do, stay exactly as the order has them. A part that
    lacks a class receives the first example of it that neither part uses, or else that of the other part, if the other
    part has two. In return the part gives up its last example of the class of which it has most. A class stays lost
    only where it has a single example or the part is smaller than the number of classes.

    Args:
      labels: integers `[N]`, not negative.
      order: a permutation of the positions `0..N-1`.
      sizes: how many examples go to each part; the rest is used by neither.

    Returns:
      The positions of each part, in the given order except for the exchanged ones.

    Example:
      >>> share_out(np.array([0, 0, 0, 1, 1]), np.arange(5), (2, 3))
      (array([0, 3]), array([2, 1, 4]))
    """
    parts = np.split(order.copy(), np.cumsum(sizes))  # weights, policy, neither
    counts = np.stack([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])
    for here, other in ((0, 1), (1, 0)):
        # Classes that this part lacks though there are examples of them.
        for label in np.flatnonzero((counts[here] == 0) & (counts.sum(0) > 0)):
            # An example that neither part uses, or else one that the other part can spare.
            source, needed = (2, 1) if counts[2, label] else (other, 2)
            most = counts[here].argmax()
            if counts[source, label] < needed or counts[here, most] < 2:
                continue
            # The exchange: the last example of this part's largest class for the first one of the missing class.
            given = np.flatnonzero(labels[parts[here]] == most)[-1]
            taken = np.flatnonzero(labels[parts[source]] == label)[0]
            parts[here][given], parts[source][taken] = parts[source][taken], parts[here][given]
            counts[[here, source], [label, most]] += 1
            counts[[here, source], [most, label]] -= 1
    return parts[0], parts[1]
